"""How the archive is asked, and from where on for each lane."""

from __future__ import annotations

from dataclasses import dataclass

from statscache.config import Settings
from statscache.counting.lanes.lane import Lane
from statscache.message import TIMESTAMP_TOLERANCE


@dataclass(frozen=True)
class Pace:
    """How the archive is asked; seconds, except where it says.

    Attributes:
        lag: how long after it was sent the archive has a message.
        overlap: how far back it is asked again every time, since rows may come late.
        interval: how often it is asked for what the bus lost.
        concurrency: windows under way at a time.
    """

    lag: float = 60.0
    overlap: float = 900.0
    interval: float = 60.0
    concurrency: int = 1

    @classmethod
    def from_settings(cls, settings: Settings) -> Pace:
        """As it is configured."""
        return cls(
            lag=settings.archive_lag.total_seconds(),
            overlap=settings.archive_overlap.total_seconds(),
            interval=settings.archive_interval.total_seconds(),
            concurrency=settings.archive_concurrency,
        )

    @property
    def near(self) -> float:
        """Seconds behind the until within which lanes are reconciled all at once."""
        return max(self.overlap, 2 * self.interval)

    def is_far(self, lane: Lane, until: float) -> bool:
        """Whether a lane fills in its history: it is long before ``until``."""
        return until - watermark_of(lane) > self.near

    def start_of(self, lane: Lane) -> float:
        """Returns from when on the archive is asked for a lane: an overlap before its watermark.

        Never before the lane's history, nor where its claims are pruned: messages of that time
        could not be recognised as counted.
        """
        start = max(watermark_of(lane) - self.overlap, lane.history_start or 0.0)
        if lane.claims_pruned_until is None:
            return start
        # A copy of a message with a pruned claim may be stamped a little later.
        return max(start, lane.claims_pruned_until + TIMESTAMP_TOLERANCE)


def watermark_of(lane: Lane) -> float:
    """Returns the watermark of a lane that has one: see :class:`ReadyLanes`."""
    assert lane.watermark is not None
    return lane.watermark
