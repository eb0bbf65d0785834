"""What numbers a query asks for: columns, merged as declared, or how many keys there are."""

from __future__ import annotations

from statscache.app.charts import ranges, sources
from statscache.app.charts.aggregation import Aggregation
from statscache.app.charts.joined import DistinctCounts, Sums
from statscache.app.charts.lines import COUNT, Reading
from statscache.app.charts.punch_card import HOUR_OF_WEEK
from statscache.app.dispatch.route import Call
from statscache.app.http import parameters
from statscache.app.http.parameters import Parameter
from statscache.plugins.installed.discovery import Dataset

COUNTED = Parameter(
    COUNT,
    ranges.key_kind,
    "How many different values of this column there are, instead of its numbers.",
)


def have_totals(dataset: Dataset) -> bool:
    """Whether there are numbers of any range, or of latest values."""
    return not dataset.is_classic and bool(sources.measures(dataset))


def reading_of(call: Call, by: str | None = None, *, most: int | None = None) -> Reading:
    """What ``call`` asks for.

    Args:
        by: the column that tells series or keys apart.
        most: how many columns of numbers, at most; the first ones.

    Raises:
        Problem: what it asks for does not go together, or there are no numbers.
    """
    column = call.values[COUNT]
    if column is not None:
        return _distinct(call, column, by)
    measures = ranges.measures(call)
    if call.values.get("resolution") is HOUR_OF_WEEK:
        added = [measure for measure in measures if measure.rule.adds_up]
        if not added or (call.values["select"] is not None and len(added) < len(measures)):
            allowed = [each.name for each in sources.measures(call.dataset) if each.rule.adds_up]
            parameters.refuse(
                "select" if allowed else "resolution",
                f"must be of columns that are added up with resolution={HOUR_OF_WEEK.name}"
                if allowed
                else f"{HOUR_OF_WEEK.name} is for numbers that are added up, and for {COUNT}=",
                allowed,
            )
        return Sums(call.connection, call.filters, added)
    return Aggregation(call.connection, call.filters, measures[:most])


def _distinct(call: Call, column: str, by: str | None) -> Reading:
    if call.values["select"] is not None:
        parameters.refuse(
            "select", f"does not go with {COUNT}, which counts keys: leave out one of the two"
        )
    if column == by:
        keys = [key for key in sources.keys(call.dataset) if key != by]
        parameters.refuse(
            COUNT, f"is the column that the numbers are by: each of {by} is one", keys
        )
    return DistinctCounts(call.connection, call.filters, column)
