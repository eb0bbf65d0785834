"""How far the lanes have come, for the display of a backfill."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from statscache.catchup.ready_lanes import watermark_of
from statscache.counting.lanes.lane import Lane


@dataclass
class Progress:
    """What has been done since the start.

    Attributes:
        report: called with this now and then.
        messages: how many the archive returned.
        since: of each lane's name, where its history begins, UNIX seconds.
        watermarks: of each lane's name, its watermark, UNIX seconds.
        until: up to when lanes can be moved, UNIX seconds; 0 where that is not known yet.
    """

    report: Callable[[Progress], None] | None = field(default=None, repr=False)
    messages: int = 0
    since: dict[str, float] = field(default_factory=dict)
    watermarks: dict[str, float] = field(default_factory=dict)
    until: float = 0.0

    def note_lanes(self, lanes: Iterable[Lane]) -> None:
        """Note where ``lanes`` are, whichever process has moved them, and forget all others."""
        self.since = {lane.name: lane.history_start or 0.0 for lane in lanes}
        self.watermarks = {lane.name: watermark_of(lane) for lane in lanes}

    def tell(self) -> None:
        """Call :attr:`report`."""
        if self.report is not None:
            self.report(self)
