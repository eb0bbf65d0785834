"""The hours of a week: 168 cells, from Monday at midnight on, of a range in a time zone.

What clocks show is the same between two changes of the clocks, so the cell of a row is computed
from its time: an answer has 168 cells for a range of any length. An hour that clocks show twice
counts in its cell twice, one that they leave out does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from statscache.app.charts import ranges, sources
from statscache.app.charts.calendar import WEEK, WEEKS, Buckets, Calendar, Piece, Resolution, spans
from statscache.app.charts.joined import CELLS
from statscache.app.charts.lines import MISSING, PARTIAL
from statscache.app.charts.ranges import Range
from statscache.app.charts.sources import Part, SourceTable, Unfit
from statscache.app.dispatch.route import Call
from statscache.app.http import parameters
from statscache.app.http.answer import Lifetime
from statscache.app.http.parameters import Kind
from statscache.app.state.coverage import Coverage
from statscache.plugins.installed.discovery import Dataset
from statscache.times import HOUR

HOUR_OF_WEEK = Resolution("hour-of-week", HOUR)

DEFAULT_SPAN = 12 * WEEK
"""Seconds before its end at which a range starts, where the query does not say so."""

WEEKDAY, HOUR_OF_DAY = "weekday", "hour"


def suits(dataset: Dataset) -> bool:
    """Whether there are rows that lie within one hour each."""
    widths = (table.width for table in dataset.declared_tables)
    return any(width is not None and HOUR % width == 0 for width in widths)


def resolution_kind(dataset: Dataset) -> Kind:
    """A resolution of buckets, or the hours of a week."""
    return ranges.resolution_kind(dataset, *([HOUR_OF_WEEK] if suits(dataset) else []))


@dataclass(frozen=True)
class PunchCard:
    """The cells of a range.

    Attributes:
        whole: the range as one bucket, of the only table that is read.
        spans: of the range in which clocks are not changed: start, stop, and the seconds by which
            clocks are ahead of UTC.
    """

    whole: Range
    spans: Sequence[tuple[int, int, int]]

    count = CELLS
    """How many buckets there are."""

    @property
    def _source(self) -> SourceTable:
        return self.whole.sources[0]

    @property
    def parts(self) -> list[Part]:
        """What to read."""
        pieces = [Piece(start, stop, ahead) for start, stop, ahead in self.spans]
        return [Part(self._source, pieces, is_by_hour_of_week=True)]

    @property
    def axis(self) -> dict[str, Any]:
        """What tells the cells, for JSON."""
        cells = range(CELLS)
        return {
            "resolution": HOUR_OF_WEEK.name,
            "tz": self.whole.tz,
            "label": "start",
            "start": self.whole.buckets.start,
            "stop": self.whole.buckets.stop,
            "times": None,
            "weekdays": [cell // 24 for cell in cells],
            "hours": [cell % 24 for cell in cells],
        }

    @property
    def labels(self) -> Mapping[str, Sequence[int]]:
        """What tells the cells, for CSV: by the name of the column."""
        axis = self.axis
        return {"_weekday": axis["weekdays"], "_hour": axis["hours"]}

    @cached_property
    def states(self) -> list[str]:
        """Of each cell: that of the whole range, and missing where none of its hours is covered."""
        (state,) = self.whole.states
        covered = _cells(self._covered())
        found = PARTIAL if state == MISSING else state
        return [found if cell in covered else MISSING for cell in range(CELLS)]

    @property
    def coverage(self) -> Coverage:
        """Of the table."""
        return self.whole.coverage

    @property
    def lifetime(self) -> Lifetime:
        """How long an answer may be kept."""
        return self.whole.lifetime

    def _covered(self) -> Iterator[tuple[int, int, int]]:
        """The spans, as far as they are covered, also by a row that is still open."""
        coverage = self._source.coverage
        since, until = coverage.since, coverage.until
        if since is None or until is None:
            return
        end = until + self._source.width if self._source.is_open else until
        starts = [since, *(stop for _, stop in coverage.gaps)]
        stops = [*(start for start, _ in coverage.gaps), end]
        for start, stop, ahead in self.spans:
            for first, last in zip(starts, stops, strict=True):
                if max(start, first) < min(stop, last):
                    yield int(max(start, first)), int(min(stop, last)), ahead


def _cells(covered: Iterable[tuple[int, int, int]]) -> set[int]:
    """The cells that have a second of some spans."""
    found: set[int] = set()
    for start, stop, ahead in covered:
        first, last = ((end + ahead - WEEKS.offset) // HOUR for end in (start, stop - 1))
        found.update(hour % CELLS for hour in range(first, min(last, first + CELLS) + 1))
        if len(found) == CELLS:
            break
    return found


def resolve(call: Call) -> PunchCard:
    """The cells of the range that ``call`` asks for.

    Raises:
        Problem: it is empty, or cannot be made of what is stored.
    """
    dataset, zone = call.dataset, call.values["tz"]
    if call.values["points"] is not None:
        parameters.refuse(
            "points", f"does not go with resolution={HOUR_OF_WEEK.name}, which has {CELLS} cells"
        )
    calendar = Calendar(HOUR_OF_WEEK, zone)
    start, stop = (int(calendar.floor(end)) for end in ranges.ends_of(call.values, DEFAULT_SPAN))
    if start >= stop:
        raise ranges.empty(calendar)
    steps = ranges.steps(dataset, call.values)
    tables = sources.tables(call.installed, dataset, call.snapshot, steps)
    found = list(spans(zone, start, stop))
    fitting = [table for table in tables if HOUR % table.width == 0 and _fits(table, found)]
    buckets = Buckets((Piece(start, stop, 0),), 1)
    for table in sources.complete(fitting, start, stop):
        try:
            whole = Range(calendar, buckets, [table], sources.divide(buckets, [table]))
        except Unfit:
            continue
        return PunchCard(whole, found)
    raise parameters.problem(
        "tz",
        f"has hours that begin or end within rows of {tables[-1].dataset.ident}, the narrowest "
        "that there are: ask for a time zone whose hours are made of them",
    )


def _fits(table: SourceTable, found: Iterable[tuple[int, int, int]]) -> bool:
    """Whether each row lies within one hour of what clocks show."""
    return all(
        (ahead + table.offset) % table.width == 0 == (start - table.offset) % table.width
        for start, _, ahead in found
    )
