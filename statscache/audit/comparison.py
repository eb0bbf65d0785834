"""Compare the rows of one ident with those of a recount."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, DateTime, Dialect, Select, select

from statscache.archive import Archive
from statscache.audit.boundary_shifts import BoundaryShifts
from statscache.audit.comparand import Comparand
from statscache.audit.recount import Recount, stream
from statscache.audit.uncertain_ranges import UncertainRanges
from statscache.audit.verdict import Difference, Verdict
from statscache.message import TIMESTAMP_TOLERANCE
from statscache.plugins.buckets import floored
from statscache.plugins.collation import ordered_alike
from statscache.plugins.columns import is_counter
from statscache.plugins.merges import NEWEST_AT
from statscache.times import DAY, naive

MOST_DIFFERENCES = 1_000
"""Differences of one ident that are kept."""

Row = tuple[Any, ...]


class Comparison:
    """Compares the rows of one comparand."""

    def __init__(self, comparand: Comparand, uncertain: UncertainRanges, stop: float) -> None:
        self._comparand = comparand
        self._uncertain = uncertain
        self._stop = min(comparand.stop, stop)
        self._table = comparand.dataset.model.__table__
        self._verdict = Verdict(comparand.ident, comparand.start, self._stop)
        declaration = comparand.dataset.declaration
        self._width = declaration.width if declaration is not None else None
        keys = [column.name for column in self._table.primary_key.columns]
        if declaration is None:
            keys = [column.name for column in self._table.columns if column.name != "id"]
        self._columns = [
            *keys,
            *(c.name for c in self._table.columns if c.name not in {*keys, "id"}),
        ]
        self._keys = len(keys)

    def compare(self, connection: Connection, scratch: Recount, archive: Archive) -> Verdict:
        """Compare, and return the verdict.

        Args:
            connection: that reads the tables.
            scratch: the recount that they are compared with.
            archive: that is asked for the messages around the edges of buckets.
        """
        comparand = self._comparand
        if comparand.needs_all and self._uncertain:
            self._verdict.waits = True
            self._verdict.skipped = (
                "the archive does not have yet all that has been counted: try again later"
            )
            return self._verdict
        if comparand.dataset.declaration is None:
            self._compare_lists(connection, scratch)
        else:
            pairs = self._pairs(connection, scratch)
            is_bucketed = self._width is not None
            judge = self._judge_bucket if is_bucketed or comparand.needs_all else self._judge_latest
            for stored, counted in pairs:
                judge(stored, counted)
            if is_bucketed and self._verdict.differences:
                self._explain(archive)
        for difference in self._verdict.differences:
            self._note_day(difference.key.get("timestamp", 0.0))
        return self._verdict

    def _pairs(
        self, connection: Connection, scratch: Recount
    ) -> Iterator[tuple[Row | None, Row | None]]:
        stored = stream(connection, self._statement(connection.dialect))
        return _merged(stored, scratch.rows(self._statement(scratch.dialect)), self._keys)

    def _statement(self, dialect: Dialect) -> Select[Any]:
        columns = [self._table.c[name] for name in self._columns]
        order = [ordered_alike(column, dialect) for column in columns[: self._keys]]
        statement = select(*columns).order_by(*order)
        time_of = self._table.c.timestamp
        if self._width is not None:
            statement = statement.where(time_of >= math.ceil(self._comparand.start))
            if self._stop != math.inf:
                statement = statement.where(time_of < math.ceil(self._stop))
        elif isinstance(time_of.type, DateTime):
            since = naive(self._comparand.since)
            statement = statement.where(time_of >= since)
        return statement

    def _judge_bucket(self, stored: Row | None, counted: Row | None) -> None:
        row = stored or counted
        assert row is not None
        if stored == counted:
            self._verdict.rows += 1
        elif self._width is not None and self._uncertain.overlaps(row[0], row[0] + self._width):
            self._wait()
        else:
            self._differ(stored, counted)

    def _judge_latest(self, stored: Row | None, counted: Row | None) -> None:
        """Rows of latest values; ``counted`` knows only the messages of the time compared."""
        place = self._columns.index("timestamp")
        comparand = self._comparand
        when = stored[place] if stored is not None else counted[place]  # type: ignore[index]
        if stored == counted:
            self._verdict.rows += 1
        elif self._uncertain.overlaps(when, when + 1e-6):
            self._wait()
        elif stored is None:
            self._differ(stored, counted)
        elif counted is None:
            if comparand.start <= when < self._stop:
                self._differ(stored, counted)
        elif when >= self._stop and counted[place] < when:
            self._verdict.rows += 1
        elif 0 < abs(when - counted[place]) <= TIMESTAMP_TOLERANCE:
            self._verdict.restamped += 1
        else:
            self._differ(stored, counted)

    def _compare_lists(self, connection: Connection, scratch: Recount) -> None:
        """Rows of classic plugins have no key: each must be there as often as it was counted."""
        for stored, counted in self._pairs(connection, scratch):
            if stored == counted:
                self._verdict.rows += 1
            else:
                self._differ(stored, counted)

    def _wait(self) -> None:
        self._verdict.undecided += 1
        self._verdict.waits = True

    def _differ(self, stored: Row | None, counted: Row | None) -> None:
        row = stored or counted
        assert row is not None
        if len(self._verdict.differences) >= MOST_DIFFERENCES:
            self._verdict.more += 1
            self._note_day(row[0])
            return
        names = self._columns
        split = self._keys

        def values(row: Row | None) -> dict[str, Any] | None:
            if row is None:
                return None
            return {
                name: value
                for name, value in zip(names[split:], row[split:], strict=True)
                if name != NEWEST_AT
            }

        self._verdict.differences.append(
            Difference(
                self._comparand.ident,
                dict(zip(names[:split], row[:split], strict=True)),
                values(stored),
                values(counted),
            )
        )

    def _note_day(self, moment: float) -> None:
        if self._width is not None:
            self._verdict.days.add(floored(int(moment), DAY))

    def _explain(self, archive: Archive) -> None:
        """Remove differences that come of copies with times on both sides of an edge."""
        table = self._comparand.dataset.declaration
        assert table is not None
        if not is_counter(table.plugin.values):
            return
        shifts = BoundaryShifts(archive, table, self._comparand.start, self._stop)
        explained = shifts.explain_differences(self._verdict.differences)
        self._verdict.restamped += len(explained)
        self._verdict.differences = [
            difference for difference in self._verdict.differences if difference not in explained
        ]


def _merged(
    stored: Iterator[Row], counted: Iterator[Row], keys: int
) -> Iterator[tuple[Row | None, Row | None]]:
    """Pairs the rows of two ordered streams whose first ``keys`` columns are equal."""
    left, right = next(stored, None), next(counted, None)
    order: Callable[[Row], Any] = _sortable
    while left is not None or right is not None:
        if right is None or (left is not None and order(left[:keys]) < order(right[:keys])):
            yield left, None
            left = next(stored, None)
        elif left is None or order(left[:keys]) > order(right[:keys]):
            yield None, right
            right = next(counted, None)
        else:
            yield left, right
            left, right = next(stored, None), next(counted, None)


def _sortable(key: Row) -> Any:
    return [
        (value is not None, value.encode() if isinstance(value, str) else value) for value in key
    ]
