"""How the archive is asked, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from statscache.catchup.ready_lanes import watermark_of
from statscache.config import Settings
from statscache.counting.lanes.lane import Lane


@dataclass(frozen=True)
class Polling:
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
    def from_settings(cls, settings: Settings) -> Polling:
        """As it is configured."""
        return cls(
            lag=settings.archive_lag.total_seconds(),
            overlap=settings.archive_overlap.total_seconds(),
            interval=settings.archive_interval.total_seconds(),
            concurrency=settings.archive_concurrency,
        )

    @property
    def near(self) -> float:
        """Seconds behind the end of the archive within which lanes are reconciled all at once."""
        return max(self.overlap, 2 * self.interval)

    def is_far(self, lane: Lane, until: float) -> bool:
        """Whether a lane fills in its history: it is long before ``until``."""
        return until - watermark_of(lane) > self.near
