"""Checksums: what is kept of claims that were pruned, sixteen bytes for a quarter of an hour.

A checksum is the exclusive or of the digests of the counted messages, and their number. The archive
has all of those messages. If the checksum of what it has is the same, exactly those were counted.
Otherwise the difference is made by some of the few doubtful messages, and these can be solved for,
as long as there are fewer unknowns than bits. The digests themselves need not be kept for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, delete, select, update

from statscache.counting.lanes.gaps import read_gaps
from statscache.counting.lanes.lane import Lane
from statscache.database import tables
from statscache.database.upsert import Upsert
from statscache.message import TIMESTAMP_TOLERANCE
from statscache.spans import cover

CHECKSUM_WIDTH = 15 * 60
"""Seconds of history for which one checksum of pruned claims is kept."""

Checksums = Mapping[int, tuple[int, int]]
"""By the start of a window of :data:`CHECKSUM_WIDTH`: how many messages, and their checksum."""

_PRUNED_AT_ONCE = 50_000
_MOST_SPANS = 200


def checksum_window(timestamp: float) -> int:
    """The start of the window to whose checksum claims of this time are added."""
    return int(timestamp) // CHECKSUM_WIDTH * CHECKSUM_WIDTH


def read_checksums(
    connection: Connection, lane: Lane, start: float, stop: float
) -> dict[int, tuple[int, int]]:
    """The number and the checksum of the pruned claims of each window from start to stop.

    A read-only connection is enough.
    """
    table = tables.claim_checksum
    query = select(table.c.start, table.c.messages, table.c.checksum).where(
        table.c.lane == lane.id, table.c.start >= checksum_window(start), table.c.start < stop
    )
    return {
        row.start: (row.messages, int.from_bytes(bytes(row.checksum)))
        for row in connection.execute(query)
    }


def replace_checksums(
    connection: Connection, lane: Lane, start: float, stop: float, checksums: Checksums
) -> None:
    """Replace the checksums from start to stop.

    Both are edges of windows of :data:`CHECKSUM_WIDTH`; ``checksums`` outside are ignored.
    """
    table = tables.claim_checksum.c
    connection.execute(
        delete(tables.claim_checksum).where(
            table.lane == lane.id, table.start >= start, table.start < stop
        )
    )
    inside = {window: checksums[window] for window in checksums if start <= window < stop}
    _add_checksums(connection, lane, inside)


def prune_claims(connection: Connection, lane: Lane, until: float) -> bool:
    """Replace claims from ``lane.history_start`` to before ``until`` by their checksums.

    Returns whether there is more to do: at most 50,000 are pruned at a time.
    """
    start = lane.history_start
    if start is None or until <= (lane.claims_pruned_until or start):
        return False
    claim = tables.claim
    # Claims of what the archive does not have stay, and so do those from before the history of the
    # lane, for which it was never asked: nothing else could tell that they were counted.
    mine = [claim.c.lane == lane.id, claim.c.timestamp >= start, claim.c.archived == 1]
    # So do those in a gap, until it is closed: the archive has messages there that it has not
    # returned yet, too many to be told apart by a checksum. A query can exclude a limited number of
    # gaps, so claims between two of them may stay longer than they must.
    for first, last in cover(read_gaps(connection, lane), _MOST_SPANS):
        mine.append(
            ~claim.c.timestamp.between(first - TIMESTAMP_TOLERANCE, last + TIMESTAMP_TOLERANCE)
        )
    old = select(claim.c.timestamp).where(*mine, claim.c.timestamp < until)
    oldest = connection.scalar(old.order_by(claim.c.timestamp).limit(1))
    bound = connection.scalar(old.order_by(claim.c.timestamp).offset(_PRUNED_AT_ONCE).limit(1))
    is_more = False
    # Not all at once after a long absence, since others wait for the lock. The bound must be later
    # than the oldest claim: where very many have one time, nothing would be pruned otherwise.
    if oldest is not None and bound is not None and bound > oldest:
        until, is_more = bound, True
    rows = connection.execute(
        select(claim.c.identity, claim.c.timestamp).where(*mine, claim.c.timestamp < until)
    ).all()
    # In one transaction: a claim is either a row or a part of a checksum, never both or neither.
    _add_checksums(connection, lane, _summed((bytes(digest), time) for digest, time in rows))
    connection.execute(delete(claim).where(*mine, claim.c.timestamp < until))
    connection.execute(
        update(tables.lane).where(tables.lane.c.id == lane.id).values(claims_pruned_until=until)
    )
    return is_more


def _summed(claims: Iterable[tuple[bytes, float]]) -> dict[int, tuple[int, int]]:
    checksums: dict[int, tuple[int, int]] = {}
    for digest, timestamp in claims:
        start = checksum_window(timestamp)
        messages, total = checksums.get(start, (0, 0))
        checksums[start] = (messages + 1, total ^ int.from_bytes(digest))
    return checksums


def _add_checksums(connection: Connection, lane: Lane, checksums: Checksums) -> None:
    if not checksums:
        return
    known = read_checksums(connection, lane, min(checksums), max(checksums) + 1)
    rows: list[tuple[Any, ...]] = []
    for start, (messages, total) in sorted(checksums.items()):
        before, before_total = known.get(start, (0, 0))
        rows.append((lane.id, start, before + messages, (before_total ^ total).to_bytes(16)))
    _upsert(connection.dialect.name).write(connection, rows)


@cache
def _upsert(backend: str) -> Upsert:
    return Upsert(
        tables.claim_checksum,
        backend,
        {
            "messages": lambda old, new: new["messages"],
            "checksum": lambda old, new: new["checksum"],
        },
    )
