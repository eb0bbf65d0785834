"""Where the archive ends: up to when lanes can be moved, as far as it has shown."""

from __future__ import annotations

import logging

from statscache.archive import Archive
from statscache.catchup.polling import Polling
from statscache.catchup.ready_lanes import watermark_of
from statscache.clock import SMALLEST_JUMP
from statscache.counting.engine import Engine
from statscache.counting.lanes.lane import Lane
from statscache.times import iso

log = logging.getLogger(__name__)

_AGING = 3600.0
"""Seconds after which it is looked what need not be filled in, because it is too old to be kept."""


class ArchiveEnd:
    """Follows the end of the archive.

    That is the second of the archive's newest message, and never later than the clock less the lag.
    The clock alone is not enough: after a jump ahead, new messages would be before the
    watermark.

    Attributes:
        until: up to when lanes can be moved, UNIX seconds; 0 before the first look.
    """

    def __init__(self, engine: Engine, archive: Archive, polling: Polling) -> None:
        self._engine = engine
        self._archive = archive
        self._polling = polling
        self._clock = engine.clock
        self._look_at = 0.0
        self._remark = ""
        self._aged = 0.0
        self.until = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last look was longer ago than an interval."""
        return self._clock.monotonic() >= self._look_at

    def forget(self) -> None:
        """Let the next look be due."""
        self._look_at = 0.0

    def look(self, lanes: list[Lane]) -> float:
        """Ask the archive for its newest message; returns :attr:`until`.

        Raises:
            ArchiveUnavailable: :attr:`until` stays.
            DatabaseUnavailable: the same.
        """
        began = self._clock.monotonic()
        clock = float(int(self._clock.time() - self._polling.lag))
        shown = max((watermark_of(lane) for lane in lanes), default=0.0)
        newest = self._archive.newest(shown, clock)
        if newest is not None:
            shown = max(shown, float(int(newest) + 1))
        if any(watermark_of(lane) > (lane.history_start or 0.0) for lane in lanes):
            self._compare(clock, shown)
        self.until = min(clock, shown)
        if self.until - self._aged > _AGING:
            self._engine.note_ages(self.until)
            self._aged = self.until
        self._look_at = began + self._polling.interval
        return self.until

    def _compare(self, clock: float, shown: float) -> None:
        """Log when the clock and the archive come to differ."""
        remark = ""
        if shown - clock > SMALLEST_JUMP:
            remark = "is behind what the archive has given: later messages are not asked for"
        elif clock - shown > self._polling.near:
            remark = "is ahead of the newest message of the archive: that one is waited for"
        if remark and remark != self._remark:
            seconds = abs(clock - shown)
            log.warning("the clock %s (%.0f s, at %s)", remark, seconds, iso(shown))
        self._remark = remark
