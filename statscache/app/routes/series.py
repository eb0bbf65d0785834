"""Numbers over time, ready to be drawn: ``/api/<ident>/series``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from statscache.app.charts import ranges, sources
from statscache.app.charts.aggregation import Aggregation, Number, plain
from statscache.app.charts.ranges import COMPLETE, MISSING, PARTIAL, Range
from statscache.app.charts.sources import Measure
from statscache.app.dispatch import rankings
from statscache.app.dispatch.route import Call, Route
from statscache.app.http import parameters
from statscache.app.http.answer import Answer, Table
from statscache.app.http.parameters import Parameter
from statscache.app.http.problems import Problem
from statscache.app.state import coverage
from statscache.plugins.installed.discovery import Dataset
from statscache.plugins.merges import merged_in_order

DEFAULT_BUCKETS = 100
MOST_SERIES = 100
MOST_CELLS = 50_000
"""Buckets times series of one answer."""

REST = "other"
"""The name of the series of all that is not among the top."""

STATE = "_state"
"""The column of CSV that says whether a bucket is complete; no column of an aggregate begins so."""

ZERO, NULL, PREVIOUS = "zero", "null", "previous"


@dataclass(frozen=True)
class Group:
    """The numbers of one key.

    Attributes:
        key: of the column that tells series apart; None where none does, and of the rest.
        name: for a legend.
        found: of the buckets that have rows, by number: one of each measure.
    """

    key: Any
    name: str
    found: Mapping[int, tuple[Number, ...]]


def answer(call: Call) -> Answer:
    """The series of a range."""
    measures, by = ranges.measures(call), _by(call.dataset, call.values)
    if call.values["top"] is not None:
        assert by is not None, "without keys there is no top"
        rankings.check_ranking(call, by, "top")
    count = call.values["points"] or DEFAULT_BUCKETS
    found = ranges.resolve(call, lambda resolution: count * resolution.width)
    _check_cells(found, len(measures))
    groups = _groups(call, found, measures)
    counted = {number for group in groups for number in group.found}
    chart = Chart(call, found, measures, groups, counted)
    if call.format == "json":
        return Answer(chart.to_json(), lifetime=found.lifetime)
    return Answer(table=chart.to_table(), lifetime=found.lifetime)


def _by(dataset: Dataset, values: Mapping[str, Any]) -> str | None:
    """The column that tells series apart: the first key where only their number is said."""
    by: str | None = values["by"]
    if by is None and values["top"] is not None:
        return sources.keys(dataset)[0]
    return by


def _groups(call: Call, found: Range, measures: Sequence[Measure]) -> list[Group]:
    by, top = _by(call.dataset, call.values), call.values["top"]
    aggregation = Aggregation(call.connection, call.filters, measures)
    if by is None:
        return [Group(None, measures[0].name, aggregation.in_buckets(found.parts))]
    whole = found.whole.parts
    if top is not None:
        ranked, count = aggregation.ranking(whole, by, top)
        keys = [key for key, _ in ranked]
    else:
        keys = aggregation.keys(whole, by, MOST_SERIES + 1)
        count = len(keys)
        if count > MOST_SERIES:
            reason = f"makes more than {MOST_SERIES} series: say top, or filter by {by}"
            parameters.refuse("by", reason)
    _check_cells(found, len(measures) * (len(keys) + 1))
    by_key: dict[Any, dict[int, tuple[Number, ...]]] = {key: {} for key in keys}
    for (number, key), numbers in aggregation.in_buckets_by_key(found.parts, by, keys).items():
        by_key[key][number] = numbers
    groups = [Group(key, str(key), numbers) for key, numbers in by_key.items()]
    if count > len(keys):
        rest = aggregation.in_buckets(found.parts, without=(by, keys))
        groups.append(Group(None, REST, rest))
    return groups


def _check_cells(found: Range, series: int) -> None:
    buckets = found.buckets.count
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
        measures: the columns of numbers.
        groups: one per key.
        counted: the numbers of the buckets that have rows, of whatever key.
    """

    call: Call
    range: Range
    measures: Sequence[Measure]
    groups: Sequence[Group]
    counted: set[int]

    def to_json(self) -> dict[str, Any]:
        """As JSON: an array of times, and an array of numbers per series."""
        found, by = self.range, _by(self.call.dataset, self.call.values)
        buckets, states = found.buckets, self.states
        return {
            "ident": self.call.dataset.ident,
            "by": by,
            "resolution": found.calendar.resolution.name,
            "tz": found.tz,
            "label": "start",
            "start": buckets.start,
            "stop": buckets.stop,
            "times": buckets.starts,
            "series": [
                {
                    "name": self._name(group, measure),
                    "key": None if group.key is None else {by: group.key},
                    "column": measure.name,
                    "total": self._total(group, place),
                    "values": self.values(group, place),
                }
                for group in self.groups
                for place, measure in enumerate(self.measures)
            ],
            PARTIAL: [number for number, state in enumerate(states) if state == PARTIAL],
            MISSING: [number for number, state in enumerate(states) if state == MISSING],
            "coverage": found.coverage.to_json(),
        }

    def to_table(self) -> Table:
        """As rows like those of the dataset: one per bucket and key, with the state."""
        by = _by(self.call.dataset, self.call.values)
        names = [measure.name for measure in self.measures]
        columns = ["timestamp", *([] if by is None else [by]), *names, STATE]
        return Table(columns, self._rows(has_key=by is not None))

    def _rows(self, *, has_key: bool) -> Iterator[tuple[Any, ...]]:
        starts, states = self.range.buckets.starts, self.states
        lines = [
            (group, [self.values(group, place) for place in range(len(self.measures))])
            for group in self.groups
        ]
        # Empty cells are keys too. NDJSON tells a key that is called so from the rest by null.
        rest = REST if self.call.format == "csv" else None
        for number, start in enumerate(starts):
            for group, values in lines:
                key = (rest if group.key is None else group.key,) if has_key else ()
                yield (start, *key, *(line[number] for line in values), states[number])

    @property
    def states(self) -> list[str]:
        """Of each bucket; one that is not covered but has rows is not missing."""
        return [
            PARTIAL if state == MISSING and number in self.counted else state
            for number, state in enumerate(self.range.states)
        ]

    def values(self, group: Group, place: int) -> list[Number]:
        """The numbers of all buckets: without rows, null where they are not covered."""
        fill = self.call.values["fill"]
        if fill is None:
            # Nothing adds up to zero, but has neither a smallest nor a newest number.
            fill = ZERO if self.measures[place].rule.adds_up else NULL
        last: Number = None
        line: list[Number] = []
        for number, state in enumerate(self.range.states):
            numbers = group.found.get(number)
            if numbers is not None:
                last = numbers[place]
                line.append(last)
            elif state == MISSING or fill == NULL:
                line.append(None)
            else:
                line.append(0 if fill == ZERO else last)
        return line

    def _total(self, group: Group, place: int) -> Number:
        """The numbers of all buckets, merged to one."""
        measure = self.measures[place]
        numbers = (group.found[number][place] for number in sorted(group.found))
        total = plain(merged_in_order(measure.merge, numbers))
        if total is None and measure.rule.adds_up and set(self.range.states) != {MISSING}:
            return 0
        return total

    def _name(self, group: Group, measure: Measure) -> str:
        if len(self.measures) == 1:
            return group.name
        is_alone = _by(self.call.dataset, self.call.values) is None
        return measure.name if is_alone else f"{group.name} {measure.name}"


def _schema(_dataset: Dataset) -> Mapping[str, Any]:
    numbers = {"type": "array", "items": {"type": ["number", "null"]}}
    places = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    return {
        "type": "object",
        "properties": {
            "ident": {"type": "string"},
            "by": {"type": ["string", "null"]},
            "resolution": {"type": "string"},
            "tz": {"type": "string"},
            "label": {"const": "start"},
            "start": {"type": "integer"},
            "stop": {"type": "integer"},
            "times": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "The start of each bucket, UNIX seconds.",
            },
            "series": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "key": {"type": ["object", "null"]},
                        "column": {"type": "string"},
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
        ranges.RESOLUTION,
        Parameter(
            "points",
            parameters.number(1, ranges.MOST_BUCKETS),
            "The finest resolution that makes at most so many buckets; none that is finer than "
            "resolution, where that is said.",
            example="300",
            # A day may have more of the windows that cannot be merged.
            suits=ranges.merges,
        ),
        ranges.TZ,
        Parameter("by", ranges.key_kind, "A series for each value of this column."),
        Parameter(
            "top",
            ranges.keys_kind(MOST_SERIES),
            f"Only so many series, the largest in this range, and one of the rest, '{REST}': by "
            "the first key where by is not said.",
        ),
        ranges.SELECT,
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
