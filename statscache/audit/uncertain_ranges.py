"""Times of which the audit cannot tell what is right."""

from __future__ import annotations

from statscache.message import TIMESTAMP_TOLERANCE
from statscache.spans import Span


class UncertainRanges:
    """Ranges of time of which it is not known whether table and archive have the same messages."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def add(self, start: float, stop: float) -> None:
        """Add the time from ``start`` to ``stop``, UNIX seconds."""
        self._spans.append((start - TIMESTAMP_TOLERANCE, stop + TIMESTAMP_TOLERANCE))

    def overlaps(self, start: float, stop: float) -> bool:
        """Whether one of them overlaps the time from ``start`` to ``stop``."""
        return any(first < stop and last >= start for first, last in self._spans)

    def __bool__(self) -> bool:
        return bool(self._spans)
