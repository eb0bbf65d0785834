"""One number for a range, and what it was before: ``/api/<ident>/summary``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statscache.app.charts import comparison, latest, ranges, readings
from statscache.app.charts.calendar import Resolution
from statscache.app.charts.latest import LatestRows
from statscache.app.charts.lines import COUNT, MISSING, PARTIAL, Number, Reading
from statscache.app.charts.ranges import STATE_SCHEMA, Range
from statscache.app.dispatch.route import Call, Route, no_people
from statscache.app.http.answer import Answer, Table
from statscache.app.state import coverage
from statscache.plugins.installed.discovery import Dataset
from statscache.plugins.merges import RULES
from statscache.times import DAY

DEFAULT_SPAN = 30 * DAY

COMPARISON = (
    *("compared", "previous", "previous_state", "change"),
    *("compared_start", "compared_stop", "previous_start", "previous_stop"),
)
"""What is said of a comparison, in this order."""


AXIS = ("resolution", "tz", "start", "stop")
"""What an answer says of its range; null of latest values."""


def default_span(resolution: Resolution) -> float:
    """How long the range is if its start is not said, in seconds."""
    # No more than may be asked for.
    longest = (ranges.MOST_BUCKETS - 1) * resolution.width
    return max(resolution.width, min(DEFAULT_SPAN, longest))


def answer(call: Call) -> Answer:
    """The number of a range."""
    reading = readings.reading_of(call, most=1)
    found = resolve(call)
    line = reading.lines[0]
    value, state = amount(found, reading)
    body: dict[str, Any] = {
        "ident": call.dataset.ident,
        "column": line.column,
        "merge": line.merge,
        **{name: found.axis[name] for name in AXIS},
        "value": value,
        "state": state,
        "coverage": found.coverage.to_json(),
    }
    if call.values["compare"] is not None:
        assert isinstance(found, Range), "latest values are not compared"
        body |= _comparison(call, found, reading)
    if call.format == "json":
        return Answer(body, lifetime=found.lifetime)
    del body["coverage"]
    return Answer(table=Table(list(body), [list(body.values())]), lifetime=found.lifetime)


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


def amount(found: Range | LatestRows, reading: Reading) -> tuple[Number, str]:
    """The number of a whole range, and whether all of it is covered."""
    whole, line = found.whole, reading.lines[0]
    numbers = reading.in_buckets(whole.parts).get(0)
    state = whole.states[0]
    if numbers is not None:
        return numbers[0], PARTIAL if state == MISSING else state
    return (0 if line.is_zero and state != MISSING else None), state


def _comparison(call: Call, found: Range, reading: Reading) -> dict[str, Any]:
    """What the number was before, and by which part of that it has changed."""
    both = comparison.compare(call, found)
    if both is None:
        return dict.fromkeys(COMPARISON) | {"previous_state": MISSING}
    (value, _), (previous, state) = (amount(each, reading) for each in both)
    ends = (end for each in both for end in (each.buckets.start, each.buckets.stop))
    change = comparison.change(value, previous)
    return dict(zip(COMPARISON, (value, previous, state, change, *ends), strict=True))


MERGE_SCHEMA = {
    "enum": [*RULES, COUNT],
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
        readings.COUNTED,
        comparison.COMPARE,
    ),
    filterable=True,
    formats=("json", "csv", "ndjson"),
    state=comparison.state,
    steps=ranges.steps,
    schema=_schema,
    example="?start=-1d&compare=previous",
)
