"""Filters by column: ``category=git&category=wiki`` is either, ``not_user=zodbot`` all but him."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Integer, String, inspect, or_

from statscache.people import People, people_of
from statscache.plugins.columns import QUERY_PARAMETERS
from statscache.plugins.installed.discovery import Dataset

NOT = "not_"
"""What stands before the name of a column in the filter that leaves rows out."""

MOST_VALUES = 100
"""Of all the filters of a query together."""

_SAYINGS = frozenset({"scalar", "message"})
"""The columns of our classic models that say something of a row, and do not tell it from others."""

_YOUNGER_PARAMETERS = frozenset({"count", "quantile"})
"""Words of queries since columns of classic models may be called so: there they stay filters, and
the dataset does without the parameter. An aggregate with such a column is refused when it is
loaded, because its author can still name it otherwise."""

_NO_FILTERS = _SAYINGS | (QUERY_PARAMETERS - _YOUNGER_PARAMETERS) | {"id", "timestamp"}


@dataclass(frozen=True, order=True)
class Filter:
    """Rows whose ``column`` has one of ``values``, or, ``negated``, has none of them."""

    column: str
    negated: bool
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """As the query says it."""
        return f"{NOT}{self.column}" if self.negated else self.column


Filters = tuple[Filter, ...]
"""In the order of the columns, each with distinct values in their order."""


def columns(dataset: Dataset) -> Mapping[str, Column[Any]]:
    """The columns of ``dataset`` that can be filtered by, under the names that clients see.

    Those are the keys of an aggregate, but for bins, whose middles nobody knows, and the text and
    integer columns of a classic model, without ``scalar`` and ``message``.
    """
    table = dataset.model.__table__
    if not dataset.is_classic:
        return {key.name: table.c[key.name] for key in dataset.keys if key.type is not float}
    found = {}
    for attribute in inspect(dataset.model).column_attrs:
        name, column = str(attribute.key), attribute.columns[0]
        if name in _NO_FILTERS or name.startswith(NOT):
            continue
        if isinstance(column.type, String | Integer) and isinstance(column, Column):
            found[name] = column
    return found


def clauses(filters: Iterable[Filter], dataset: Dataset) -> Sequence[ColumnElement[bool]]:
    """The conditions of SQL that ``filters`` are, and those for what may be shown at all.

    Every statement that reads rows to serve them has these.
    """
    available = columns(dataset)
    people = people_of(dataset.plugin)
    return [
        *(_clause(filter_, available[filter_.column], people, dataset) for filter_ in filters),
        *people.shown(dataset),
    ]


def _clause(
    filter_: Filter, column: Column[Any], people: People, dataset: Dataset
) -> ColumnElement[bool]:
    values = tuple(people.veiled(dataset, column, value) for value in filter_.values)
    if len(values) == 1:
        (value,) = values
        found = column != value if filter_.negated else column == value
    else:
        found = column.not_in(values) if filter_.negated else column.in_(values)
    # NULL differs from the value that is left out, so those rows stay.
    return or_(found, column.is_(None)) if filter_.negated and column.nullable else found
