"""Messages that come so late that claims no longer tell whether the lane has counted them.

Claims of messages that the archive does not have, or that lie in a gap, are never pruned. Of the
others a checksum of each quarter of an hour is kept: the exclusive or of the digests of all that
was counted. If it equals the checksum of what the archive has, all of that was counted. Otherwise
a few doubtful messages must explain the difference. ``docs/correctness.rst`` has an example in
numbers.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from statscache.archive import Archive, read
from statscache.archive.base import distinct
from statscache.counting.batch import Batch, Origin
from statscache.counting.engine import Engine
from statscache.counting.lanes.checksums import CHECKSUM_WIDTH, checksum_window, read_checksums
from statscache.counting.lanes.claims import read_anonymous, read_claimed
from statscache.counting.lanes.digests import claim_digest, match_contents
from statscache.counting.lanes.gaps import read_gaps
from statscache.counting.lanes.lane import PERMANENT, Lane, read_lane, read_lanes
from statscache.counting.lanes.waiting import end_waiting, read_waiting, still_waiting
from statscache.errors import InvalidMessage
from statscache.message import TIMESTAMP_TOLERANCE, Message, decode
from statscache.rejection import Rejection

log = logging.getLogger(__name__)

_MARGIN = 2 * TIMESTAMP_TOLERANCE
"""Seconds around messages: two copies may each be one tolerance away from the time of sending."""

_AT_ONCE = 5_000
_MOST_DOUBTFUL = 100
"""Messages that may be in doubt: well below 128 bits, so that a wrong answer is improbable."""

_UNDECIDED = (
    "late: it is older than what is remembered, the archive does not have it, and what was counted "
    "at its time differs from the archive: 'statscache verify' tells more"
)


def resolve(engine: Engine, archive: Archive) -> int:
    """Decide late messages and count the new ones; returns how many were looked at.

    At most 5,000, the oldest ones. Those that cannot be decided yet keep waiting.

    Raises:
        ArchiveUnavailable: the remaining messages are decided later.
        DatabaseUnavailable: the same.
    """
    with engine.transaction() as connection:
        lanes = {
            lane.id: lane
            for lane in read_lanes(connection)
            if engine.plugins_of(lane) is not None and not lane.has_failed
        }
        rows = read_waiting(connection, lanes, _MARGIN, _AT_ONCE)
    waiting: list[tuple[int, int, Message]] = []
    for row in rows:
        try:
            message = decode(row.content)
        except InvalidMessage as error:
            with engine.transaction(alone=True) as connection:
                refusal = Rejection.of_frame(row.content, str(error))
                engine.commit(Batch.of_rejections(Origin.LATE, [refusal]), within=connection)
                end_waiting(connection, row.lane, [row.identity])
        else:
            waiting.append((checksum_window(message.timestamp), row.lane, message))
    # The archive is asked once for each window of a checksum, for all lanes together.
    waiting.sort(key=lambda item: item[:2])
    for start, items in itertools.groupby(waiting, key=lambda item: item[0]):
        group = list(items)
        messages = [message for _, _, message in group]
        span = _Span.around(start, messages)
        archived = distinct(
            message
            for piece in read(archive, span.start - _MARGIN, span.stop + _MARGIN)
            for message in piece.messages
        )
        for number, theirs in itertools.groupby(group, key=lambda item: item[1]):
            _resolve(engine, lanes[number], span, archived, [message for _, _, message in theirs])
    return len(rows)


@dataclass(frozen=True)
class _Span:
    """The windows of the checksums that may have a message among them; UNIX seconds."""

    start: int
    stop: int

    @classmethod
    def around(cls, window: int, messages: Iterable[Message]) -> _Span:
        """Around messages of one window: copies of them may have been counted beside it."""
        times = [message.timestamp for message in messages]
        return cls(
            min(window, checksum_window(min(times) - TIMESTAMP_TOLERANCE)),
            max(window, checksum_window(max(times) + TIMESTAMP_TOLERANCE)) + CHECKSUM_WIDTH,
        )


def _resolve(
    engine: Engine, lane: Lane, span: _Span, archived: Sequence[Message], found: Sequence[Message]
) -> None:
    """Decide for one lane, in a transaction of its own.

    Alone: otherwise another process could count a message, or prune a claim, between the reads of
    claims and of checksums, which must be of one moment.
    """
    with engine.transaction(alone=True) as connection:
        current = read_lane(connection, lane.id)
        if current is None:
            return  # it has joined its home meanwhile
        waiting = still_waiting(connection, current, [claim_digest(m.identity) for m in found])
        messages = [m for m in found if claim_digest(m.identity) in waiting]
        # Claimed under the archive's id, under which later copies come.
        copies = _copies(messages, archived)
        new, lost = _judge(connection, current, span, archived, messages, copies)
        batch = Batch(
            Origin.LATE,
            live=[m for m in new if m not in copies],
            archived=[copies[m] for m in new if m in copies],
            lanes=frozenset([current.id]),
        )
        if current.id in engine.commit(batch, within=connection).committed:
            refusals = [Rejection(m.to_json(), _UNDECIDED) for m in lost]
            engine.commit(Batch.of_rejections(Origin.LATE, refusals), within=connection)
            end_waiting(connection, current.id, waiting)


def _judge(
    connection: Connection,
    lane: Lane,
    span: _Span,
    archived: Sequence[Message],
    messages: Sequence[Message],
    copies: Mapping[Message, Message],
) -> tuple[list[Message], list[Message]]:
    """The messages that are new to the lane, and those that can never be decided."""
    digests = {m: claim_digest(copies.get(m, m).identity) for m in messages}
    # Under both digests: it may be claimed by its content, or by an id of the archive.
    names = {*digests.values(), *(claim_digest(m.identity) for m in messages)}
    claimed = read_claimed(connection, lane, sorted(names))
    unknown = [
        m for m in messages if digests[m] not in claimed and claim_digest(m.identity) not in claimed
    ]
    pruned_until = lane.claims_pruned_until
    until = 0.0 if pruned_until is None else pruned_until + TIMESTAMP_TOLERANCE
    pruned = [m for m in unknown if m.timestamp < until]
    # If claims are pruned, what the archive has was counted, unless a checksum says otherwise. A
    # lane that fills in its history has checksums of some topics only: it has counted all that the
    # archive has of these.
    counted = [m for m in pruned if m in copies]
    lost: list[Message] = []
    if lane.name in PERMANENT:
        verdicts = _decide(connection, lane, span, archived, pruned, digests)
        if verdicts is not None:
            counted = [m for m in pruned if verdicts[digests[m]]]
        else:
            lost = [m for m in pruned if m not in copies]
            if counted:
                log.error(
                    "%s: what %s has counted of its time differs from the archive: "
                    "'statscache verify' tells more",
                    counted[0],
                    lane.name,
                )
    done = {*counted, *lost}
    return [m for m in unknown if m not in done], lost


def _copies(messages: Sequence[Message], archived: Sequence[Message]) -> dict[Message, Message]:
    """The copies of the messages that the archive has, of those without id by their content."""
    by_digest = {claim_digest(message.identity): message for message in archived}
    copies = {}
    bare = {}
    for message in messages:
        digest = claim_digest(message.identity)
        if digest in by_digest:
            copies[message] = by_digest[digest]
        elif not message.has_own_id:
            bare[digest] = message
    named = [message for message in archived if message.has_own_id]
    return copies | {bare[digest]: copy for copy, digest in match_contents(named, bare)}


def _decide(
    connection: Connection,
    lane: Lane,
    span: _Span,
    archived: Sequence[Message],
    pruned: Sequence[Message],
    digests: dict[Message, bytes],
) -> dict[bytes, bool] | None:
    """Whether each digest of ``pruned`` is in the checksums; None if that cannot be decided."""
    if not pruned:
        return {}
    checksums = read_checksums(connection, lane, span.start, span.stop).values()
    number, total = sum(n for n, _ in checksums), _xor(digest for _, digest in checksums)
    inside, doubtful = _candidates(connection, lane, span, archived)
    asked = {digests[message] for message in pruned}
    # First assume that all that the archive has was counted, as it nearly always was: then any
    # number of messages can be decided. Otherwise the messages asked about are in doubt too.
    for sure, unsure in ((inside, doubtful), (inside - asked, doubtful | asked)):
        if len(sure) <= number and len(unsure) <= _MOST_DOUBTFUL:
            chosen = _subset(sorted(unsure), total ^ _xor(map(int.from_bytes, sure)))
            # The number must match too: the checksum of no message is 0.
            if chosen is not None and len(sure) + len(chosen) == number:
                return {digest: digest in sure or digest in chosen for digest in asked}
    # The archive has lost counted messages, or has some that were never counted.
    return None


def _candidates(
    connection: Connection, lane: Lane, span: _Span, archived: Sequence[Message]
) -> tuple[set[bytes], set[bytes]]:
    """The digests of the archive that should be in the checksums, and those that may be."""
    times = {claim_digest(message.identity): message.timestamp for message in archived}
    # A claimed message, under either of its digests, is not in the checksums.
    claimed = read_claimed(connection, lane, list(times))
    anonymous = read_anonymous(connection, lane, span.start, span.stop)
    unclaimed = [m for m in archived if m.has_own_id and claim_digest(m.identity) not in claimed]
    claimed.update(claim_digest(m.identity) for m, _ in match_contents(unclaimed, anonymous))
    first, pruned_until = lane.history_start or 0.0, lane.claims_pruned_until or 0.0
    edges = {float(span.start), float(span.stop), first, pruned_until}
    for start, stop in read_gaps(connection, lane):
        # Claims in a gap are never pruned, so nothing of it is in the checksums.
        claimed.update(digest for digest, time in times.items() if start <= time < stop)
        edges |= {start, stop}
    inside: set[bytes] = set()
    doubtful: set[bytes] = set()
    for digest, time in times.items():
        if digest in claimed:
            continue
        if min(abs(time - edge) for edge in edges) <= TIMESTAMP_TOLERANCE:
            # Its counted copy may have a time on the other side of the edge.
            doubtful.add(digest)
        elif max(span.start, first) <= time < min(span.stop, pruned_until):
            inside.add(digest)
    return inside, doubtful


def _xor(numbers: Iterable[int]) -> int:
    total = 0
    for number in numbers:
        total ^= number
    return total


def _subset(digests: Sequence[bytes], total: int) -> set[bytes] | None:
    """Those of ``digests`` whose exclusive or is ``total``; None if there are none, or several."""
    # Gaussian elimination over bits: each row of the basis has another highest bit, and the digests
    # of which it is the exclusive or. If a digest depends on others, the answer is not unique.
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
