"""The clock, which may jump: it is compared with the time that has passed."""

from __future__ import annotations

import time

SMALLEST_JUMP = 5.0
"""Seconds; what is less is a correction."""


def _difference() -> float:
    return time.time() - time.monotonic()


_AT_START = _difference()


def latest() -> float:
    """The latest time that it may be, UNIX seconds.

    By the clock, or, where it has been put back, by what has passed since the process began.
    """
    return max(time.time(), _AT_START + time.monotonic())


class Watch:
    """Notices when the clock jumps; one thread uses it."""

    def __init__(self) -> None:
        self._difference = _difference()

    def jump(self) -> float:
        """By how many seconds the clock has jumped since the last call, ahead or back; else 0."""
        difference = _difference()
        jump = difference - self._difference
        self._difference = difference
        return jump if abs(jump) >= SMALLEST_JUMP else 0.0
