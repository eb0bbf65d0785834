"""Spans of time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from statscache.spans import Span, cover, difference, union

MOMENTS = st.integers(0, 30)
SPANS = st.lists(st.tuples(MOMENTS, MOMENTS).map(lambda two: (min(two), max(two) + 1)))


def covered(spans: list[Span]) -> set[int]:
    return {second for start, stop in spans for second in range(int(start), int(stop))}


@given(SPANS)
def test_a_union_covers_the_same_in_spans_that_do_not_touch(spans: list[Span]) -> None:
    found = union(spans)
    assert covered(found) == covered(spans)
    assert all(first[1] < second[0] for first, second in pairwise(found))


def test_slack_joins_what_is_near() -> None:
    assert union([(20, 30), (0, 10)], slack=10) == [(0, 30)]
    assert union([(21, 30), (0, 10)], slack=10) == [(0, 10), (21, 30)]


@given(st.tuples(MOMENTS, MOMENTS).map(lambda two: (min(two), max(two))), SPANS)
def test_a_difference_is_what_no_hole_covers(span: Span, holes: list[Span]) -> None:
    assert covered(difference(span, holes)) == covered([span]) - covered(holes)


@given(SPANS, st.integers(1, 4))
def test_few_spans_cover_all(spans: list[Span], most: int) -> None:
    found = cover(spans, most)
    assert len(found) <= most
    assert covered(found) >= covered(spans)
