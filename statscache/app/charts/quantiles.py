"""Quantiles of numbers that are told apart by bins: durations and sizes.

Rows of bins are added like any others. So a quantile of any range is read from the sums of its
bins, exactly: it is the smallest bin up to which the given part of the whole lies. What a bin
stands for differs from the number itself by the error that its plugin declares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, func, select

from statscache.app.charts.joined import Joined
from statscache.app.charts.lines import QUANTILE, Line
from statscache.app.charts.sources import Measure, SourceTable
from statscache.app.http import parameters
from statscache.app.http.parameters import Kind, Parameter
from statscache.app.state.filters import Filters
from statscache.plugins.columns import Key
from statscache.plugins.installed.discovery import Dataset

MOST_QUANTILES = 10

_DIGITS = 6
_PART = rf"(?:0(?:\.[0-9]{{1,{_DIGITS}}})?|\.[0-9]{{1,{_DIGITS}}}|1(?:\.0{{1,{_DIGITS}}})?)"


def bins(dataset: Dataset) -> Key | None:
    """The key of bins, of which there are quantiles; the first one."""
    return next((key for key in dataset.keys if key.type is float), None)


def _kind(dataset: Dataset) -> Kind:
    pattern = f"{_PART}(?:,{_PART}){{0,{MOST_QUANTILES - 1}}}"

    def parse(name: str, text: str) -> tuple[str, ...]:
        if bins(dataset) is None:
            parameters.refuse(
                name,
                f"cannot be had: {dataset.ident} has no key of bins, which tell sizes apart",
                (),
            )
        if not re.fullmatch(pattern, text):
            parameters.refuse(
                name,
                f"takes {MOST_QUANTILES} numbers from 0 to 1 at most, comma separated, with "
                f"{_DIGITS} digits behind the point, such as 0.5,0.9, not {text!r:.80}",
            )
        found = tuple(f"{Decimal(part).normalize():f}" for part in text.split(","))
        if len(set(found)) < len(found):
            parameters.refuse(name, "names one of them twice")
        return found

    schema: dict[str, Any] = {"type": "string", "pattern": f"^{pattern}$"}
    if bins(dataset) is None:
        schema = {"type": "string", "enum": []}
    return Kind(parse, schema, ",".join)


QUANTILES = Parameter(
    QUANTILE,
    _kind,
    "Quantiles of the sizes that bins tell apart, such as 0.5,0.9, instead of the numbers of rows; "
    "weighted by the column that select names, or the first that is added up.",
    example="0.5",
)


class Quantiles(Joined):
    """Quantiles of a key of bins.

    Args:
        connection: in which all is of one moment.
        filters: that the rows must pass.
        column: the bins.
        weight: how many there are in each bin; what is not positive is left out.
        quantiles: from 0 to 1, as :data:`QUANTILES` parses them.
    """

    def __init__(
        self,
        connection: Connection,
        filters: Filters,
        column: Key,
        weight: Measure,
        quantiles: Sequence[str],
    ) -> None:
        super().__init__(connection, filters)
        self._column = column
        self._weight = weight
        self._quantiles = quantiles

    @property
    def lines(self) -> Sequence[Line]:
        """One of each quantile."""
        return [Line(self._column.name, QUANTILE, False, each) for each in self._quantiles]

    @property
    def details(self) -> Mapping[str, Any]:
        """The column that weighs, and the relative error of the bins."""
        return {"weight": self._weight.name, "error": getattr(self._column, "error", 0.0)}

    def _read(self, source: SourceTable) -> list[ColumnElement[Any]]:
        return [source.columns[self._column.name], source.columns[self._weight.name]]

    def _grouped(self, rows: Any, groups: Sequence[Any]) -> Select[Any]:
        middle = rows.c.read_0
        weight = self._statements.merged(self._weight.rule, rows.c.read_1)
        binned = (
            select(*groups, middle.label("middle"), weight.label("weight"))
            .group_by(*groups, middle)
            .having(weight > 0)
            .subquery("binned")
        )
        own = [binned.c[group.name] for group in groups]
        ranked = select(
            *own,
            binned.c.middle,
            func.sum(binned.c.weight)
            .over(partition_by=own, order_by=binned.c.middle)
            .label("upto"),
            func.sum(binned.c.weight).over(partition_by=own).label("whole"),
        ).subquery("ranked")
        found = []
        for text in self._quantiles:
            # Whole numbers: a part such as 0.9 has no exact float.
            part, unit = Decimal(text).as_integer_ratio()
            is_beyond = ranked.c.upto * unit >= ranked.c.whole * part
            found.append(func.min(case((is_beyond, ranked.c.middle))))
        groups = [ranked.c[group.name] for group in groups]
        return select(*groups, *found).group_by(*groups)
