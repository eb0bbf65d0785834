"""The range of a chart: which buckets, of what time zone, made of which tables.

``series``, ``summary`` and ``top`` read ranges alike. A range is made of whole buckets: ``start``
and ``stop`` are rounded down to the start of the bucket that they are in, so that ranges that
follow each other share none, and add up. Only ``now`` is the end of its bucket, as start and as
stop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any
from zoneinfo import ZoneInfo

from statscache.app.charts import sources
from statscache.app.charts.calendar import (
    LAST_YEAR,
    Buckets,
    Calendar,
    Resolution,
    TooManyBuckets,
    fixed,
    resolutions,
    time_zone,
)
from statscache.app.charts.lines import COMPLETE, COUNT, MISSING, PARTIAL
from statscache.app.charts.sources import Measure, Part, SourceTable, Unfit
from statscache.app.dispatch.route import Call
from statscache.app.http import parameters, times
from statscache.app.http.answer import Lifetime
from statscache.app.http.parameters import Kind, Parameter
from statscache.app.http.problems import Problem
from statscache.app.state import coverage
from statscache.app.state.coverage import Coverage
from statscache.app.state.revisions import Snapshot
from statscache.app.state.steps import MINUTES, Open, Steps
from statscache.plugins.installed.discovery import Dataset

MOST_BUCKETS = 10_000
"""Of one answer."""

STATE_SCHEMA = {
    "enum": [COMPLETE, PARTIAL, MISSING],
    "description": "Whether all of the time is covered, a part of it (it may still be open), or "
    "nothing; what is missing is null, and not zero.",
}

_UTC = "UTC"
_ZONE_EXAMPLES = (("Asia/Kolkata", 30 * 60), ("Europe/Berlin", 60 * 60))
"""Zones for examples, and the width of the rows that their days can be made of, in seconds."""

_LATEST_WITH_ZONE = datetime(LAST_YEAR, 1, 1, tzinfo=UTC).timestamp()


def resolution_kind(dataset: Dataset, *others: Resolution) -> Kind:
    """A resolution that the rows of ``dataset`` make, or one of ``others``."""
    known = {**_resolutions(dataset), **{each.name: each for each in others}}

    def parse(name: str, text: str) -> Resolution:
        if not known:
            parameters.refuse(name, f"cannot be had: {_unbucketed(dataset)}", ())
        if text not in known:
            reason = f"must be one of {', '.join(known)}, which the rows can give, not {text!r:.80}"
            parameters.refuse(name, reason, known)
        return known[text]

    return Kind(parse, {"type": "string", "enum": list(known)}, lambda value: str(value.name))


def _zone(name: str, text: str) -> ZoneInfo | None:
    try:
        return time_zone(text)
    except ValueError as error:
        parameters.refuse(name, f"{error}, not {text!r:.80}")


def _zone_example(dataset: Dataset) -> str:
    """A zone whose days can be made of the rows: UTC where windows cannot be merged."""
    if not has_buckets(dataset):
        return _ZONE_EXAMPLES[0][0]
    if dataset.is_classic:
        return _UTC
    finest = min(table.width for table in dataset.declared_tables if table.width)
    return next((name for name, width in _ZONE_EXAMPLES if width % finest == 0), _UTC)


def _measures_kind(dataset: Dataset) -> Kind:
    return parameters.names(*(measure.name for measure in sources.measures(dataset)))


def _measure_kind(dataset: Dataset) -> Kind:
    return parameters.choice(*(measure.name for measure in sources.measures(dataset)))


def key_kind(dataset: Dataset) -> Kind:
    """One of the columns that tell the rows of a bucket apart."""
    keys = sources.keys(dataset)
    return parameters.choice(*keys) if keys else nothing_apart(dataset)


def keys_kind(most: int) -> Callable[[Dataset], Kind]:
    """How many keys, ``most`` at most, of a dataset that has any."""
    number = parameters.number(1, most)
    return lambda dataset: number if sources.keys(dataset) else nothing_apart(dataset)


def nothing_apart(dataset: Dataset) -> Kind:
    """Of a parameter that takes the name of a key: refuses all, because there is none."""

    def parse(name: str, text: str) -> str:
        parameters.refuse(name, f"cannot be had: {dataset.ident} has nothing to tell apart", ())

    return Kind(parse, {"type": "string", "enum": []})


RESOLUTION = Parameter(
    "resolution",
    resolution_kind,
    "The width of the buckets; that of the ident where it is not said.",
    example="week",
)
TZ = Parameter(
    "tz",
    Kind(_zone, {"type": "string", "minLength": 1, "maxLength": 64}, lambda zone: str(zone.key)),
    "The time zone of hours, days, weeks, months and years, and of dates without one; else UTC.",
    example=_ZONE_EXAMPLES[0][0],
    example_of=_zone_example,
)
# Of the finest resolutions there would be too many buckets in a week.
START = replace(parameters.START, summary="From the bucket on that this time is in.", example="-1d")
STOP = Parameter(
    "stop",
    parameters.TIME,
    "Up to the bucket that this time is in, without it; up to now where it is not said, with the "
    "bucket that is still open.",
    times.NOW,
    example="now",
)
POINTS = Parameter(
    "points",
    parameters.number(1, MOST_BUCKETS),
    "The finest resolution that makes at most so many buckets; none that is finer than "
    "resolution, where that is said.",
    example="300",
    # A day may have more of the windows that cannot be merged.
    suits=lambda dataset: merges(dataset),
)
SELECT = Parameter(
    "select", _measures_kind, "Only these columns of numbers, comma separated, in this order."
)
COLUMN = Parameter(
    "select", _measure_kind, "Which column of numbers; the first where it is not said."
)


@dataclass(frozen=True)
class Range:
    """What a chart is of.

    Attributes:
        calendar: that made the buckets.
        buckets: of the range.
        sources: the tables of the plugin, the widest rows first.
        parts: what to read from them.
    """

    calendar: Calendar
    buckets: Buckets
    sources: Sequence[SourceTable]
    parts: Sequence[Part]

    @property
    def tz(self) -> str:
        """The name of the time zone."""
        return "UTC" if self.calendar.zone is None else self.calendar.zone.key

    @property
    def count(self) -> int:
        """How many buckets there are."""
        return self.buckets.count

    @property
    def axis(self) -> dict[str, Any]:
        """What tells the buckets, for JSON."""
        return {
            "resolution": self.calendar.resolution.name,
            "tz": self.tz,
            "label": "start",
            "start": self.buckets.start,
            "stop": self.buckets.stop,
            "times": self.buckets.starts,
        }

    @property
    def labels(self) -> Mapping[str, Sequence[int]]:
        """What tells the buckets, for CSV: by the name of the column."""
        return {"timestamp": self.buckets.starts}

    @property
    def whole(self) -> Range:
        """The same time as one bucket."""
        return self.with_buckets(Buckets(self.buckets.whole, 1))

    @property
    def needs_merging(self) -> bool:
        """Whether a bucket is made of several rows of one key."""
        return (
            any(
                stop - start > part.source.width
                for part in self.parts
                for start, stop, _ in part.pieces
            )
            or sum(len(part.pieces) for part in self.parts) > self.buckets.count
        )

    @cached_property
    def states(self) -> list[str]:
        """Of each bucket, whether its time is covered."""
        lacking: set[int] = set()
        touched: set[int] = set()
        for part in self.parts:
            source, pieces = part.source, part.pieces
            if source.coverage.covers(pieces[0].start, pieces[-1].stop):
                touched.update(piece.number for piece in pieces)
                continue
            for start, stop, number in pieces:
                if source.coverage.covers(start, stop):
                    touched.add(number)
                else:
                    lacking.add(number)
                    if source.touches(start, stop):
                        touched.add(number)
        return [
            MISSING if number not in touched else PARTIAL if number in lacking else COMPLETE
            for number in range(self.buckets.count)
        ]

    @property
    def coverage(self) -> Coverage:
        """Of the table that lacks most of the range."""
        start, stop = self.buckets.start, self.buckets.stop
        used = [part.source.coverage for part in self.parts]
        return min(used, key=lambda coverage: coverage.covered(start, stop))

    @property
    def lifetime(self) -> Lifetime:
        """How long an answer may be kept."""
        reconciled = [part.source.coverage.reconciled_until for part in self.parts]
        if any(until is None or until < self.buckets.stop for until in reconciled):
            return Lifetime.OPEN
        return Lifetime.RECONCILED

    def with_buckets(self, buckets: Buckets) -> Range:
        """A range of other buckets, of the same tables."""
        return Range(self.calendar, buckets, self.sources, sources.divide(buckets, self.sources))


@dataclass(frozen=True)
class RangeSteps:
    """What the present is rounded down to, and the buckets of which one is open.

    Attributes:
        calendar: of the steps: the finer of the widths of the ident and of the buckets.
        buckets: None where their width is yet to be chosen.
    """

    calendar: Calendar
    buckets: Calendar | None

    def floor(self, moment: float) -> float:
        """The start of the step that ``moment`` is in."""
        return self.calendar.floor(moment)

    def after(self, moment: float) -> float:
        """The start of the next step."""
        return self.calendar.after(moment)

    def end(self, moment: float) -> float:
        """The end of the bucket that is open."""
        if self.buckets is None:
            return Open(self.calendar.after(moment))
        return self.buckets.after(moment)


def steps(dataset: Dataset | None, values: Mapping[str, Any]) -> Steps:
    """What the present is rounded down to: the finer of the widths of the ident and the buckets."""
    if dataset is None or dataset.schedule is None:
        return MINUTES
    own, zone = _own(dataset), values.get("tz")
    wanted = values.get("resolution") or own
    finer = min(own, wanted, key=lambda resolution: resolution.width)
    is_chosen = values.get("points") is not None
    return RangeSteps(Calendar(finer, zone), None if is_chosen else Calendar(wanted, zone))


def state(call: Call, snapshot: Snapshot) -> Hashable:
    """Revisions and coverage of all the tables that an answer may be made of."""
    if call.dataset.schedule is None:
        return coverage.measure(snapshot, call.dataset.ident).floored(MINUTES)
    return sources.state(call.installed, call.dataset, snapshot, steps(call.dataset, call.values))


def has_buckets(dataset: Dataset) -> bool:
    """Whether there are numbers in buckets of time."""
    return dataset.schedule is not None and bool(sources.measures(dataset))


def merges(dataset: Dataset) -> bool:
    """Whether those of several buckets can become one."""
    return has_buckets(dataset) and not dataset.is_classic


def measures(call: Call) -> tuple[Measure, ...]:
    """The columns of numbers that the query selects, or all of them.

    Raises:
        Problem: there are none.
    """
    known = {measure.name: measure for measure in sources.measures(call.dataset)}
    if not known:
        ident = call.dataset.ident
        raise Problem(404, f"{ident} has no column of numbers; /api/{ident} has its rows")
    chosen = call.values["select"]
    if chosen is None:
        return tuple(known.values())
    return tuple(known[name] for name in ([chosen] if isinstance(chosen, str) else chosen))


def resolve(call: Call, default_span: Callable[[Resolution], float]) -> Range:
    """The range that ``call`` asks for.

    Args:
        default_span: seconds before its end at which it starts if the query does not say so.

    Raises:
        Problem: it is empty, has too many buckets, or cannot be made of what is stored.
    """
    dataset, values = call.dataset, call.values
    if dataset.schedule is None:
        raise Problem(404, _unbucketed(dataset))
    tables = sources.tables(call.installed, dataset, call.snapshot, steps(dataset, values))
    points, own = values.get("points"), _own(dataset)
    wanted = values["resolution"]
    candidates: Iterable[Resolution] = (wanted or own,)
    if points is not None:
        least = 0 if wanted is None else wanted.width
        candidates = (each for each in _resolutions(dataset).values() if each.width >= least)
    problem: Callable[[], Problem] | None = None
    for resolution in candidates:
        calendar = Calendar(resolution, values["tz"])
        between = ends_of(values, default_span(resolution if points is None else own))
        try:
            buckets = _buckets_between(calendar, between, points or MOST_BUCKETS)
            if not buckets.count:
                problem = partial(empty, calendar)
                continue
            found = Range(calendar, buckets, tables, sources.divide(buckets, tables))
            if _is_countable(call) or tables[-1].merges or not found.needs_merging:
                return found
            problem = partial(_unfit, dataset, calendar, between, tables)
        except TooManyBuckets:
            problem = partial(_too_many, dataset, calendar, between, points)
        except Unfit:
            problem = partial(_unfit, dataset, calendar, between, tables)
    assert problem is not None
    raise problem()


def check_merging(call: Call, found: Range) -> None:
    """Refuse to make one number of several windows that cannot be merged.

    Raises:
        Problem: a 400.
    """
    if found.buckets.count > 1 and not found.sources[-1].merges and not _is_countable(call):
        ident = call.dataset.ident
        reason = (
            f"and stop must be those of one window of {ident}, since its plugin does not say how "
            f"several are merged; /api/{ident}/series has them one by one"
        )
        keys = sources.keys(call.dataset)
        cure = f", and {COUNT}={keys[0]} counts the different ones of all of them" if keys else ""
        parameters.refuse("start", reason + cure)


def _is_countable(call: Call) -> bool:
    """Whether rows of several windows are one number, however their own numbers are merged."""
    return call.values.get(COUNT) is not None


def ends_of(values: Mapping[str, Any], default_span: float) -> tuple[float, float]:
    """Start and stop, as the query has them.

    Args:
        default_span: seconds before its end at which a range starts if the query does not say so.
    """
    start, stop = values["start"], values["stop"]
    if values["tz"] is not None and stop > _LATEST_WITH_ZONE:
        parameters.refuse("stop", f"is later than {LAST_YEAR}: no time zone is known so far ahead")
    if start is None:
        if stop <= 0:
            parameters.refuse("stop", "must be later than 1970, when times begin")
        start = max(0.0, stop - default_span)
    if start >= stop:
        parameters.refuse("start", "must be earlier than stop, which is now where it is not said")
    return start, stop


def _buckets_between(calendar: Calendar, ends: tuple[float, float], most: int) -> Buckets:
    """The buckets from that of the one end to before that of the other."""
    start, stop = (
        calendar.after(end - 1) if isinstance(end, Open) else calendar.floor(end) for end in ends
    )
    return calendar.between(start, stop, most)


def empty(calendar: Calendar) -> Problem:
    """That both ends of a range are in one bucket."""
    name = calendar.resolution.name
    return parameters.problem(
        "stop",
        f"is in the same bucket of {name} as start: both are rounded down to its start, and there "
        "is nothing between them; ask for a finer resolution, or for a later stop",
    )


def _too_many(
    dataset: Dataset, calendar: Calendar, ends: tuple[float, float], points: int | None
) -> Problem:
    name, span = calendar.resolution.name, ends[1] - ends[0]
    if points is not None:
        reason = f"is too small: this range has more buckets than that even by the {name}"
        return parameters.problem("points", reason)
    wider = [
        each.name for each in _resolutions(dataset).values() if span / each.width < MOST_BUCKETS - 1
    ]
    return parameters.problem(
        "resolution",
        f"makes more than {MOST_BUCKETS} buckets of {name} in this range: ask for wider ones, or "
        "for less",
        wider,
    )


def _unfit(
    dataset: Dataset, calendar: Calendar, ends: tuple[float, float], tables: Sequence[SourceTable]
) -> Problem:
    fitting = []
    for resolution in _resolutions(dataset).values():
        try:
            other = Calendar(resolution, calendar.zone)
            buckets = _buckets_between(other, ends, MOST_BUCKETS)
            if not buckets.count:
                continue
            found = Range(other, buckets, tables, sources.divide(buckets, tables))
            if tables[-1].merges or not found.needs_merging:
                fitting.append(resolution.name)
        except (TooManyBuckets, Unfit):
            continue
    if tables[-1].merges:
        reason = (
            f"cannot be had exactly: buckets of {calendar.resolution.name} begin or end within "
            f"rows of {tables[-1].dataset.ident}, the narrowest that there are"
        )
    else:
        reason = (
            f"cannot be had: {dataset.ident} has windows of UTC that stay as they are, since its "
            "plugin does not say how they are merged"
        )
    if fitting:
        reason += f"; these resolutions can: {', '.join(fitting)}"
    return parameters.problem("resolution" if calendar.zone is None else "tz", reason, fitting)


def _unbucketed(dataset: Dataset) -> str:
    ident = dataset.ident
    rows = f"{ident} is not counted in buckets of time: it has latest values or single entries"
    if dataset.is_classic:
        return f"{rows}, which /api/{ident} gives"
    return f"{rows}, which /api/{ident} gives, and /api/{ident}/summary and top sum up"


def _own(dataset: Dataset) -> Resolution:
    assert dataset.schedule is not None
    return fixed(int(dataset.schedule.interval.total_seconds()))


def _resolutions(dataset: Dataset) -> Mapping[str, Resolution]:
    """The resolutions that can be made of the tables of the plugin in UTC, the finest first."""
    if dataset.schedule is None:
        return {}
    if not dataset.is_classic:
        return resolutions([table.width for table in dataset.declared_tables if table.width])
    own = _own(dataset)
    return {own.name: own}
