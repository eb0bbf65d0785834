"""A number beside a project's name: JSON for shields.io's endpoint badge, ``/api/<ident>/badge``.

Who embeds it writes ``https://img.shields.io/endpoint?url=``, and this address, escaped; another
label or colour can be had there.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from statscache import people
from statscache.app.charts import ranges, readings, sources
from statscache.app.charts.lines import Number
from statscache.app.dispatch import known_names
from statscache.app.dispatch.route import Call, Route, all_people
from statscache.app.http.answer import Answer, Lifetime
from statscache.app.routes import summary
from statscache.app.state.row_reader import Span
from statscache.plugins.models import plain
from statscache.times import to_the_day

CACHE_SECONDS = 300
"""The least that shields.io keeps a badge for."""

LONGEST_LABEL = 60
"""Characters; what is beyond is cut off."""

KNOWN, UNKNOWN = "blue", "lightgrey"
"""Colours."""

_UNITS = ("k", "M", "G", "T", "P", "E")


def answer(call: Call) -> Answer:
    """The badge of a range, or of the newest row where there are no buckets."""
    read = _newest if call.dataset.schedule is None else _amount
    message, lifetime = read(call)
    body = {
        "schemaVersion": 1,
        "label": _label(call),
        "message": "unknown" if message is None else message,
        "color": UNKNOWN if message is None else KNOWN,
        "cacheSeconds": CACHE_SECONDS,
    }
    return Answer(body, lifetime=lifetime)


def _amount(call: Call) -> tuple[str | None, Lifetime]:
    """The number of a range: the last bucket that has ended, where none is asked for."""
    reading = readings.reading_of(call, most=1)
    if not {"start", "stop"} & call.given:
        call = replace(call, values={**call.values, "stop": call.now})
    found = ranges.resolve(call, lambda resolution: resolution.width)
    ranges.check_merging(call, found)
    value, _ = summary.amount(found, reading)
    return None if value is None else short(value), found.lifetime


def _newest(call: Call) -> tuple[str | None, Lifetime]:
    """The number of the newest row, or its date where it has none."""
    all_columns = replace(call.row_query, columns=None)
    rows = call.reader.page(call.transaction, all_columns, Span(1)).rows
    if not rows:
        return None, Lifetime.OPEN
    if not sources.measures(call.dataset):
        return to_the_day(plain(rows[0].timestamp)), Lifetime.OPEN
    return short(getattr(rows[0], ranges.measures(call)[0].name)), Lifetime.OPEN


def short(number: Number) -> str | None:
    """A number as it fits on a badge: ``1.2k``; None where it is none.

    At most three digits, and one behind the point where there is only one before it.
    """
    if number is None or not math.isfinite(number):
        return None
    if isinstance(number, int) and abs(number) < 1000:
        return str(number)
    scaled, unit = abs(number), ""
    for larger in _UNITS:
        # What would be rounded to a thousand is one of the next unit.
        if scaled < 999.5:
            break
        scaled, unit = scaled / 1000, larger
    if scaled >= 999.5:
        return f"{number:.1e}"
    digits = f"{scaled:.2g}" if scaled < 9.95 else f"{scaled:.0f}"
    sign = "-" if number < 0 and float(digits) else ""
    return f"{sign}{digits}{unit}"


def _label(call: Call) -> str:
    known = known_names.known(call, people.columns(call.dataset))
    names = [str(value) for one in known if not one.negated for value in one.values]
    text = str(call.dataset.plugin.name) + (f": {', '.join(names)}" if names else "")
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}\u2026"


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "schemaVersion": {"const": 1},
        "label": {"type": "string", "maxLength": LONGEST_LABEL},
        "message": {"type": "string", "description": "The number, such as 1.2k, or unknown."},
        "color": {"enum": [KNOWN, UNKNOWN]},
        "cacheSeconds": {"const": CACHE_SECONDS},
    },
    "required": ["schemaVersion", "label", "message", "color", "cacheSeconds"],
    "additionalProperties": False,
}

ROUTE = Route(
    rule="/api/<ident>/badge",
    name="badge",
    summary="A number as JSON for shields.io's endpoint badge.",
    description=(
        "Of the last bucket that has ended, or of a range; where there are no buckets of time, of "
        "the newest row. Embed it as https://img.shields.io/endpoint?url= and this address, "
        "escaped."
    ),
    answer=answer,
    # The newest row is of a person; a sum is not.
    lists=lambda dataset, said: all_people(dataset, said) if dataset.schedule is None else (),
    parameters=(
        # A day is one number where windows can be merged.
        replace(ranges.START, suits=lambda dataset: not dataset.is_classic),
        ranges.STOP,
        ranges.RESOLUTION,
        ranges.TZ,
        ranges.COLUMN,
        *readings.PARAMETERS,
    ),
    filterable=True,
    state=ranges.state,
    clock=True,
    steps=ranges.steps,
    schema=SCHEMA,
)
