"""What a lane remembers of a time, beside what the archive gives of it.

An archive may have lost some of what was counted. Of such a time it is no judge: nothing that
differs from it is known to be wrong, and nothing is replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from statscache.archive import Archive, Window, read
from statscache.counting.engine import Engine
from statscache.counting.lanes.checksums import CHECKSUM_WIDTH, checksum_window, read_checksums
from statscache.counting.lanes.digests import claim_digest, content_digests
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.database import tables
from statscache.message import TIMESTAMP_TOLERANCE, Message
from statscache.plugins.aggregate import AggregateTable
from statscache.spans import union
from statscache.times import iso

Sums = dict[int, tuple[int, int]]
"""By the start of a window of :data:`CHECKSUM_WIDTH`: how many messages, and their sum."""


class Given:
    """What the archive gave: the times of its messages, under all that they may be claimed by."""

    def __init__(self) -> None:
        self.digests: dict[bytes, float] = {}
        self.names: dict[bytes, bytes] = {}
        self.beside: Counter[int] = Counter()
        """How many it has just outside of each window: they may have been counted inside."""

    def add(self, messages: Iterable[Message]) -> None:
        for message in messages:
            digest = claim_digest(message.identity)
            self.digests[digest] = when = message.timestamp
            self.names |= dict.fromkeys((*content_digests(message), digest), digest)
            first, last = when - TIMESTAMP_TOLERANCE, when + TIMESTAMP_TOLERANCE
            around = {checksum_window(first), checksum_window(last)}
            self.beside.update(around - {checksum_window(when)})


@dataclass
class Memory:
    """What a lane remembers of a time, beside what the archive gave of it.

    Attributes:
        window: the time.
        archived: the sums of what the archive gave, but for what is claimed still.
        lost: the windows of which the archive has less, each with how many messages it lacks.
        differing: the windows of which it has not exactly what was counted.
    """

    window: Window
    archived: Sums
    lost: dict[int, int]
    differing: list[int]

    @classmethod
    def of(cls, connection: Connection, lane: Lane, window: Window, given: Given) -> Memory:
        """Of a lane, of a time behind its horizon; other processes do not count now."""
        claim = tables.claim.c
        mine = select(claim.identity, claim.timestamp).where(
            claim.lane == lane.id,
            claim.timestamp >= window.start - TIMESTAMP_TOLERANCE,
            claim.timestamp < window.stop + TIMESTAMP_TOLERANCE,
        )
        claimed = {bytes(digest): when for digest, when in connection.execute(mine)}
        # What is claimed still is not in the sums.
        found = {given.names[digest] for digest in claimed if digest in given.names}
        archived: Sums = {}
        for digest, when in given.digests.items():
            if digest not in found and when < window.stop:
                start = checksum_window(when)
                number, total = archived.get(start, (0, 0))
                archived[start] = (number + 1, total ^ int.from_bytes(digest))
        lost = Counter(
            checksum_window(when)
            for digest, when in claimed.items()
            if digest not in given.names and window.start <= when < window.stop
        )
        counted = read_checksums(connection, lane, window.start, window.stop)
        for start, (number, _) in counted.items():
            missing = number - archived.get(start, (0, 0))[0] - given.beside[start]
            if missing > 0:
                lost[start] += missing
        differing = [
            start
            for start in {*counted, *archived, *lost}
            if start in lost or counted.get(start) != archived.get(start)
        ]
        return cls(window, archived, dict(lost), sorted(differing))

    @property
    def total_lost(self) -> int:
        """How many messages the archive lacks."""
        return sum(self.lost.values())

    def __str__(self) -> str:
        return (
            f"the archive lacks {self.total_lost} messages that were counted from "
            f"{iso(min(self.lost))} to {iso(max(self.lost) + CHECKSUM_WIDTH)}"
        )

    @property
    def unknown(self) -> list[Window]:
        """The times of which, since the archive has lost some of it, it is no judge."""
        starts = self.differing if self.lost else []
        return [Window(*span) for span in union((each, each + CHECKSUM_WIDTH) for each in starts)]

    def kept(self, table: AggregateTable) -> list[Window]:
        """The buckets that are not to be replaced."""
        wide = (widened(each, [table]) for each in self.unknown)
        return [Window(*span) for span in union((each.start, each.stop) for each in wide)]


def survey(
    engine: Engine, archive: Archive, window: Window
) -> Generator[int, None, dict[int, Memory]]:
    """See what the archive lacks of a time, all topics; gives now and then how much was read.

    Returns, by the number of the lane, what there is to say of what is behind its horizon; nothing
    where the archive does not give now all that it says it has.

    Raises:
        ArchiveUnavailable: nothing is known.
        DatabaseUnavailable: the same.
    """
    given = Given()
    for piece in read(archive, window.start, window.stop):
        if piece.missing:
            return {}
        given.add(piece.messages)
        yield piece.size
    with engine.transaction(alone=True) as connection:
        found = {}
        for lane in read_lanes(connection):
            # What is newer the archive may not have yet.
            settled = Window(window.start, min(window.stop, lane.claims_pruned_until or 0.0))
            if settled.start < settled.stop:
                found[lane.id] = Memory.of(connection, lane, settled, given)
        return found


def widened(window: Window, found: Any) -> Window:
    """The window, in whole buckets of all the tables."""
    start, stop = window.start, window.stop
    for table in found:
        start = min(start, table.floored(window.start))
        stop = max(stop, table.ceiled(window.stop))
    return Window(float(start), float(stop))
