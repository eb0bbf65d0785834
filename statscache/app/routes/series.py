"""Numbers over time, ready to be drawn: ``/api/<ident>/series``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from statscache.app.charts import punch_card, ranges, readings, sources
from statscache.app.charts.lines import (
    COMPLETE,
    MISSING,
    NULL,
    PARTIAL,
    PREVIOUS,
    QUANTILE,
    ZERO,
    Line,
    Number,
    Numbers,
    Reading,
    filled,
    plain,
)
from statscache.app.charts.punch_card import HOUR_OF_WEEK, PunchCard
from statscache.app.charts.ranges import Range
from statscache.app.dispatch import rankings
from statscache.app.dispatch.route import Call, Route
from statscache.app.http import parameters
from statscache.app.http.answer import Answer, Table
from statscache.app.http.parameters import Parameter
from statscache.app.http.problems import Problem
from statscache.app.state import coverage
from statscache.plugins.installed.discovery import Dataset
from statscache.plugins.merges import RULES, merged_in_order

DEFAULT_BUCKETS = 100
MOST_SERIES = 100
MOST_CELLS = 50_000
"""Buckets times series of one answer."""

REST = "other"
"""The name of the series of all that is not among the top."""

STATE = "_state"
"""The column of CSV that says whether a bucket is complete; no column of an aggregate begins so."""


@dataclass(frozen=True)
class Group:
    """The numbers of one key.

    Attributes:
        key: of the column that tells series apart; None where none does, and of the rest.
        name: for a legend; None is that of the line.
        found: of the buckets that have rows, by number: one of each line.
        totals: of the whole range, one of each line, where those of buckets do not make them.
    """

    key: Any
    name: str | None
    found: Mapping[int, Numbers]
    totals: Numbers | None = None


def answer(call: Call) -> Answer:
    """The series of a range."""
    by = _by(call.dataset, call.values)
    reading = readings.reading_of(call, by)
    if call.values["top"] is not None:
        assert by is not None, "without keys there is no top"
        rankings.check_ranking(call, by, "top")
    found = _resolve(call)
    check_cells(found.count, len(reading.lines))
    groups = _groups(call, found, reading)
    counted = {number for group in groups for number in group.found}
    chart = Chart(call, found, reading, groups, counted)
    if call.format == "json":
        return Answer(chart.to_json(), lifetime=found.lifetime)
    return Answer(table=chart.to_table(), lifetime=found.lifetime)


def _resolve(call: Call) -> Range | PunchCard:
    if call.values["resolution"] is HOUR_OF_WEEK:
        return punch_card.resolve(call)
    count = call.values["points"] or DEFAULT_BUCKETS
    return ranges.resolve(call, lambda resolution: count * resolution.width)


def _by(dataset: Dataset, values: Mapping[str, Any]) -> str | None:
    """The column that tells series apart: the first key where only their number is said."""
    by: str | None = values["by"]
    if by is None and values["top"] is not None:
        return sources.keys(dataset)[0]
    return by


def _groups(call: Call, found: Range | PunchCard, reading: Reading) -> list[Group]:
    by, top = _by(call.dataset, call.values), call.values["top"]
    whole = found.whole.parts
    if by is None:
        totals = None if reading.joins_buckets else reading.in_buckets(whole).get(0)
        return [Group(None, None, reading.in_buckets(found.parts), totals)]
    if top is not None:
        ranked, count = reading.ranking(whole, by, top)
        keys = [key for key, _ in ranked]
    else:
        keys = reading.keys(whole, by, MOST_SERIES + 1)
        count = len(keys)
        if count > MOST_SERIES:
            reason = f"makes more than {MOST_SERIES} series: say top, or filter by {by}"
            parameters.refuse("by", reason)
    check_cells(found.count, len(reading.lines) * (len(keys) + 1))
    by_key: dict[Any, dict[int, Numbers]] = {key: {} for key in keys}
    for (number, key), numbers in reading.in_buckets_by_key(found.parts, by, keys).items():
        by_key[key][number] = numbers
    of_all = {} if reading.joins_buckets else reading.in_buckets_by_key(whole, by, keys)
    groups = [
        Group(key, str(key), numbers, of_all.get((0, key))) for key, numbers in by_key.items()
    ]
    if count > len(keys):
        rest = reading.in_buckets(found.parts, without=(by, keys))
        totals = None if reading.joins_buckets else reading.in_buckets(whole, (by, keys)).get(0)
        groups.append(Group(None, REST, rest, totals))
    return groups


def check_cells(buckets: int, series: int) -> None:
    """Refuse more numbers than one answer may have.

    Raises:
        Problem: a 400.
    """
    if buckets * series > MOST_CELLS:
        raise Problem(
            400,
            f"{series} series of {buckets} buckets are more than {MOST_CELLS} numbers: ask for a "
            "wider resolution, for fewer series (top, select) or for less time",
        )


@dataclass(frozen=True)
class Chart:
    """What is answered.

    Attributes:
        call: that asked.
        range: of time.
        reading: of the numbers.
        groups: one per key.
        counted: the numbers of the buckets that have rows, of whatever key.
    """

    call: Call
    range: Range | PunchCard
    reading: Reading
    groups: Sequence[Group]
    counted: set[int]

    def to_json(self) -> dict[str, Any]:
        """As JSON: an array of times, and an array of numbers per series."""
        found, by, states = self.range, _by(self.call.dataset, self.call.values), self.states
        return {
            "ident": self.call.dataset.ident,
            "by": by,
            **self.reading.details,
            **found.axis,
            "series": [
                {
                    "name": self._name(group, line),
                    "key": None if group.key is None else {by: group.key},
                    "column": line.column,
                    **({} if line.quantile is None else {QUANTILE: float(line.quantile)}),
                    "total": self._total(group, place),
                    "values": self.values(group, place),
                }
                for group in self.groups
                for place, line in enumerate(self.reading.lines)
            ],
            PARTIAL: [number for number, state in enumerate(states) if state == PARTIAL],
            MISSING: [number for number, state in enumerate(states) if state == MISSING],
            "coverage": found.coverage.to_json(),
        }

    def to_table(self) -> Table:
        """As rows like those of the dataset: one per bucket and key, with the state."""
        by = _by(self.call.dataset, self.call.values)
        headings = [line.heading for line in self.reading.lines]
        columns = [*self.range.labels, *([] if by is None else [by]), *headings, STATE]
        return Table(columns, self._rows(has_key=by is not None))

    def _rows(self, *, has_key: bool) -> Iterator[tuple[Any, ...]]:
        labels, states = zip(*self.range.labels.values(), strict=True), self.states
        lines = [
            (group, [self.values(group, place) for place in range(len(self.reading.lines))])
            for group in self.groups
        ]
        # Empty cells are keys too. NDJSON tells a key that is called so from the rest by null.
        rest = REST if self.call.format == "csv" else None
        for number, label in enumerate(labels):
            for group, values in lines:
                key = (rest if group.key is None else group.key,) if has_key else ()
                yield (*label, *key, *(line[number] for line in values), states[number])

    @property
    def states(self) -> list[str]:
        """Of each bucket; one that is not covered but has rows is not missing."""
        return [
            PARTIAL if state == MISSING and number in self.counted else state
            for number, state in enumerate(self.range.states)
        ]

    def values(self, group: Group, place: int) -> list[Number]:
        """The numbers of all buckets: without rows, null where they are not covered."""
        found = {number: numbers[place] for number, numbers in group.found.items()}
        return filled(self.reading.lines[place], found, self.range.states, self.call.values["fill"])

    def _total(self, group: Group, place: int) -> Number:
        """The number of the whole range."""
        line = self.reading.lines[place]
        total = None
        if group.totals is not None:
            total = group.totals[place]
        elif group.found and line.merge in RULES:
            numbers = (group.found[number][place] for number in sorted(group.found))
            total = plain(merged_in_order(line.merge, numbers))
        if (
            total is None
            and line.is_zero
            and not group.found
            and set(self.range.states) != {MISSING}
        ):
            return 0
        return total

    def _name(self, group: Group, line: Line) -> str:
        if group.name is None:
            return line.name
        return group.name if len(self.reading.lines) == 1 else f"{group.name} {line.name}"


def _schema(_dataset: Dataset) -> Mapping[str, Any]:
    numbers = {"type": "array", "items": {"type": ["number", "null"]}}
    places = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    return {
        "type": "object",
        "properties": {
            "ident": {"type": "string"},
            "by": {"type": ["string", "null"]},
            **readings.DETAILS_SCHEMA,
            "resolution": {"type": "string"},
            "tz": {"type": "string"},
            "label": {"const": "start"},
            "start": {"type": "integer"},
            "stop": {"type": "integer"},
            "times": {
                "type": ["array", "null"],
                "items": {"type": "integer"},
                "description": "The start of each bucket, UNIX seconds; null for hours of the "
                "week.",
            },
            "weekdays": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": 6},
                "description": "Of each hour of the week; 0 is Monday.",
            },
            "hours": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": 23},
                "description": "Of each hour of the week.",
            },
            "series": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "key": {"type": ["object", "null"]},
                        "column": {"type": "string"},
                        QUANTILE: {"type": "number"},
                        "total": {"type": ["number", "null"]},
                        "values": numbers,
                    },
                    "required": ["name", "key", "column", "total", "values"],
                    "additionalProperties": False,
                },
            },
            PARTIAL: places
            | {"description": "Which buckets are not counted to their ends, from 0 on."},
            MISSING: places | {"description": "Of which buckets nobody knows; they are null."},
            "coverage": coverage.SCHEMA,
        },
        "required": [
            *("ident", "by", "resolution", "tz", "label", "start", "stop", "times", "series"),
            *(PARTIAL, MISSING, "coverage"),
        ],
        "additionalProperties": False,
    }


ROUTE = Route(
    rule="/api/<ident>/series",
    name="series",
    summary="Numbers over time, ready to be drawn.",
    description=(
        "One array of times, and an array of numbers for each series. A bucket in which nothing "
        "happened is 0; one of which nobody knows is null, and listed as missing; one that is "
        "still open, or was counted in part, is listed as partial. Days, weeks, months and years "
        "are those of the time zone, to the second. As CSV or NDJSON there is one row per bucket "
        f"and key, with the column {STATE}: {COMPLETE}, {PARTIAL} or {MISSING}."
    ),
    answer=answer,
    lists=lambda dataset, said: filter(None, (_by(dataset, said),)),
    applies=ranges.has_buckets,
    parameters=(
        ranges.START,
        ranges.STOP,
        replace(
            ranges.RESOLUTION,
            kind=punch_card.resolution_kind,
            summary="The width of the buckets; that of the ident where it is not said. "
            f"{HOUR_OF_WEEK.name} is the 168 hours of a week.",
        ),
        ranges.POINTS,
        ranges.TZ,
        Parameter("by", ranges.key_kind, "A series for each value of this column."),
        Parameter(
            "top",
            ranges.keys_kind(MOST_SERIES),
            f"Only so many series, the largest in this range, and one of the rest, '{REST}': by "
            "the first key where by is not said.",
        ),
        ranges.SELECT,
        *readings.PARAMETERS,
        Parameter(
            "fill",
            parameters.choice(ZERO, NULL, PREVIOUS),
            "What stands for a bucket in which nothing happened: 0 (the default for columns that "
            "are added up), null (for others), or the number before it.",
        ),
    ),
    filterable=True,
    formats=("json", "csv", "ndjson"),
    state=ranges.state,
    steps=ranges.steps,
    schema=_schema,
    example="?start=-1d",
)
