"""Messages that come so late that claims do not tell any more whether they were counted.

The archive and the sums of the pruned claims tell it together: the sum of a quarter of an hour is
the exclusive or of the digests of all that was counted there. If the archive has the same messages,
the sums agree; else it is found which of a few doubtful messages explain the difference.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import delete, select

from statscache import tables
from statscache.archive import Archive, read
from statscache.engine import PERMANENT, Engine
from statscache.lanes import (
    COUNTED_WIDTH,
    RESTAMPING,
    Lane,
    claim_digest,
    content_digests,
    counted_window,
)
from statscache.message import Message, decode
from statscache.rejections import Rejection

log = logging.getLogger(__name__)

_AT_ONCE = 500
_MOST_DOUBTFUL = 100
"""Unknowns that a sum of 128 bits decides beyond doubt."""


def resolve(engine: Engine, archive: Archive) -> int:
    """Count those of the messages put aside that were not counted; gives how many were looked at.

    Raises:
        ArchiveUnavailable: the rest wait on.
        DatabaseUnavailable: the same.
    """
    done = 0
    with engine.transaction() as connection:
        lanes = {lane.id: lane for lane in engine.lanes.all(connection)}
        rows = connection.execute(
            select(tables.late.c.lane, tables.late.c.identity, tables.late.c.content)
            .order_by(tables.late.c.lane, tables.late.c.timestamp)
            .limit(_AT_ONCE)
        ).all()
    waiting = []
    for row in rows:
        lane = lanes.get(row.lane)
        message = decode(row.content)
        if lane is None or lane.watermark is None:
            continue
        if message.timestamp + RESTAMPING < lane.watermark:
            waiting.append((lane, message))

    def place(pair: tuple[Lane, Message]) -> tuple[int, int]:
        return pair[0].id, counted_window(pair[1].timestamp)

    for (number, start), group in itertools.groupby(waiting, key=place):
        messages = [message for _, message in group]
        _resolve_window(engine, archive, lanes[number], start, messages)
        done += len(messages)
    return done


def _resolve_window(
    engine: Engine, archive: Archive, lane: Lane, start: int, late: Sequence[Message]
) -> None:
    margin = 2 * RESTAMPING
    archived = [
        message
        for piece in read(archive, start - margin, start + COUNTED_WIDTH + margin)
        for message in piece.messages
    ]
    digests = {message.identity: _archived_digest(message, archived) for message in late}
    known = {claim_digest(message.identity) for message in archived}
    with engine.transaction(alone=True) as connection:
        lane = next((x for x in engine.lanes.all(connection) if x.id == lane.id), lane)
        pruned = [m for m in late if lane.horizon is not None and m.timestamp < lane.horizon]
        remembered = [m for m in late if m not in pruned]
        rejections: list[Rejection] = []
        # What is remembered by claims: the archive's copy has been counted, or will be.
        fresh = [m for m in remembered if digests[m.identity] not in known]
        if pruned:
            counted = engine.lanes.counted(connection, lane, start, start + 1).get(start, (0, 0))
            doubtful = {digests[message.identity] for message in pruned}
            verdicts = (
                _decide(start, counted, archived, doubtful) if lane.name in PERMANENT else None
            )
            if verdicts is None and lane.name not in PERMANENT:
                verdicts = {digest: digest in known for digest in doubtful}
            if verdicts is None:
                rejections += _undecided(engine, connection, lane, start, pruned, digests, known)
            else:
                uncounted = [m for m in pruned if not verdicts[digests[m.identity]]]
                engine.count_pruned(connection, lane, uncounted, digests)
        engine.count_remembered(connection, lane, fresh, rejections)
        gone = [claim_digest(message.identity) for message in late]
        connection.execute(
            delete(tables.late).where(
                tables.late.c.lane == lane.id, tables.late.c.identity.in_(gone)
            )
        )


def _archived_digest(message: Message, archived: Iterable[Message]) -> bytes:
    """Under what the message is claimed if it was counted: the archive may have given it an id."""
    if message.has_own_id:
        return claim_digest(message.identity)
    mine = claim_digest(message.identity)
    for other in archived:
        if other.topic == message.topic and mine in content_digests(other):
            return claim_digest(other.identity)
    return mine


def _decide(
    start: int, counted: tuple[int, int], archived: Sequence[Message], doubtful: set[bytes]
) -> dict[bytes, bool] | None:
    """Which of the doubtful digests were counted; None if that cannot be told."""
    number, total = counted
    unknown = set(doubtful)
    for message in archived:
        digest = claim_digest(message.identity)
        if digest in doubtful:
            continue
        distance = min(
            abs(message.timestamp - start), abs(message.timestamp - start - COUNTED_WIDTH)
        )
        if distance <= RESTAMPING:
            # A copy of it may have been counted with the time of the neighbouring window.
            unknown.add(digest)
        elif start <= message.timestamp < start + COUNTED_WIDTH:
            number -= 1
            total ^= int.from_bytes(digest)
    if len(unknown) > _MOST_DOUBTFUL:
        return None
    chosen = _subset(sorted(unknown), total)
    if chosen is None or len(chosen) != number:
        return None
    return {digest: digest in chosen for digest in doubtful}


def _subset(digests: Sequence[bytes], total: int) -> set[bytes] | None:
    """Those of ``digests`` whose exclusive or is ``total``; None if there are none, or several."""
    # Gaussian elimination over bits; each row knows which digests it was made of.
    basis: dict[int, tuple[int, int]] = {}
    for place, digest in enumerate(digests):
        value, members = int.from_bytes(digest), 1 << place
        while value:
            top = value.bit_length()
            if top not in basis:
                basis[top] = (value, members)
                break
            value ^= basis[top][0]
            members ^= basis[top][1]
        else:
            return None
    chosen = 0
    while total:
        top = total.bit_length()
        if top not in basis:
            return None
        total ^= basis[top][0]
        chosen ^= basis[top][1]
    return {digest for place, digest in enumerate(digests) if chosen >> place & 1}


def _undecided(
    engine: Engine,
    connection: Any,
    lane: Lane,
    start: int,
    messages: Sequence[Message],
    digests: dict[str, bytes],
    known: set[bytes],
) -> list[Rejection]:
    """The archive and the tables differ by more than these messages: it must be counted anew."""
    archived = [m for m in messages if digests[m.identity] in known]
    others = [m for m in messages if digests[m.identity] not in known]
    if archived:
        log.error("%s: what was counted differs from the archive", archived[0])
        engine.lanes.note_gap(connection, lane, start, start + COUNTED_WIDTH, missing=len(archived))
    return [
        Rejection(
            message.to_json(),
            "late: it is older than what is remembered, the archive does not have it, and what "
            "was counted at its time differs from the archive: 'statscache verify' tells more",
        )
        for message in others
    ]
