"""One number for a range, and what it was before: ``/api/<ident>/summary``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from statscache.app.charts import comparison, ranges
from statscache.app.charts.aggregation import Aggregation, Number
from statscache.app.charts.calendar import Resolution
from statscache.app.charts.ranges import MISSING, PARTIAL, STATE_SCHEMA, Range
from statscache.app.charts.sources import Measure
from statscache.app.dispatch.route import Call, Route, no_people
from statscache.app.http import parameters
from statscache.app.http.answer import Answer, Table
from statscache.app.http.parameters import Parameter
from statscache.app.state import coverage
from statscache.app.state.revisions import Snapshot
from statscache.plugins.installed.discovery import Dataset
from statscache.plugins.merges import RULES
from statscache.times import DAY

DEFAULT_SPAN = 30 * DAY

COMPARISON = (
    *("compared", "previous", "previous_state", "change"),
    *("compared_start", "compared_stop", "previous_start", "previous_stop"),
)
"""What is said of a comparison, in this order."""


def default_span(resolution: Resolution) -> float:
    """How long the range is if its start is not said, in seconds."""
    # No more than may be asked for.
    longest = (ranges.MOST_BUCKETS - 1) * resolution.width
    return max(resolution.width, min(DEFAULT_SPAN, longest))


def answer(call: Call) -> Answer:
    """The number of a range."""
    measure = ranges.measures(call)[0]
    found = ranges.resolve(call, default_span)
    ranges.check_merging(call, found)
    aggregation = Aggregation(call.connection, call.filters, [measure])
    value, state = amount(found, aggregation, measure)
    body: dict[str, Any] = {
        "ident": call.dataset.ident,
        "column": measure.name,
        "merge": measure.merge,
        "resolution": found.calendar.resolution.name,
        "tz": found.tz,
        "start": found.buckets.start,
        "stop": found.buckets.stop,
        "value": value,
        "state": state,
        "coverage": found.coverage.to_json(),
    }
    if call.values["compare"] is not None:
        body |= _comparison(call, found, aggregation, measure)
    if call.format == "json":
        return Answer(body, lifetime=found.lifetime)
    del body["coverage"]
    return Answer(table=Table(list(body), [list(body.values())]), lifetime=found.lifetime)


def amount(found: Range, aggregation: Aggregation, measure: Measure) -> tuple[Number, str]:
    """The number of a whole range, and whether all of it is covered."""
    whole = found.whole
    numbers = aggregation.in_buckets(whole.parts).get(0)
    state = whole.states[0]
    if numbers is not None:
        return numbers[0], PARTIAL if state == MISSING else state
    return (0 if measure.rule.adds_up and state != MISSING else None), state


def _comparison(
    call: Call, found: Range, aggregation: Aggregation, measure: Measure
) -> dict[str, Any]:
    """What the number was before, and by which part of that it has changed."""
    both = comparison.compare(call, found)
    if both is None:
        return dict.fromkeys(COMPARISON) | {"previous_state": MISSING}
    (value, _), (previous, state) = (amount(each, aggregation, measure) for each in both)
    change = None
    if value is not None and previous:
        change = (value - previous) / abs(previous)
    ends = (end for each in both for end in (each.buckets.start, each.buckets.stop))
    return dict(zip(COMPARISON, (value, previous, state, change, *ends), strict=True))


def _state(call: Call, snapshot: Snapshot) -> Hashable:
    known = ranges.state(call, snapshot)
    if call.values["compare"] is None:
        return known
    return known, comparison.state(call, snapshot)


def _schema(_dataset: Dataset) -> Mapping[str, Any]:
    number, moment = {"type": ["number", "null"]}, {"type": ["integer", "null"]}
    return {
        "type": "object",
        "properties": {
            "ident": {"type": "string"},
            "column": {"type": "string", "description": "What the number is of."},
            "merge": {"enum": list(RULES)},
            "resolution": {"type": "string"},
            "tz": {"type": "string"},
            "start": {"type": "integer"},
            "stop": {"type": "integer"},
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
    applies=ranges.merges,
    parameters=(
        ranges.START,
        ranges.STOP,
        ranges.RESOLUTION,
        ranges.TZ,
        ranges.COLUMN,
        Parameter(
            "compare",
            parameters.choice(comparison.PREVIOUS, comparison.YEAR),
            "Also the number of the range of the same length before it, or of a year before.",
            example=comparison.PREVIOUS,
        ),
    ),
    filterable=True,
    formats=("json", "csv", "ndjson"),
    state=_state,
    steps=ranges.steps,
    schema=_schema,
    example="?start=-1d&compare=previous",
)
