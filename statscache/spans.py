"""Spans of time, and what several of them cover together."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[float, float]
"""Start and stop, UNIX seconds."""


def union(spans: Iterable[Span], slack: float = 0.0) -> list[Span]:
    """The same times as spans that do not touch, oldest first.

    Args:
        spans: in any order.
        slack: seconds that may lie between two spans which become one.
    """
    found: list[Span] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1] + slack:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found


def difference(span: Span, holes: Iterable[Span]) -> list[Span]:
    """The parts of ``span`` outside of ``holes``, oldest first."""
    start, stop = span
    parts: list[Span] = []
    for hole_start, hole_stop in union(holes):
        if start < min(hole_start, stop):
            parts.append((start, min(hole_start, stop)))
        start = max(start, hole_stop)
    if start < stop:
        parts.append((start, stop))
    return parts


def cover(spans: Iterable[Span], most: int) -> list[Span]:
    """At most ``most`` spans, oldest first, that cover all of ``spans``, and perhaps more."""
    found = union(spans)
    # Halve the number by joining neighbours: which gaps are covered matters less than the bound.
    while len(found) > most:
        pairs = [found[number : number + 2] for number in range(0, len(found), 2)]
        found = [(pair[0][0], pair[-1][1]) for pair in pairs]
    return found
