"""The clock of the hub: the time, a monotonic time, and waiting.

Nothing in the hub asks :mod:`time`, so that a test can pass a clock that it moves by hand.
"""

from __future__ import annotations

import threading
import time

SMALLEST_JUMP = 5.0
"""Seconds; a smaller difference is a correction of the clock."""


class Clock:
    """The clock of this machine. It has no state, so that it can be sent to other processes."""

    def time(self) -> float:
        """Returns the present, UNIX seconds. It may jump, ahead or back."""
        return time.time()

    def monotonic(self) -> float:
        """Returns the seconds since some moment; they never jump."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Return when ``event`` is set, or after ``seconds``; whether it is set."""
        return event.wait(seconds)


SYSTEM = Clock()


class JumpDetector:
    """Notices when a clock jumps, by comparing it with what has passed; one thread uses it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._difference = _difference(clock)

    def jump(self) -> float:
        """By how many seconds the clock has jumped since the last call, ahead or back; else 0."""
        difference = _difference(self._clock)
        jump = difference - self._difference
        self._difference = difference
        return jump if abs(jump) >= SMALLEST_JUMP else 0.0


def latest() -> float:
    """Returns the latest time that it may be by the system's clock, UNIX seconds.

    Where the clock has been put back, that is told by what has passed since the process began.
    """
    return max(SYSTEM.time(), _AT_START + SYSTEM.monotonic())


def _difference(clock: Clock) -> float:
    return clock.time() - clock.monotonic()


_AT_START = _difference(SYSTEM)
