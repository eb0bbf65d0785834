"""The largest keys of a range: ``/api/<ident>/top``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from statscache.app.charts import comparison, ranges, readings, sources
from statscache.app.charts.latest import LatestRows
from statscache.app.charts.lines import MISSING, QUANTILE, Line, Number, Reading, filled
from statscache.app.charts.ranges import STATE_SCHEMA, Range
from statscache.app.dispatch import rankings
from statscache.app.dispatch.route import Call, Route
from statscache.app.http import parameters
from statscache.app.http.answer import Answer, Table
from statscache.app.http.parameters import Parameter
from statscache.app.http.problems import Problem
from statscache.app.routes.series import check_cells
from statscache.app.routes.summary import (
    AXIS,
    AXIS_SCHEMA,
    COMPARED_TIMES,
    MERGE_SCHEMA,
    amount,
    resolve,
)
from statscache.app.state import coverage
from statscache.plugins.installed.discovery import Dataset
from statscache.plugins.merges import RULES

COMPARED = ("compared", "previous", "change")
"""What is said of a comparison of each key, in this order."""

DEFAULT_LIMIT = 10
MOST_KEYS = 1_000


@dataclass(frozen=True)
class Row:
    """A key, and its numbers.

    Attributes:
        key: of the column.
        value: of the whole range.
        share: of the total, where numbers are added.
        comparison: the number as far as it has been counted, that of the earlier range, and the
            change; none where the query does not ask for them.
        values: of each bucket; None where the query does not ask for them.
    """

    key: Any
    value: Number
    share: float | None
    comparison: Sequence[Number] = ()
    values: Sequence[Number] | None = None


def answer(call: Call) -> Answer:
    """The largest keys."""
    limit = call.values["limit"]
    reading = readings.reading_of(call, next(_columns(call), None), most=1)
    found = resolve(call)
    by = _by(call)
    rankings.check_ranking(call, by)
    if call.values["points"] is not None:
        check_cells(found.count, limit)
    ranked, count = reading.ranking(found.whole.parts, by, limit)
    total, state = amount(found, reading)
    keys = [key for key, _ in ranked]
    both = _compared(call, found)
    unknown = () if call.values["compare"] is None else (None,) * len(COMPARED)
    changes = _changes(both, reading, by, keys)
    values = _values(call, found, reading, by, keys)
    line = reading.lines[0]
    adds_up = line.merge in RULES and line.is_zero
    rows = [
        Row(
            key,
            value,
            value / total if adds_up and total and value is not None else None,
            changes.get(key, unknown),
            values.get(key),
        )
        for key, value in ranked
    ]
    if call.format != "json":
        return Answer(table=_table(call, found, line, by, rows), lifetime=found.lifetime)
    body = {
        "ident": call.dataset.ident,
        "by": by,
        "column": line.column,
        "merge": line.merge,
        **_quantile(line),
        **reading.details,
        **{name: found.axis[name] for name in AXIS},
        **({} if call.values["points"] is None else {"times": found.axis["times"]}),
        "top": [_row_json(row) for row in rows],
        "keys": count,
        "total": total,
        "state": state,
        **_compared_json(call, both),
        "coverage": found.coverage.to_json(),
    }
    return Answer(body, lifetime=found.lifetime)


def _quantile(line: Line) -> dict[str, Any]:
    return {} if line.quantile is None else {QUANTILE: float(line.quantile)}


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "key": row.key,
        "value": row.value,
        "share": row.share,
        **dict(zip(COMPARED, row.comparison, strict=bool(row.comparison))),
        **({} if row.values is None else {"values": row.values}),
    }


def _table(
    call: Call, found: Range | LatestRows, line: Line, by: str, rows: Sequence[Row]
) -> Table:
    """As CSV: a column for each bucket, named by its start."""
    columns = [by, line.heading, "_share"]
    if call.values["compare"] is not None:
        columns += [f"_{name}" for name in COMPARED]
    if call.values["points"] is not None:
        columns += [str(start) for start in found.axis["times"]]
    return Table(
        columns,
        [(row.key, row.value, row.share, *row.comparison, *(row.values or ())) for row in rows],
    )


def _compared(call: Call, found: Range | LatestRows) -> comparison.Pair | None:
    if call.values["compare"] is None:
        return None
    assert isinstance(found, Range), "latest values are not compared"
    return comparison.compare(call, found)


def _compared_json(call: Call, both: comparison.Pair | None) -> dict[str, Any]:
    """The two ranges that are compared."""
    if call.values["compare"] is None:
        return {}
    if both is None:
        return {**dict.fromkeys(COMPARED_TIMES), "previous_state": MISSING}
    ends = (end for each in both for end in (each.buckets.start, each.buckets.stop))
    return {
        **dict(zip(COMPARED_TIMES, ends, strict=True)),
        "previous_state": both[1].whole.states[0],
    }


def _changes(
    both: comparison.Pair | None, reading: Reading, by: str, keys: Sequence[Any]
) -> Mapping[Any, Sequence[Number]]:
    """Of each key the number as far as it has been counted, the earlier one, and the change."""
    if both is None:
        return {}
    now, before = (_of_keys(each.whole, reading, by, keys) for each in both)
    return {
        key: (value, previous, comparison.change(value, previous))
        for key, (value,), (previous,) in zip(keys, now, before, strict=True)
    }


def _values(
    call: Call, found: Range | LatestRows, reading: Reading, by: str, keys: Sequence[Any]
) -> Mapping[Any, Sequence[Number]]:
    """Of each key the numbers of all buckets, if they are asked for."""
    if call.values["points"] is None:
        return {}
    return dict(zip(keys, _of_keys(found, reading, by, keys), strict=True))


def _of_keys(
    found: Range | LatestRows, reading: Reading, by: str, keys: Sequence[Any]
) -> list[list[Number]]:
    """Of each key the numbers of all buckets of a range."""
    by_key: dict[Any, dict[int, Number]] = {key: {} for key in keys}
    numbers = reading.in_buckets_by_key(found.parts, by, keys)
    for (bucket, key), (number, *_) in numbers.items():
        by_key[key][bucket] = number
    return [filled(reading.lines[0], by_key[key], found.states, None) for key in keys]


def _columns(call: Call) -> Iterator[str]:
    """The column of the keys, if there is one."""
    yield from filter(None, (call.values["by"], *sources.keys(call.dataset)))


def _by(call: Call) -> str:
    by = next(_columns(call), None)
    if by is None:
        raise Problem(404, f"{call.dataset.ident} has no keys, of which some could be the largest")
    return by


def _schema(_dataset: Dataset) -> Mapping[str, Any]:
    number, moment = {"type": ["number", "null"]}, {"type": ["integer", "null"]}
    return {
        "type": "object",
        "properties": {
            "ident": {"type": "string"},
            "by": {"type": "string"},
            "column": {"type": "string"},
            "merge": MERGE_SCHEMA,
            QUANTILE: {"type": "number"},
            **readings.DETAILS_SCHEMA,
            **AXIS_SCHEMA,
            "times": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "With points: the start of each bucket.",
            },
            "top": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": {"type": ["string", "number"]},
                        "value": number,
                        "share": number | {"description": "Of the total, where numbers are added."},
                        "compared": number
                        | {"description": "With compare: as far as it has been counted."},
                        "previous": number
                        | {"description": "That of the same part of the earlier range."},
                        "change": number
                        | {"description": "From previous to compared, as a part of previous."},
                        "values": {
                            "type": "array",
                            "items": number,
                            "description": "With points: of each bucket.",
                        },
                    },
                    "required": ["key", "value", "share"],
                    "additionalProperties": False,
                },
            },
            "keys": {"type": "integer", "description": "How many keys there are in this range."},
            "total": number | {"description": "Of all of them."},
            "state": STATE_SCHEMA,
            "compared_start": moment,
            "compared_stop": moment,
            "previous_start": moment,
            "previous_stop": moment,
            "previous_state": STATE_SCHEMA,
            "coverage": coverage.SCHEMA,
        },
        "required": [
            *("ident", "by", "column", "merge", "resolution", "tz", "start", "stop", "top"),
            *("keys", "total", "state", "coverage"),
        ],
        "additionalProperties": False,
    }


ROUTE = Route(
    rule="/api/<ident>/top",
    name="top",
    summary="The largest keys of a range.",
    description=(
        "Those with the largest numbers in all of the range, which is the last 30 days where start "
        "is not said; of equal ones the smaller key comes first. People are ranked unless the "
        "operator does not want them to be."
    ),
    answer=answer,
    lists=lambda dataset, said: (said["by"] or keys[0],) if (keys := sources.keys(dataset)) else (),
    applies=lambda dataset: readings.have_totals(dataset) and bool(sources.keys(dataset)),
    parameters=(
        ranges.START,
        ranges.STOP,
        ranges.RESOLUTION,
        replace(
            ranges.POINTS,
            summary="Also the numbers of each key in buckets, for a small chart: of the finest "
            "resolution that makes at most so many; none that is finer than resolution.",
            example="30",
        ),
        ranges.TZ,
        Parameter("by", ranges.key_kind, "The column of the keys; the first where it is not said."),
        Parameter("limit", parameters.number(1, MOST_KEYS), "How many keys.", DEFAULT_LIMIT),
        ranges.COLUMN,
        *readings.PARAMETERS,
        comparison.COMPARE,
    ),
    filterable=True,
    formats=("json", "csv", "ndjson"),
    state=comparison.state,
    steps=ranges.steps,
    schema=_schema,
    example="?start=-1d&limit=5",
)
