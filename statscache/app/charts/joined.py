"""Numbers that are not made of others: how many different keys, and sums by the hour of the week.

How many people there were in a week is not the sum of those of its days. So the rows of all the
pieces of a bucket, of whatever tables, are read together, in one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select, union_all

from statscache.app.charts.calendar import WEEKS
from statscache.app.charts.lines import COUNT, Line, Numbers, Ranked, Without, plain
from statscache.app.charts.sources import Measure, Part, SourceTable
from statscache.app.charts.statements import Statements, others
from statscache.app.state.filters import Filters
from statscache.times import HOUR

CELLS = WEEKS.width // HOUR
"""The hours of a week."""


class Joined:
    """Reads the rows of all parts together; a :class:`~statscache.app.charts.lines.Reading`.

    Args:
        connection: in which all is of one moment.
        filters: that the rows must pass.
    """

    joins_buckets = False

    def __init__(self, connection: Connection, filters: Filters) -> None:
        self._connection = connection
        self._statements = Statements(connection, filters)

    @property
    def lines(self) -> Sequence[Line]:
        """The columns of numbers."""
        raise NotImplementedError

    @property
    def details(self) -> Mapping[str, Any]:
        """What an answer says of them besides: nothing."""
        return {}

    def _read(self, source: SourceTable) -> list[ColumnElement[Any]]:
        """The columns of ``source`` that are read."""
        raise NotImplementedError

    def _grouped(self, rows: Any, groups: Sequence[Any]) -> Select[Any]:
        """The ``groups``, and the number of each line.

        Args:
            rows: a subquery that has what :meth:`_read` says, as ``read_0`` and so on.
            groups: columns of it.
        """
        raise NotImplementedError

    def in_buckets(
        self, parts: Iterable[Part], without: Without | None = None
    ) -> dict[int, Numbers]:
        """The numbers of each bucket that has rows, by the number of the bucket."""
        parts = self._statements.existing(parts)
        if not parts:
            return {}

        def statement() -> Select[Any]:
            rows = self._rows(parts, without=without)
            return self._grouped(rows, [rows.c.number])

        return {number: _plain(row) for number, *row in self._statements.execute(statement)}

    def in_buckets_by_key(
        self, parts: Iterable[Part], by: str, keys: Sequence[Any]
    ) -> dict[tuple[int, Any], Numbers]:
        """The numbers of each bucket and each of ``keys`` in the column ``by`` that have rows."""
        parts = self._statements.existing(parts)
        if not parts or not keys:
            return {}

        def statement() -> Select[Any]:
            rows = self._rows(parts, by, keys)
            return self._grouped(rows, [rows.c.number, rows.c.key])

        found = self._statements.execute(statement)
        return {(number, key): _plain(row) for number, key, *row in found}

    def keys(self, parts: Iterable[Part], by: str, most: int) -> list[Any]:
        """The keys in the column ``by`` that have rows, sorted; no more than ``most`` of them."""
        parts = self._statements.existing(parts)
        if not parts:
            return []
        key = self._rows(parts, by).c.key
        return sorted(self._connection.scalars(select(key).distinct().limit(most)))

    def ranking(self, parts: Iterable[Part], by: str, limit: int) -> tuple[list[Ranked], int]:
        """The ``limit`` keys of the largest numbers, and how many keys there are."""
        parts = self._statements.existing(parts)
        if not parts:
            return [], 0
        found = self._statements.execute(partial(self._largest, parts, by, limit))
        return [Ranked(key, plain(value)) for key, value, _ in found], found[0][2] if found else 0

    def _largest(self, parts: Sequence[Part], by: str, limit: int) -> Select[Any]:
        rows = self._rows(parts, by)
        key, value, *_ = self._grouped(rows, [rows.c.key]).subquery().c
        statement = select(key, value, func.count().over())
        return statement.order_by(value.desc().nulls_last(), key).limit(limit)

    def _rows(
        self,
        parts: Iterable[Part],
        by: str | None = None,
        keys: Sequence[Any] | None = None,
        without: Without | None = None,
    ) -> Any:
        """All the rows, with the ``number`` of their bucket, and their ``key`` in ``by``."""
        found = [self._rows_of(part, by, keys, without) for part in parts]
        return (union_all(*found) if len(found) > 1 else found[0]).subquery("found")

    def _rows_of(
        self, part: Part, by: str | None, keys: Sequence[Any] | None, without: Without | None
    ) -> Select[Any]:
        source = part.source
        number, table, conditions = self._placed(part)
        columns = [number.label("number")]
        if by is not None:
            key = source.columns[by]
            columns.append(key.label("key"))
            if keys is not None:
                conditions.append(key.in_(select(self._statements.wanted(key, keys).c.key)))
            elif key.nullable:
                conditions.append(key.is_not(None))
        if without is not None:
            conditions.append(others(source.columns[without[0]], without[1]))
        columns += [column.label(f"read_{n}") for n, column in enumerate(self._read(source))]
        statement = select(*columns)
        if table is not None:
            statement = statement.select_from(table).join(source.table, conditions.pop(0))
        return statement.where(*conditions, *self._statements.clauses(source))

    def _placed(self, part: Part) -> tuple[ColumnElement[Any], Any, list[Any]]:
        """The number of the bucket of a row, the table that tells it, and the conditions for it."""
        source, statements = part.source, self._statements
        if not source.width:
            return literal(0), None, statements.between(source, *part.between)
        pieces = statements.pieces(part, is_joined=True)
        lower, upper = statements.within(source, pieces.start, pieces.stop)
        number = pieces.number
        if part.is_by_hour_of_week:
            shown = source.timestamp - source.lag + number + WEEKS.width - WEEKS.offset
            number = shown // HOUR % CELLS
        return number, pieces.table, [lower & upper]


class DistinctCounts(Joined):
    """How many different values of a column there are.

    Args:
        connection: in which all is of one moment.
        filters: that the rows must pass.
        column: whose values are counted.
    """

    def __init__(self, connection: Connection, filters: Filters, column: str) -> None:
        super().__init__(connection, filters)
        self._column = column

    @property
    def lines(self) -> Sequence[Line]:
        """One."""
        return [Line(self._column, COUNT, is_zero=True)]

    @property
    def details(self) -> Mapping[str, Any]:
        """The column."""
        return {COUNT: self._column}

    def _read(self, source: SourceTable) -> list[ColumnElement[Any]]:
        return [source.columns[self._column]]

    def _grouped(self, rows: Any, groups: Sequence[Any]) -> Select[Any]:
        # Faster than count(distinct ...), which sorts the rows of each group on its own.
        names = [*(group.name for group in groups), "read_0"]
        found = select(*(rows.c[name] for name in names)).distinct().subquery("different")
        *own, value = (found.c[name] for name in names)
        return select(*own, func.count(value)).group_by(*own)


class Sums(Joined):
    """Sums of columns that are added up.

    Args:
        connection: in which all is of one moment.
        filters: that the rows must pass.
        measures: the columns.
    """

    joins_buckets = True

    def __init__(
        self, connection: Connection, filters: Filters, measures: Sequence[Measure]
    ) -> None:
        super().__init__(connection, filters)
        self._measures = measures

    @property
    def lines(self) -> Sequence[Line]:
        """One of each column."""
        return [Line(each.name, each.merge, is_zero=True) for each in self._measures]

    def _read(self, source: SourceTable) -> list[ColumnElement[Any]]:
        return [source.columns[measure.name] for measure in self._measures]

    def _grouped(self, rows: Any, groups: Sequence[Any]) -> Select[Any]:
        sums = [
            self._statements.merged(measure.rule, rows.c[f"read_{number}"])
            for number, measure in enumerate(self._measures)
        ]
        return select(*groups, *sums).group_by(*groups)


def _plain(row: Iterable[Any]) -> Numbers:
    return tuple(map(plain, row))
