"""Log a recurring problem at once, and then at growing intervals."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from statscache.clock import Clock

SHORTEST = 60.0
LONGEST = 3600.0
"""Seconds between two lines of the log about the same thing."""

_MOST_REMEMBERED = 1_000


@dataclass
class _Course:
    due: float
    interval: float
    untold: int = 0


class Recurring:
    """Knows what has been logged, and when to log it again.

    Args:
        clock: tells what has passed.
        shortest: seconds between the first two times; each interval is twice the one before.
        longest: seconds that the intervals grow to. What has not happened for that long is new.
    """

    def __init__(self, clock: Clock, shortest: float = SHORTEST, longest: float = LONGEST) -> None:
        self._shortest = shortest
        self._longest = longest
        self._clock = clock
        self._courses: dict[Hashable, _Course] = {}

    def happened(self, what: Hashable, times: int = 1) -> int:
        """Returns how often it has happened since it was last logged; 0: do not log it now."""
        now = self._clock.monotonic()
        course = self._courses.get(what)
        if course is None or now > course.due + self._longest:
            if len(self._courses) >= _MOST_REMEMBERED:
                self._courses.clear()
            course = self._courses[what] = _Course(now, self._shortest / 2)
        course.untold += times
        if now < course.due:
            return 0
        course.interval = min(2 * course.interval, self._longest)
        course.due = now + course.interval
        untold, course.untold = course.untold, 0
        return untold

    def is_new(self, what: Hashable) -> bool:
        """Whether it has not happened yet."""
        return what not in self._courses

    def ended(self) -> bool:
        """Forget everything; returns whether anything had happened."""
        had_happened = bool(self._courses)
        self._courses.clear()
        return had_happened
