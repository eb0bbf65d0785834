"""One number for a range, and what it was before: ``/api/<ident>/summary``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from statscache.app.charts import comparison, latest, ranges, readings
from statscache.app.charts.calendar import Resolution
from statscache.app.charts.latest import LatestRows
from statscache.app.charts.lines import COUNT, MISSING, PARTIAL, QUANTILE, Number, Reading
from statscache.app.charts.ranges import STATE_SCHEMA, Range
from statscache.app.dispatch.route import Call, Route, no_people
from statscache.app.http.answer import Answer, Table
from statscache.app.state import coverage
from statscache.plugins.installed.discovery import Dataset
from statscache.plugins.merges import RULES
from statscache.times import DAY

DEFAULT_SPAN = 30 * DAY

COMPARISON = ("compared", "previous", "previous_state", "change")
"""What is said of the comparison of a number, in this order."""

COMPARED_TIMES = ("compared_start", "compared_stop", "previous_start", "previous_stop")
"""The two ranges of a comparison, in this order."""

AXIS = ("resolution", "tz", "start", "stop")
"""What an answer says of its range; null of latest values."""


def default_span(resolution: Resolution) -> float:
    """How long the range is if its start is not said, in seconds."""
    # No more than may be asked for.
    longest = (ranges.MOST_BUCKETS - 1) * resolution.width
    return max(resolution.width, min(DEFAULT_SPAN, longest))


def answer(call: Call) -> Answer:
    """The number of a range."""
    # Several numbers are quantiles.
    reading = readings.reading_of(call, most=1 if call.values[QUANTILE] is None else None)
    found = resolve(call)
    values, state = amounts(found, reading)
    line = reading.lines[0]
    axis: dict[str, Any] = {
        "ident": call.dataset.ident,
        "column": line.column,
        "merge": line.merge,
        **reading.details,
        **{name: found.axis[name] for name in AXIS},
    }
    numbers: list[dict[str, Any]] = [{"value": value} for value in values]
    changes: Sequence[dict[str, Any]] = [{} for _ in values]
    ends: dict[str, Any] = {}
    if call.values["compare"] is not None:
        assert isinstance(found, Range), "latest values are not compared"
        changes, ends = _comparison(call, found, reading)
    rows = [
        axis | own | {"state": state} | change | ends
        for own, change in zip(numbers, changes, strict=True)
    ]
    if line.quantile is not None:
        parts = [{QUANTILE: float(line.quantile or 0)} for line in reading.lines]
        numbers = [
            part | own | change for part, own, change in zip(parts, numbers, changes, strict=True)
        ]
        rows = [part | row for part, row in zip(parts, rows, strict=True)]
    if call.format != "json":
        table = Table(list(rows[0]), [list(row.values()) for row in rows])
        return Answer(table=table, lifetime=found.lifetime)
    body = rows[0] | {"coverage": found.coverage.to_json()}
    if line.quantile is not None:
        body |= {"quantiles": numbers}
    return Answer(body, lifetime=found.lifetime)


def resolve(call: Call) -> Range | LatestRows:
    """The range of one number, or what there is of latest values.

    Raises:
        Problem: it cannot be made of what is stored.
    """
    if latest.is_latest(call.dataset):
        return latest.resolve(call)
    found = ranges.resolve(call, default_span)
    ranges.check_merging(call, found)
    return found


def amounts(found: Range | LatestRows, reading: Reading) -> tuple[Sequence[Number], str]:
    """The numbers of a whole range, one of each line, and whether all of it is covered."""
    whole = found.whole
    numbers = reading.in_buckets(whole.parts).get(0)
    state = whole.states[0]
    if numbers is not None:
        return numbers, PARTIAL if state == MISSING else state
    return [0 if line.is_zero and state != MISSING else None for line in reading.lines], state


def amount(found: Range | LatestRows, reading: Reading) -> tuple[Number, str]:
    """The first of :func:`amounts`."""
    (value, *_), state = amounts(found, reading)
    return value, state


def _comparison(
    call: Call, found: Range, reading: Reading
) -> tuple[Sequence[dict[str, Any]], dict[str, Any]]:
    """What the numbers were before, and by which part of that they have changed; of which times."""
    both = comparison.compare(call, found)
    if both is None:
        unknown = dict.fromkeys(COMPARISON) | {"previous_state": MISSING}
        return [unknown] * len(reading.lines), dict.fromkeys(COMPARED_TIMES)
    (values, _), (before, state) = (amounts(each, reading) for each in both)
    ends = (end for each in both for end in (each.buckets.start, each.buckets.stop))
    changes = [
        dict(zip(COMPARISON, (now, then, state, comparison.change(now, then)), strict=True))
        for now, then in zip(values, before, strict=True)
    ]
    return changes, dict(zip(COMPARED_TIMES, ends, strict=True))


MERGE_SCHEMA = {
    "enum": [*RULES, COUNT, QUANTILE],
    "description": "How rows become one number.",
}
AXIS_SCHEMA = {
    "resolution": {"type": ["string", "null"]},
    "tz": {"type": ["string", "null"]},
    "start": {"type": ["number", "null"]},
    "stop": {"type": ["number", "null"]},
}


def _schema(_dataset: Dataset) -> Mapping[str, Any]:
    number, moment = {"type": ["number", "null"]}, {"type": ["integer", "null"]}
    return {
        "type": "object",
        "properties": {
            "ident": {"type": "string"},
            "column": {"type": "string", "description": "What the number is of."},
            "merge": MERGE_SCHEMA,
            QUANTILE: {"type": "number", "description": "The first one that is asked for."},
            "quantiles": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        QUANTILE: {"type": "number"},
                        **dict.fromkeys(("value", "compared", "previous", "change"), number),
                        "previous_state": STATE_SCHEMA,
                    },
                    "required": [QUANTILE, "value"],
                    "additionalProperties": False,
                },
            },
            **readings.DETAILS_SCHEMA,
            **AXIS_SCHEMA,
            "value": number,
            "state": STATE_SCHEMA,
            "compared": number
            | {"description": "The number of the range as far as it has been counted."},
            "previous": number | {"description": "That of the same part of the earlier range."},
            "previous_state": STATE_SCHEMA,
            "change": number
            | {
                "description": "From previous to compared, as a part of previous; null where that "
                "is 0."
            },
            "compared_start": moment,
            "compared_stop": moment,
            "previous_start": moment,
            "previous_stop": moment,
            "coverage": coverage.SCHEMA,
        },
        "required": [
            *("ident", "column", "merge", "resolution", "tz", "start", "stop", "value", "state"),
            "coverage",
        ],
        "additionalProperties": False,
    }


ROUTE = Route(
    rule="/api/<ident>/summary",
    name="summary",
    summary="One number for a range, and what it was before.",
    description=(
        "The range is the last 30 days where start is not said. The state tells whether all of it "
        "was counted. A comparison is of as much of both ranges: where one is still open, of what "
        "has been counted of it, and of the same part of the other."
    ),
    answer=answer,
    lists=no_people,
    applies=readings.have_totals,
    parameters=(
        ranges.START,
        ranges.STOP,
        ranges.RESOLUTION,
        ranges.TZ,
        ranges.COLUMN,
        *readings.PARAMETERS,
        comparison.COMPARE,
    ),
    filterable=True,
    formats=("json", "csv", "ndjson"),
    state=comparison.state,
    steps=ranges.steps,
    schema=_schema,
    example="?start=-1d&compare=previous",
)
