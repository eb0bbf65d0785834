"""Clocks for tests: one that they move, and one that never waits long."""

from __future__ import annotations

import threading

from statscache.clock import Clock


class Impatient(Clock):
    """The clock of this machine, whose waits last no longer than a moment."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.01))


class AheadClock(Clock):
    """The clock of this machine, set ahead by as much as a test says."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def time(self) -> float:
        return super().time() + self._ahead

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._ahead += seconds


class ManualClock(Clock):
    """Stands still unless it is moved, or a thread waits by it; any thread may use it.

    Args:
        now: UNIX seconds.
    """

    def __init__(self, now: float) -> None:
        self._now = now
        self._passed = 0.0
        self._changing = threading.Lock()

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._passed

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        with self._changing:
            self._now += seconds
            self._passed += seconds

    def jump(self, seconds: float) -> None:
        """Set it ahead, or back, while no time passes."""
        with self._changing:
            self._now += seconds
