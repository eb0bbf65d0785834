"""Claims: which messages a lane has counted, and which of them the archive has.

What tells the bus from the archive is here alone. The bus brings a message under its id, or without
one. The archive assigns a random id to a message that came without one, so the two copies never
match by id. Such a message is looked up twice: under its id, and under the digest of its content
among the claims of messages without id.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Connection, select, update

from statscache.counting.lanes.digests import claim_digest, match_contents
from statscache.counting.lanes.lane import Lane
from statscache.database import tables
from statscache.database.upsert import Upsert
from statscache.message import TIMESTAMP_TOLERANCE, Message

FoldedDigest = tuple[bytes, float, bool]
"""Of a message that was folded elsewhere: under what it is claimed, its time, and whether it has an
id of its own."""

_IDS_PER_QUERY = 10_000


@dataclass(frozen=True)
class Claimed:
    """What a lane had not counted before, and is to count now.

    Attributes:
        messages: the archive's first, each once.
        archived: how many of them are the archive's.
        batches: the numbers that mark their claims.
    """

    messages: list[Message] = field(default_factory=list)
    archived: int = 0
    batches: tuple[int, ...] = ()


def claim(
    connection: Connection, lane: Lane, live: Sequence[Message], archived: Sequence[Message] = ()
) -> Claimed:
    """Claim those messages that the lane has not counted before.

    From then on they are claimed, if the transaction is committed. Of several copies the first one
    stands. Two processes that claim the same message at the same time wait for each other, and one
    of them gets it.

    Args:
        live: messages of the bus, or of a file that is replayed.
        archived: messages of the archive. No other process may count meanwhile: it may be claiming
            a message without id that the archive has under one, and until that is committed the
            two cannot be recognised as the same message.
    """
    # The bus comes first: the archive may have the same message under an id of its own, and finds
    # it only when it is claimed.
    live_batch, archive_batch = _new_batch(), _new_batch()
    brought = _claim(connection, lane, live, live_batch, 0)
    if not archived:
        return Claimed(brought, 0, (live_batch,))
    # Before the archive's messages are claimed, so that a renamed claim is found as a duplicate.
    _rename(connection, lane, archived)
    found = _claim(connection, lane, archived, archive_batch, 1)
    if len(found) < len(archived):
        _note_archived(connection, lane, archived, found)
    return Claimed([*found, *brought], len(found), (live_batch, archive_batch))


def claim_folded(
    connection: Connection, lane: Lane, digests: Sequence[FoldedDigest], start: float, stop: float
) -> Claimed | None:
    """Claim all messages of an archive's window, which were folded elsewhere; None: not possible.

    A partial aggregate does not tell which part of it is whose, so that it is all of them or none.

    Args:
        digests: of the messages.
        start: of the window, UNIX seconds.
        stop: of the window, which it does not include.
    """
    # What a worker folded may have an id of the archive's, and cannot be looked up by its content,
    # which stayed with the worker.
    if _has_anonymous(connection, lane, start, stop):
        return None
    batch = _new_batch()
    rows = [
        (lane.id, digest, timestamp, batch, 0 if has_own_id else 1, 1)
        for digest, timestamp, has_own_id in sorted(digests)
    ]
    with connection.begin_nested() as savepoint:
        if _insertion(connection.dialect.name).write(connection, rows) == len(rows):
            return Claimed(batches=(batch,))
        savepoint.rollback()
    return None


def read_claimed(connection: Connection, lane: Lane, digests: Sequence[bytes]) -> set[bytes]:
    """Those of ``digests`` that the lane has claimed."""
    claim = tables.claim.c
    found: set[bytes] = set()
    for some in _slices(digests):
        query = select(claim.identity).where(claim.lane == lane.id, claim.identity.in_(some))
        found.update(bytes(digest) for digest in connection.scalars(query))
    return found


def read_claims(
    connection: Connection, number: int, start: float, stop: float | None = None
) -> dict[bytes, float]:
    """What a lane claims from ``start`` to before ``stop`` (default: all later ones).

    Returns digest to the time of the message, UNIX seconds.
    """
    claim = tables.claim.c
    query = select(claim.identity, claim.timestamp).where(
        claim.lane == number, claim.timestamp >= start
    )
    if stop is not None:
        query = query.where(claim.timestamp < stop)
    return {bytes(digest): when for digest, when in connection.execute(query)}


def read_due_times(
    connection: Connection, lane: Lane, start: float, stop: float
) -> Iterator[float]:
    """The times of the messages claimed from ``start`` to before ``stop`` that the archive owes."""
    claim = tables.claim.c
    # Where claims are pruned, those that are left are of messages that the archive has lost, or
    # never had. Of what is newer, it may not have yet what it has not shown.
    is_due = (claim.timestamp < (lane.claims_pruned_until or 0.0)) | (claim.archived == 1)
    query = select(claim.timestamp).where(
        claim.lane == lane.id, claim.timestamp >= start, claim.timestamp < stop, is_due
    )
    yield from connection.execution_options(yield_per=10_000).scalars(query)


def read_anonymous(connection: Connection, lane: Lane, start: float, stop: float) -> set[bytes]:
    """The claims of messages without id of about this time."""
    query = select(tables.claim.c.identity).where(*_anonymous(lane, start, stop))
    return {bytes(digest) for digest in connection.scalars(query)}


def _claim(
    connection: Connection, lane: Lane, messages: Sequence[Message], batch: int, archived: int
) -> list[Message]:
    # The first copy stands, as it does where the second one comes a day later.
    first_copies: dict[bytes, Message] = {}
    for message in messages:
        first_copies.setdefault(claim_digest(message.identity), message)
    # In the order of the key: two processes that claim the same messages cannot dead-lock. Where
    # both insert the same key, the database lets the second one wait for the first to commit.
    rows = [
        (lane.id, digest, message.timestamp, batch, 0 if message.has_own_id else 1, archived)
        for digest, message in sorted(first_copies.items())
    ]
    if _insertion(connection.dialect.name).write(connection, rows) == len(rows):
        return list(first_copies.values())
    # Some were claimed before. The rows that this call inserted have its batch number.
    mine = _claimed_by(connection, lane, batch, list(first_copies))
    return [message for digest, message in first_copies.items() if digest in mine]


def _claimed_by(connection: Connection, lane: Lane, batch: int, digests: list[bytes]) -> set[bytes]:
    claim = tables.claim.c
    claimed: set[bytes] = set()
    for some in _slices(digests):
        query = select(claim.identity).where(
            claim.lane == lane.id, claim.identity.in_(some), claim.batch == batch
        )
        claimed.update(bytes(digest) for digest in connection.scalars(query))
    return claimed


def _rename(connection: Connection, lane: Lane, archived: Sequence[Message]) -> None:
    """Rename claims of messages that came without id to the id that the archive assigned.

    Later copies come from the archive, under that id only.
    """
    claim = tables.claim
    # One by one, since few come without id. The batch number stays, so that a plugin that is
    # quarantined in this transaction gets the message again.
    for message, digest in _came_without_id(connection, lane, archived):
        connection.execute(
            update(claim)
            .where(claim.c.lane == lane.id, claim.c.identity == digest)
            .values(identity=claim_digest(message.identity), anonymous=0, archived=1)
        )


def _came_without_id(
    connection: Connection, lane: Lane, archived: Sequence[Message]
) -> list[tuple[Message, bytes]]:
    """Those that the lane counted without an id, with the digests under which they were."""
    times = [message.timestamp for message in archived]
    anonymous = read_anonymous(connection, lane, min(times), max(times))
    if not anonymous:
        return []
    named = [message for message in archived if message.has_own_id]
    # An id that is claimed was counted as such: its content is that of another message.
    known = read_claimed(connection, lane, [claim_digest(m.identity) for m in named])
    unknown = [m for m in named if claim_digest(m.identity) not in known]
    return match_contents(unknown, anonymous)


def _note_archived(
    connection: Connection, lane: Lane, archived: Sequence[Message], new: Sequence[Message]
) -> None:
    """Note that the archive has messages which the bus brought before: they can be pruned."""
    # Claims that only the bus made are never pruned.
    claim = tables.claim
    mine = {message.identity for message in new}
    others = [claim_digest(m.identity) for m in archived if m.identity not in mine]
    for some in _slices(others):
        connection.execute(
            update(claim)
            .where(claim.c.lane == lane.id, claim.c.identity.in_(some), claim.c.archived == 0)
            .values(archived=1)
        )


def _has_anonymous(connection: Connection, lane: Lane, start: float, stop: float) -> bool:
    """Whether the lane has counted messages without id of about this time, from the bus."""
    query = select(tables.claim.c.identity).where(
        *_anonymous(lane, start, stop), tables.claim.c.archived == 0
    )
    return connection.execute(query.limit(1)).first() is not None


def _anonymous(lane: Lane, start: float, stop: float) -> tuple[Any, ...]:
    claim = tables.claim.c
    return (
        claim.lane == lane.id,
        claim.anonymous == 1,
        # The copy may have been restamped on its way.
        claim.timestamp >= start - TIMESTAMP_TOLERANCE,
        claim.timestamp <= stop + TIMESTAMP_TOLERANCE,
    )


def _new_batch() -> int:
    # At random: a sequence would be a lock, or one more question, in each transaction.
    return secrets.randbits(62) + 1


@cache
def _insertion(backend: str) -> Upsert:
    # What is claimed stays as it is.
    return Upsert(tables.claim, backend, {})


def _slices(digests: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for first in range(0, len(digests), _IDS_PER_QUERY):
        yield digests[first : first + _IDS_PER_QUERY]
