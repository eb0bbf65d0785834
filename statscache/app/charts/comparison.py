"""Two ranges that can be compared: the earlier one is cut where the later one has been counted to.

A day that is still open is compared with the same hours of the day before. Otherwise every morning
would look like a collapse. The minute of the cut depends on the narrowest rows of both ranges.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from datetime import timedelta

from statscache.app.charts import ranges, sources
from statscache.app.charts.calendar import Buckets
from statscache.app.charts.lines import Number
from statscache.app.charts.ranges import Range
from statscache.app.charts.sources import Unfit
from statscache.app.dispatch.route import Call
from statscache.app.http import parameters
from statscache.app.http.parameters import Parameter
from statscache.app.state.revisions import Snapshot
from statscache.app.state.steps import MINUTES, Steps, steps_of
from statscache.plugins.buckets import floored

PREVIOUS, YEAR = "previous", "year"

COMPARE = Parameter(
    "compare",
    parameters.choice(PREVIOUS, YEAR),
    "Also the number of the range of the same length before it, or of a year before.",
    example=PREVIOUS,
    suits=lambda dataset: dataset.schedule is not None,
)

Pair = tuple[Range, Range]


def compare(call: Call, found: Range) -> Pair | None:
    """The part of a range that has been counted, and the same part of the earlier one.

    None where nothing has been counted, or the earlier range would begin before 1970.

    Raises:
        Problem: the earlier range cannot be made of what is stored.
    """
    earlier = _earlier(call, found)
    if not earlier.count:
        return None
    tables = sources.tables(call.installed, call.dataset, call.snapshot, _steps(call))
    exact = replace(found, sources=tables)
    pairs, is_unfit = [], False
    for end in _ends(exact):
        try:
            pairs.append(_until(call, exact, earlier, end))
        except Unfit:
            is_unfit = True
    if is_unfit and not pairs:
        parameters.refuse(
            "compare", "cannot be had exactly: clocks of this time zone were different then"
        )
    # The narrowest rows are the most precise, but they are deleted first.
    return min(pairs, key=_unknown, default=None)


def change(value: Number, previous: Number) -> Number:
    """From ``previous`` to ``value``, as a part of ``previous``; None where that is nothing."""
    return None if value is None or not previous else (value - previous) / abs(previous)


def state(call: Call, snapshot: Snapshot) -> Hashable:
    """What an answer depends on besides the query; a comparison also how far it has come."""
    known = ranges.state(call, snapshot)
    if call.values["compare"] is None or call.dataset.schedule is None:
        return known
    return known, sources.state(call.installed, call.dataset, snapshot, _steps(call))


def _steps(call: Call) -> Steps:
    narrowest = sources.narrowest(call.installed, call.dataset)
    assert narrowest.schedule is not None
    is_finer = narrowest.schedule.interval < timedelta(seconds=MINUTES.width)
    return MINUTES if is_finer else steps_of(narrowest)


def _earlier(call: Call, found: Range) -> Buckets:
    """The buckets of the whole range to compare with; none where it would begin before 1970."""
    buckets, calendar = found.buckets, found.calendar
    if call.values["compare"] == YEAR:
        return calendar.year_before(buckets)
    earlier = calendar.before(buckets)
    return earlier if earlier.count == buckets.count else Buckets((), 0)


def _ends(found: Range) -> Iterable[int]:
    """Up to when it has been counted, by the rows of each width, the narrowest first."""
    start, stop = found.buckets.start, found.buckets.stop
    known = [s.coverage.until for s in found.sources if s.coverage.until is not None]
    if not known or max(known) >= stop:
        return [stop]
    until = int(max(known))
    ends = (floored(until, table.width, table.offset) for table in reversed(found.sources))
    return [end for end in dict.fromkeys(ends) if end > start]


def _until(call: Call, found: Range, earlier: Buckets, end: int) -> Pair:
    buckets, calendar = found.buckets, found.calendar
    if end == buckets.stop:
        return found.with_buckets(buckets), found.with_buckets(earlier)
    is_year = call.values["compare"] == YEAR
    other = calendar.year_earlier(end) if is_year else calendar.as_far(end, buckets, earlier)
    # Clocks that were changed may have skipped all of it.
    if not earlier.until(other).count:
        raise Unfit
    return found.with_buckets(buckets.until(end)), found.with_buckets(earlier.until(other))


def _unknown(pair: Pair) -> float:
    """The seconds that are not covered."""
    return sum(
        stop - start - part.source.coverage.covered(start, stop)
        for each in pair
        for part in each.whole.parts
        for start, stop, _ in part.pieces
    )
