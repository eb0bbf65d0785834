"""What numbers a query asks for: columns, merged as declared, or how many keys there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from statscache.app.charts import quantiles, ranges, sources
from statscache.app.charts.aggregation import Aggregation
from statscache.app.charts.joined import DistinctCounts, Sums
from statscache.app.charts.lines import COUNT, QUANTILE, Reading
from statscache.app.charts.punch_card import HOUR_OF_WEEK
from statscache.app.charts.quantiles import QUANTILES, Quantiles
from statscache.app.charts.sources import Measure
from statscache.app.dispatch.route import Call
from statscache.app.http import parameters
from statscache.app.http.parameters import Kind, Parameter
from statscache.plugins.installed.discovery import Dataset


def countable(dataset: Dataset) -> tuple[str, ...]:
    """The columns whose different values can be counted: keys, but not bins."""
    sizes = {key.name for key in dataset.keys if key.type is float}
    return tuple(name for name in sources.keys(dataset) if name not in sizes)


def _countable_kind(dataset: Dataset) -> Kind:
    names = countable(dataset)
    return parameters.choice(*names) if names else ranges.nothing_apart(dataset)


COUNTED = Parameter(
    COUNT,
    _countable_kind,
    "How many different values of this column there are, instead of its numbers.",
)

PARAMETERS = (COUNTED, QUANTILES)
"""What may be asked for instead of columns of numbers."""

DETAILS_SCHEMA: Mapping[str, Any] = {
    COUNT: {"type": "string", "description": "The column whose values are counted."},
    "weight": {"type": "string", "description": "The column that weighs the bins of quantiles."},
    "error": {"type": "number", "description": "The relative error of quantiles, at most."},
}
""":attr:`~statscache.app.charts.lines.Reading.details`."""


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
    column, wanted = call.values[COUNT], call.values[QUANTILE]
    if column is not None:
        return _distinct(call, column, by)
    if wanted is not None:
        return _quantiles(call, wanted, by, most)
    measures = ranges.measures(call)
    if call.values.get("resolution") is HOUR_OF_WEEK:
        return Sums(call.connection, call.filters, _added(call, measures))
    return Aggregation(call.connection, call.filters, measures[:most])


def _added(call: Call, measures: Sequence[Measure]) -> Sequence[Measure]:
    """Those of the columns that are added up; all of them must be, if they were chosen."""
    added = [measure for measure in measures if measure.rule.adds_up]
    if not added or (call.values["select"] is not None and len(added) < len(measures)):
        allowed = _names_added(call.dataset)
        if not allowed:
            parameters.refuse(
                "resolution",
                f"{HOUR_OF_WEEK.name} is for numbers that are added up, which {call.dataset.ident} "
                f"does not have, and for {COUNT}=",
            )
        parameters.refuse(
            "select",
            f"must be of columns that are added up with resolution={HOUR_OF_WEEK.name}; others do "
            f"not make a sum, but {COUNT}= counts keys",
            allowed,
        )
    return added


def _names_added(dataset: Dataset) -> list[str]:
    """The columns that are added up."""
    return [each.name for each in sources.measures(dataset) if each.rule.adds_up]


def _quantiles(call: Call, wanted: Sequence[str], by: str | None, most: int | None) -> Reading:
    column = quantiles.bins(call.dataset)
    assert column is not None, "the parameter is refused without"
    if most is not None and len(wanted) > most:
        parameters.refuse(QUANTILE, "must be a single one here: the keys are ranked by it")
    if by == column.name:
        others = [key for key in sources.keys(call.dataset) if key != by]
        parameters.refuse(
            "by", f"must be another column than {by}, of which the quantiles are", others
        )
    weights = [each for each in sources.measures(call.dataset) if each.rule.adds_up]
    chosen = call.values["select"]
    if chosen is not None:
        names = [chosen] if isinstance(chosen, str) else chosen
        weights = [each for each in weights if [each.name] == list(names)]
        if not weights:
            parameters.refuse(
                "select",
                f"must be one column that is added up with {QUANTILE}: it weighs the bins",
                _names_added(call.dataset),
            )
    if not weights:
        parameters.refuse(
            QUANTILE, f"cannot be had: {call.dataset.ident} has no column that is added up", ()
        )
    return Quantiles(call.connection, call.filters, column, weights[0], wanted)


def _distinct(call: Call, column: str, by: str | None) -> Reading:
    if call.values[QUANTILE] is not None:
        parameters.refuse(QUANTILE, f"does not go with {COUNT}: ask for them one by one")
    if call.values["select"] is not None:
        parameters.refuse(
            "select", f"does not go with {COUNT}, which counts keys: leave out one of the two"
        )
    if column == by:
        keys = [key for key in countable(call.dataset) if key != by]
        parameters.refuse(
            COUNT, f"is the column that the numbers are by: each of {by} is one", keys
        )
    return DistinctCounts(call.connection, call.filters, column)
