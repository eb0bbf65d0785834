"""The values that a key column has, for typeahead: ``/api/<ident>/values/<column>``."""

from __future__ import annotations

import sys
from typing import Any

from sqlalchemy import Column, Integer, Select, func, inspect, literal, null, select, union_all

from statscache.app.dispatch import rankings
from statscache.app.dispatch.route import Call, Route
from statscache.app.http import parameters
from statscache.app.http.answer import Answer, Table
from statscache.app.http.parameters import Parameter
from statscache.app.http.problems import Problem
from statscache.app.state import filters
from statscache.plugins.installed.discovery import Dataset

DEFAULT_LIMIT = 20
MOST_VALUES = 1_000

HAS_MORE = "X-Has-More"
"""The header of a download that is not all there is."""

_BEHIND_ALL = chr(sys.maxunicode) * 301
"""Keys are shorter: 300 characters of them are kept."""
_LAST_BEFORE_SURROGATES, _FIRST_BEHIND_THEM = "\ud7ff", "\ue000"


def answer(call: Call) -> Answer:
    """The values that begin so."""
    name = call.arguments["column"]
    column = _column(call.dataset, name)
    rankings.check_ranking(call, name)
    is_download = call.format != "json"
    # Completion of what is typed needs a few of them, a download as many as there are.
    limit = call.values["limit"] or (MOST_VALUES if is_download else DEFAULT_LIMIT)
    found = _values(call, column, limit + 1)
    values = sorted(found[:limit], key=_by_letter)
    if is_download:
        headers = {HAS_MORE: "true"} if len(found) > len(values) else {}
        return Answer(table=Table((name,), [(value,) for value in values]), headers=headers)
    return Answer(
        {
            "ident": call.dataset.ident,
            "column": name,
            "values": values,
            "has_more": len(found) > len(values),
        }
    )


def _by_letter(value: Any) -> Any:
    return (value.casefold(), value) if isinstance(value, str) else value


def columns(dataset: Dataset) -> dict[str, Column[Any]]:
    """The columns whose values can be listed, by name."""
    return {
        name: column for name, column in filters.columns(dataset).items() if _is_indexed(column)
    }


def _column(dataset: Dataset, name: str) -> Column[Any]:
    known = columns(dataset)
    if name not in known:
        raise Problem(
            404,
            f"{dataset.ident} has no key column {name[:80]!r} whose values can be listed",
            allowed=list(known),
        )
    return known[name]


def _is_indexed(column: Column[Any]) -> bool:
    """Whether an index begins with the column."""
    table = column.table
    first = [next(iter(index.columns)) for index in table.indexes]
    return any(each is column for each in (next(iter(table.primary_key)), *first))


def _values(call: Call, column: Column[Any], most: int) -> list[Any]:
    # The hub creates the table of a newly installed plugin when it starts.
    if not inspect(call.connection).has_table(column.table.name):
        return []
    if isinstance(column.type, Integer):
        if call.values["q"]:
            parameters.refuse("q", f"does not go with {column.name!r}, which is of numbers")
        beginnings = [""]
    else:
        beginnings = _beginnings(call.values["q"])
    statement = _distinct(call, column, beginnings).limit(most)
    return list(call.connection.scalars(statement))


def _beginnings(text: str) -> list[str]:
    """``text``, also in small letters, in capitals, and with an initial capital."""
    return sorted({text, text.lower(), text.upper(), text.capitalize()})


def _distinct(call: Call, column: Column[Any], beginnings: list[str]) -> Select[Any]:
    """The distinct values with one of the ``beginnings``: one search in an index for each."""
    clauses = filters.clauses(call.filters, call.dataset)
    smallest = select(func.min(column)).where(*clauses)
    seeds = []
    for beginning in beginnings:
        end = _end(beginning)
        seed = smallest
        if beginning:
            seed = seed.where(column >= beginning)
        if end is not None:
            seed = seed.where(column < end)
        seeds.append(
            select(
                seed.scalar_subquery().label("value"),
                (null() if end is None else literal(end, column.type)).label("end"),
            )
        )
    found = select(union_all(*seeds).subquery("seeds")).cte("found", recursive=True)
    following = smallest.where(column > found.c.value)
    if beginnings != [""]:
        following = following.where(column < found.c.end)
    value = following.correlate(found).scalar_subquery()
    found = found.union_all(select(value, found.c.end).where(found.c.value.is_not(None)))
    return select(found.c.value).where(found.c.value.is_not(None))


def _end(beginning: str) -> str | None:
    """The smallest text behind all that begin so; None if that is all."""
    if not beginning:
        return None
    beginning = beginning.rstrip(chr(sys.maxunicode))
    if not beginning:
        return _BEHIND_ALL
    last = beginning[-1]
    following = _FIRST_BEHIND_THEM if last == _LAST_BEFORE_SURROGATES else chr(ord(last) + 1)
    return beginning[:-1] + following


ROUTE = Route(
    rule="/api/<ident>/values/<column>",
    name="values",
    summary="The values that a key column has.",
    description=(
        "For fields that complete what is typed. Names in small letters, in capitals or with an "
        "initial capital are found however they are typed. People are listed unless the operator "
        "does not want them to be."
    ),
    answer=answer,
    lists=lambda _dataset, said: (said["column"],),
    applies=lambda dataset: bool(columns(dataset)),
    parameters=(
        Parameter("q", parameters.TEXT, "Only values that begin so.", "", example="py"),
        Parameter(
            "limit",
            parameters.number(1, MOST_VALUES),
            f"How many values; where it is not said {DEFAULT_LIMIT} in JSON, and {MOST_VALUES} in "
            f"CSV and NDJSON, where {HAS_MORE} says that there are others.",
        ),
    ),
    formats=("json", "csv", "ndjson"),
    schema={
        "type": "object",
        "properties": {
            "ident": {"type": "string"},
            "column": {"type": "string"},
            "values": {"type": "array", "items": {"type": ["string", "integer"]}},
            "has_more": {"type": "boolean", "description": "Whether there are more of them."},
        },
        "required": ["ident", "column", "values", "has_more"],
        "additionalProperties": False,
    },
    example="?limit=5",
)
