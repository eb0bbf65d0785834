"""What the archive has lost of the messages that a lane has counted.

The claims and checksums of the lane are compared with the digests of what the archive has. Where
the archive has lost something it cannot tell which rows are right: none is called wrong, and none
is replaced. :mod:`statscache.audit.shortfall` tells by numbers alone how much it has lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from statscache.archive import Archive, Window, read
from statscache.counting.engine import Engine
from statscache.counting.lanes.checksums import (
    CHECKSUM_WIDTH,
    Checksums,
    checksum_window,
    read_checksums,
)
from statscache.counting.lanes.claims import read_claims
from statscache.counting.lanes.digests import claim_digest, content_digests
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.message import TIMESTAMP_TOLERANCE, Message
from statscache.plugins.aggregate import AggregateTable
from statscache.spans import union
from statscache.times import iso


class ArchivedDigests:
    """Digests of what the archive has, with the times of the messages.

    Attributes:
        times: by the digest of a message, its time, UNIX seconds.
        of_claim: by each digest under which a message may be claimed, the digest of the message.
        beside: by window, how many messages are just outside of it: the copies that were counted
            may have been stamped inside.
    """

    def __init__(self) -> None:
        self.times: dict[bytes, float] = {}
        self.of_claim: dict[bytes, bytes] = {}
        self.beside: Counter[int] = Counter()

    def add(self, messages: Iterable[Message]) -> None:
        """Add messages of the archive."""
        for message in messages:
            digest = claim_digest(message.identity)
            self.times[digest] = when = message.timestamp
            self.of_claim |= dict.fromkeys((*content_digests(message), digest), digest)
            first, last = when - TIMESTAMP_TOLERANCE, when + TIMESTAMP_TOLERANCE
            around = {checksum_window(first), checksum_window(last)}
            self.beside.update(around - {checksum_window(when)})


@dataclass
class ArchiveLoss:
    """What the archive lacks of what a lane has counted in a window.

    The window is divided into those of :data:`CHECKSUM_WIDTH`, each known by its start.

    Attributes:
        archived: the checksums of what the archive has, without what is still claimed.
        lost: of which the archive has less than was counted, each with how many messages it lacks.
        differing: of which the archive has not exactly what was counted.
    """

    window: Window
    archived: Checksums
    lost: dict[int, int]
    differing: list[int]

    @classmethod
    def measure(
        cls, connection: Connection, lane: Lane, window: Window, digests: ArchivedDigests
    ) -> ArchiveLoss:
        """The loss in a window up to which the claims of the lane are pruned.

        Args:
            connection: of a transaction in which no other process counts.
            digests: of all that the archive has of the window.
        """
        start, stop = window.start - TIMESTAMP_TOLERANCE, window.stop + TIMESTAMP_TOLERANCE
        claimed = read_claims(connection, lane.id, start, stop)
        # What is still claimed is not in the checksums of the lane.
        found = {digests.of_claim[digest] for digest in claimed if digest in digests.of_claim}
        archived: dict[int, tuple[int, int]] = {}
        for digest, when in digests.times.items():
            if digest not in found and when < window.stop:
                start = checksum_window(when)
                number, total = archived.get(start, (0, 0))
                archived[start] = (number + 1, total ^ int.from_bytes(digest))
        lost = Counter(
            checksum_window(when)
            for digest, when in claimed.items()
            if digest not in digests.of_claim and window.start <= when < window.stop
        )
        counted = read_checksums(connection, lane, window.start, window.stop)
        for start, (number, _) in counted.items():
            missing = number - archived.get(start, (0, 0))[0] - digests.beside[start]
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
    def undecidable(self) -> list[Window]:
        """The times of which the archive, having lost some of it, cannot tell what is right."""
        starts = self.differing if self.lost else []
        return [Window(*span) for span in union((each, each + CHECKSUM_WIDTH) for each in starts)]

    def kept(self, table: AggregateTable) -> list[Window]:
        """The buckets that are not to be replaced."""
        wide = (widened(each, [table]) for each in self.undecidable)
        return [Window(*span) for span in union((each.start, each.stop) for each in wide)]


def find_loss(
    engine: Engine, archive: Archive, window: Window
) -> Generator[int, None, dict[int, ArchiveLoss]]:
    """Compare all that the archive has of a window, of all topics, with what lanes have counted.

    Yields now and then how many messages were read. Returns the loss by the number of the lane, as
    far as its claims are pruned; nothing where the archive does not return all that it reports.

    Raises:
        ArchiveUnavailable: nothing is known.
        DatabaseUnavailable: the same.
    """
    digests = ArchivedDigests()
    for piece in read(archive, window.start, window.stop):
        if piece.missing:
            return {}
        digests.add(piece.messages)
        yield piece.size
    with engine.transaction(alone=True) as connection:
        found = {}
        for lane in read_lanes(connection):
            # What is newer the archive may not have yet.
            pruned = Window(window.start, min(window.stop, lane.claims_pruned_until or 0.0))
            if pruned.start < pruned.stop:
                found[lane.id] = ArchiveLoss.measure(connection, lane, pruned, digests)
        return found


def widened(window: Window, aggregate_tables: Iterable[AggregateTable]) -> Window:
    """The window, widened to whole buckets of all the tables."""
    start, stop = window.start, window.stop
    for table in aggregate_tables:
        start = min(start, table.floored(window.start))
        stop = max(stop, table.ceiled(window.stop))
    return Window(float(start), float(stop))
