"""The largest keys of a range: ``/api/<ident>/top``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statscache.app.charts import ranges, sources
from statscache.app.charts.aggregation import Aggregation
from statscache.app.charts.ranges import STATE_SCHEMA
from statscache.app.dispatch import rankings
from statscache.app.dispatch.route import Call, Route
from statscache.app.http import parameters
from statscache.app.http.answer import Answer, Table
from statscache.app.http.parameters import Parameter
from statscache.app.http.problems import Problem
from statscache.app.routes.summary import amount, default_span
from statscache.app.state import coverage
from statscache.plugins.installed.discovery import Dataset
from statscache.plugins.merges import RULES

DEFAULT_LIMIT = 10
MOST_KEYS = 1_000


def answer(call: Call) -> Answer:
    """The largest keys."""
    measure = ranges.measures(call)[0]
    found = ranges.resolve(call, default_span)
    ranges.check_merging(call, found)
    by = _by(call)
    rankings.check_ranking(call, by)
    aggregation = Aggregation(call.connection, call.filters, [measure])
    ranked, count = aggregation.ranking(found.whole.parts, by, call.values["limit"])
    total, state = amount(found, aggregation, measure)
    rows = []
    for key, value in ranked:
        share = value / total if measure.rule.adds_up and total and value is not None else None
        rows.append((key, value, share))
    if call.format != "json":
        return Answer(table=Table((by, measure.name, "_share"), rows), lifetime=found.lifetime)
    return Answer(
        {
            "ident": call.dataset.ident,
            "by": by,
            "column": measure.name,
            "merge": measure.merge,
            "resolution": found.calendar.resolution.name,
            "tz": found.tz,
            "start": found.buckets.start,
            "stop": found.buckets.stop,
            "top": [{"key": key, "value": value, "share": share} for key, value, share in rows],
            "keys": count,
            "total": total,
            "state": state,
            "coverage": found.coverage.to_json(),
        },
        lifetime=found.lifetime,
    )


def _by(call: Call) -> str:
    keys = sources.keys(call.dataset)
    if not keys:
        raise Problem(404, f"{call.dataset.ident} has no keys, of which some could be the largest")
    return call.values["by"] or keys[0]


def _schema(_dataset: Dataset) -> Mapping[str, Any]:
    number = {"type": ["number", "null"]}
    return {
        "type": "object",
        "properties": {
            "ident": {"type": "string"},
            "by": {"type": "string"},
            "column": {"type": "string"},
            "merge": {"enum": list(RULES)},
            "resolution": {"type": "string"},
            "tz": {"type": "string"},
            "start": {"type": "integer"},
            "stop": {"type": "integer"},
            "top": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": {"type": ["string", "integer"]},
                        "value": number,
                        "share": number | {"description": "Of the total, where numbers are added."},
                    },
                    "required": ["key", "value", "share"],
                    "additionalProperties": False,
                },
            },
            "keys": {"type": "integer", "description": "How many keys there are in this range."},
            "total": number | {"description": "Of all of them."},
            "state": STATE_SCHEMA,
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
    applies=lambda dataset: ranges.merges(dataset) and bool(sources.keys(dataset)),
    parameters=(
        ranges.START,
        ranges.STOP,
        ranges.RESOLUTION,
        ranges.TZ,
        Parameter("by", ranges.key_kind, "The column of the keys; the first where it is not said."),
        Parameter("limit", parameters.number(1, MOST_KEYS), "How many keys.", DEFAULT_LIMIT),
        ranges.COLUMN,
    ),
    filterable=True,
    formats=("json", "csv", "ndjson"),
    state=ranges.state,
    steps=ranges.steps,
    schema=_schema,
    example="?start=-1d&limit=5",
)
