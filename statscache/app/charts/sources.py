"""Which tables of a plugin the buckets of an answer are made of.

A plugin keeps one statistic in tables of several widths. A bucket is made of whole rows: of the
widest that fit into it, and, at its ends, of narrower ones. So a month of Kolkata is made of thirty
rows of days, with some of hours and quarters of an hour at both ends. What cannot be
made of any table is refused, never estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import Column, Float, Integer, Numeric, String, Table, inspect

from statscache.app.charts.calendar import Buckets, Piece
from statscache.app.state import coverage
from statscache.app.state.coverage import Coverage
from statscache.app.state.revisions import Revision, Snapshot
from statscache.app.state.steps import Steps
from statscache.plugins.buckets import UNIX_EPOCH, ceiled, floored
from statscache.plugins.installed.discovery import Dataset, Installed
from statscache.plugins.merges import RULES, MergeRule


class Unfit(Exception):
    """Some edges of buckets lie inside the narrowest rows that there are."""


class Measure(NamedTuple):
    """A column of numbers, how two of them become one, and whether there may be none in a row.

    See ``Value.merge`` and ``Value.optional``.
    """

    name: str
    merge: str
    optional: bool = False

    @property
    def rule(self) -> MergeRule:
        """The rule that :attr:`merge` names."""
        return RULES[self.merge]


@dataclass(frozen=True)
class SourceTable:
    """A table of rows of one width.

    Attributes:
        dataset: what the table is served as.
        width: seconds that a row stands for; 0 of latest values.
        offset: seconds from 1970 to the start of a row's time.
        lag: seconds from there to the ``timestamp`` of the row.
        coverage: cut off at the last step that has ended.
        is_open: whether some of the step that follows has been counted.
    """

    dataset: Dataset
    width: int
    offset: int
    lag: int
    coverage: Coverage
    is_open: bool

    @property
    def merges(self) -> bool:
        """Whether rows of several windows can become one: whether it is known how."""
        return not self.dataset.is_classic

    @property
    def table(self) -> Table:
        """With the rows."""
        table: Table = self.dataset.model.__table__
        return table

    @property
    def timestamp(self) -> Column[Any]:
        """When the time of a row starts, but for :attr:`lag`."""
        return self.table.c.timestamp

    @cached_property
    def columns(self) -> Mapping[str, Column[Any]]:
        """The columns, by the names that clients see."""
        if not self.dataset.is_classic:
            return dict(self.table.c)
        return _attributes(self.dataset)

    def touches(self, start: int, stop: int) -> bool:
        """Whether a part of the time is covered."""
        if self.coverage.covered(start, stop) > 0:
            return True
        until = self.coverage.until
        return self.is_open and until is not None and start <= until < stop


class Part(NamedTuple):
    """Pieces of buckets that are made of the rows of one source.

    Attributes:
        source: with the rows.
        pieces: of time; none of a table of latest values.
        is_by_hour_of_week: whether each row is in the bucket of its hour of the week; the number of
            a piece is then the number of seconds by which clocks are ahead of UTC.
        between: of latest values those whose own time is between these; None is any.
    """

    source: SourceTable
    pieces: Sequence[Piece] = ()
    is_by_hour_of_week: bool = False
    between: tuple[float | None, float | None] = (None, None)


def tables(
    installed: Installed, dataset: Dataset, snapshot: Snapshot, steps: Steps
) -> list[SourceTable]:
    """The tables of the plugin of ``dataset``, the widest rows first; none without buckets.

    A wider table than that of ``dataset`` is left out if it was never written.

    Args:
        steps: at whose start coverage is cut off.
    """
    if dataset.schedule is None:
        return []
    found = []
    for each in _siblings(installed, dataset):
        assert each.schedule is not None
        is_wider = each.schedule.interval > dataset.schedule.interval
        if is_wider and each.ident not in snapshot.revisions:
            continue
        width = int(each.schedule.interval.total_seconds())
        offset = int((each.schedule.epoch - UNIX_EPOCH).total_seconds())
        lag = width if each.label == "end" else 0
        whole = coverage.measure(snapshot, each.ident)
        cut_off = whole.floored(steps)
        is_open = cut_off.until != whole.until
        found.append(SourceTable(each, width, offset, lag, cut_off, is_open))
    return sorted(found, key=lambda source: -source.width)


def state(
    installed: Installed, dataset: Dataset, snapshot: Snapshot, steps: Steps
) -> tuple[tuple[str, Revision | None, Coverage, bool], ...]:
    """All that an answer made of :func:`tables` depends on, besides the query."""
    return tuple(
        (
            source.dataset.ident,
            snapshot.revisions.get(source.dataset.ident),
            source.coverage,
            source.is_open,
        )
        for source in tables(installed, dataset, snapshot, steps)
    )


def divide(buckets: Buckets, sources: Sequence[SourceTable]) -> list[Part]:
    """What to read from which of ``sources``, so that all pieces of ``buckets`` are there once.

    Args:
        sources: the widest rows first.

    Raises:
        Unfit: the rows of no source end where the buckets do.
    """
    parts = []
    rest: Sequence[Piece] = buckets.pieces
    for source in complete(sources, buckets.start, buckets.stop):
        if not rest:
            break
        if max(piece.stop - piece.start for piece in rest) < source.width:
            continue
        inside, rest = _split(rest, source)
        if inside:
            parts.append(Part(source, inside))
    if rest:
        raise Unfit
    return parts


def _split(pieces: Iterable[Piece], source: SourceTable) -> tuple[list[Piece], list[Piece]]:
    """What of ``pieces`` is made of whole rows of ``source``, and what is not."""
    width, offset = source.width, source.offset
    inside, outside = [], []
    for piece in pieces:
        start = ceiled(piece.start, width, offset)
        stop = floored(piece.stop, width, offset)
        if start >= stop:
            outside.append(piece)
            continue
        inside.append(Piece(start, stop, piece.number))
        if piece.start < start:
            outside.append(Piece(piece.start, start, piece.number))
        if stop < piece.stop:
            outside.append(Piece(stop, piece.stop, piece.number))
    return inside, outside


def complete(sources: Sequence[SourceTable], start: int, stop: int) -> list[SourceTable]:
    """Those of ``sources`` of which no narrower one covers more of a time.

    A table that was added later begins later, and those of the narrowest rows are pruned first.
    """
    covered = [source.coverage.covered(start, stop) for source in sources]
    return [
        source
        for number, source in enumerate(sources)
        if all(covered[number] >= other for other in covered[number + 1 :])
    ]


def keys(dataset: Dataset) -> tuple[str, ...]:
    """The columns that tell the rows of one bucket apart."""
    if not dataset.is_classic:
        return tuple(key.name for key in dataset.keys)
    return tuple(
        name
        for name, column in _attributes(dataset).items()
        if isinstance(column.type, String) and name != "message"
    )


def measures(dataset: Dataset) -> tuple[Measure, ...]:
    """The columns that are numbers.

    A classic plugin does not say how its values are merged: those of one window are added, and
    windows stay as they are.
    """
    if not dataset.is_classic:
        return tuple(
            Measure(value.name, value.merge, getattr(value, "optional", False))
            for value in dataset.values
            if value.type is not str and not getattr(value.rule, "is_set", False)
        )
    return tuple(
        Measure(name, "add")
        for name, column in _attributes(dataset).items()
        if isinstance(column.type, Integer | Numeric | Float) and name != "id"
    )


def narrowest(installed: Installed, dataset: Dataset) -> Dataset:
    """The table of the plugin of ``dataset``, which has buckets, with the narrowest rows."""
    return min(_siblings(installed, dataset), key=_interval)


def _interval(dataset: Dataset) -> timedelta:
    assert dataset.schedule is not None
    return dataset.schedule.interval


def _siblings(installed: Installed, dataset: Dataset) -> list[Dataset]:
    return [installed.datasets[table.ident] for table in dataset.declared_tables] or [dataset]


def _attributes(dataset: Dataset) -> dict[str, Column[Any]]:
    return {
        str(attribute.key): attribute.columns[0]
        for attribute in inspect(dataset.model).column_attrs
    }
