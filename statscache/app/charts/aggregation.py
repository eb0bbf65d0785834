"""Rows of several tables, merged: per bucket, per key, or both.

The database merges the rows of each piece of a bucket, which it finds by an index; the few numbers
that are left of each bucket are merged here. Both do it by the rules that the plugin declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Integer,
    Select,
    Text,
    cast,
    func,
    inspect,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.exc import DBAPIError

from statscache.app.charts.sources import Measure, Part, SourceTable
from statscache.app.state import filters
from statscache.app.state.filters import Filters
from statscache.plugins.columns import merges_of
from statscache.plugins.merges import MergeRule, newest_columns

Number = int | float | None
"""None where there is no row."""

_SQLITE_OVERFLOW = "integer overflow"


class Ranked(NamedTuple):
    """A key, and what its rows of a range are merged to."""

    key: Any
    value: Number


class Aggregation:
    """Reads and merges rows.

    Args:
        connection: in which all is of one moment.
        filters: that the rows must pass.
        measures: the columns of numbers.
    """

    def __init__(
        self, connection: Connection, filters: Filters, measures: Sequence[Measure]
    ) -> None:
        self._connection = connection
        self._filters = filters
        self._measures = measures
        self._is_sqlite = connection.dialect.name == "sqlite"
        self._existing: dict[str, bool] = {}
        self._exceeds_64_bits = False

    def in_buckets(
        self, parts: Iterable[Part], without: tuple[str, Sequence[Any]] | None = None
    ) -> dict[int, tuple[Number, ...]]:
        """The numbers of each bucket that has rows, by the number of the bucket.

        Args:
            without: a column, and keys in it whose rows are left out.
        """
        folded = _Fold(self._measures, parts := self._there(parts))
        for part in parts:
            for place, *row in self._execute(partial(self._per_piece, part, without)):
                folded.add(part.pieces[place].number, row)
        return folded.result()

    def in_buckets_by_key(
        self, parts: Iterable[Part], by: str, keys: Sequence[Any]
    ) -> dict[tuple[int, Any], tuple[Number, ...]]:
        """The numbers of each bucket and each of ``keys`` in the column ``by`` that have rows."""
        folded = _Fold(self._measures, parts := self._there(parts))
        for part in parts:
            for place, key, *row in self._execute(partial(self._per_key, part, by, keys)):
                folded.add((part.pieces[place].number, key), row)
        return folded.result()

    def keys(self, parts: Iterable[Part], by: str, most: int) -> list[Any]:
        """The keys in the column ``by`` that have rows, sorted; no more than ``most`` of them."""
        parts = self._there(parts)
        if not parts:
            return []
        table = self._rows(parts, by).subquery()
        return sorted(self._connection.scalars(select(table.c.key).distinct().limit(most)))

    def ranking(self, parts: Iterable[Part], by: str, limit: int) -> tuple[list[Ranked], int]:
        """The ``limit`` keys of the largest numbers, and how many keys there are.

        The number is that of the first measure. Of equal ones, the smaller key comes first.
        """
        parts = self._there(parts)
        if not parts:
            return [], 0
        found = self._execute(partial(self._largest, parts, by, limit))
        count = found[0][2] if found else 0
        return [Ranked(key, plain(value)) for key, value, _ in found], count

    # Statements.

    def _per_piece(self, part: Part, without: tuple[str, Sequence[Any]] | None) -> Select[Any]:
        pieces, clauses = self._pieces(part), []
        if without is not None:
            column = part.source.columns[without[0]]
            others = column.not_in(without[1])
            clauses.append(or_(others, column.is_(None)) if column.nullable else others)
        values = self._values(part.source, pieces, clauses)
        return select(pieces.place, *values).select_from(pieces.table)

    def _per_key(self, part: Part, by: str, keys: Sequence[Any]) -> Select[Any]:
        column = part.source.columns[by]
        pieces, wanted = self._pieces(part), self._wanted(column, keys)
        key = wanted.c.key
        values = self._values(part.source, pieces, [column == key], wanted)
        everything = pieces.table.join(wanted, true())
        return select(pieces.place, key, *values).select_from(everything)

    def _largest(self, parts: Sequence[Part], by: str, limit: int) -> Select[Any]:
        table, rule = self._rows(parts, by).subquery(), self._measures[0].rule
        if rule.takes_newest:
            order = [column.desc() for column in table.c if column.name not in ("key", "value")]
            rank = func.row_number().over(partition_by=table.c.key, order_by=order)
            ranked = select(table.c.key, table.c.value, rank.label("rank")).subquery()
            merged = select(ranked.c.key, ranked.c.value).where(ranked.c.rank == 1).subquery()
        else:
            value = self._merged(rule, table.c.value).label("value")
            merged = select(table.c.key, value).group_by(table.c.key).subquery()
        statement = select(merged.c.key, merged.c.value, func.count().over())
        return statement.order_by(merged.c.value.desc(), merged.c.key).limit(limit)

    def _execute(self, statement: Callable[[], Select[Any]]) -> Sequence[Any]:
        try:
            return self._connection.execute(statement()).all()
        except DBAPIError as error:
            if str(error.orig) != _SQLITE_OVERFLOW:
                raise
        # Whole numbers beyond 64 bits, which SQLite does not add.
        self._exceeds_64_bits = True
        return self._connection.execute(statement()).all()

    # The parts of statements.

    def _merged(self, rule: MergeRule, column: Any) -> Any:
        if self._exceeds_64_bits:
            return rule.merge_rows_beyond_64_bits(column)
        return rule.merge_rows(column)

    def _there(self, parts: Iterable[Part]) -> list[Part]:
        """Without tables that the hub has not made yet: they have no rows."""
        return [part for part in parts if self._exists(part.source)]

    def _exists(self, source: SourceTable) -> bool:
        name = source.table.name
        if name not in self._existing:
            self._existing[name] = inspect(self._connection).has_table(name)
        return self._existing[name]

    def _pieces(self, part: Part) -> _Pieces:
        """The pieces as a table of one parameter, however many there are."""
        lag = part.source.lag
        pairs = [(piece.start + lag, piece.stop + lag) for piece in part.pieces]
        if self._is_sqlite:
            table = func.json_each(_json(pairs)).table_valued("key", "value", name="pieces")
            start, stop = (func.json_extract(table.c.value, f"$[{end}]") for end in (0, 1))
            return _Pieces(table, table.c.key, start, stop)
        arrays = [_array(ends) for ends in zip(*pairs, strict=True)]
        table = (
            func.unnest(*arrays)
            .table_valued("start", "stop", with_ordinality="number", name="pieces")
            .render_derived()
        )
        return _Pieces(table, table.c.number - 1, table.c.start, table.c.stop)

    def _wanted(self, column: ColumnElement[Any], keys: Sequence[Any]) -> Any:
        """Keys as a table of one parameter, with the column ``key``."""
        if self._is_sqlite:
            table = func.json_each(_json(keys)).table_valued("value", name="keys")
            return select(table.c.value.label("key")).subquery("wanted")
        if isinstance(column.type, Integer):
            values = func.unnest(_array(keys))
        else:
            values = func.json_array_elements_text(cast(_json(keys), JSON))
        return select(values.column_valued("key")).subquery("wanted")

    def _values(
        self,
        source: SourceTable,
        pieces: _Pieces,
        clauses: Sequence[ColumnElement[bool]],
        *others: Any,
    ) -> list[Any]:
        """What is read for a piece: a subquery for each column of :class:`_Fold`."""
        at = source.timestamp
        start, stop = (_stored(end, at, self._is_sqlite) for end in (pieces.start, pieces.stop))
        conditions = (at >= start, at < stop, *clauses, *self._clauses(source))
        newest = [source.columns[name] for name in _newest(self._measures, source)]
        order = [column.desc() for column in newest]
        found = [
            select(self._merged(measure.rule, source.columns[measure.name]))
            for measure in self._measures
            if not measure.rule.takes_newest
        ]
        found += [select(column).order_by(*order).limit(1) for column in newest]
        return [
            query.where(*conditions).correlate(pieces.table, *others).scalar_subquery()
            for query in found
        ]

    def _rows(self, parts: Iterable[Part], by: str) -> Any:
        """All the rows of ``parts``, unmerged, with the columns ``key`` and ``value``.

        Behind them is what tells which value is the newest, where that matters.
        """
        measure = self._measures[0]
        selects = []
        for part in parts:
            source, lag = part.source, part.source.lag
            at = source.timestamp
            columns = [source.columns[by].label("key"), source.columns[measure.name].label("value")]
            if measure.rule.takes_newest:
                names = enumerate(_newest(self._measures, source))
                columns += [source.columns[name].label(f"newest_{i}") for i, name in names]
            for piece in part.pieces:
                start, stop = (
                    _stored(literal(end + lag), at, self._is_sqlite)
                    for end in (piece.start, piece.stop)
                )
                query = select(*columns).where(at >= start, at < stop, *self._clauses(source))
                if source.columns[by].nullable:
                    query = query.where(source.columns[by].is_not(None))
                selects.append(query)
        return union_all(*selects) if len(selects) > 1 else selects[0]

    def _clauses(self, source: SourceTable) -> Sequence[ColumnElement[bool]]:
        return filters.clauses(self._filters, source.dataset)


class _Pieces(NamedTuple):
    """A table of pieces: the place of each in its part, its start and its stop."""

    table: Any
    place: ColumnElement[int]
    start: ColumnElement[int]
    stop: ColumnElement[int]


class _Fold:
    """Merges the rows of pieces into those of buckets.

    A row has the merged columns of the measures that are not of the newest message, and then
    what tells which that is: the time of the message, and all the newest columns of its row.
    """

    def __init__(self, measures: Sequence[Measure], parts: Sequence[Part]) -> None:
        self._rules = [measure.rule for measure in measures if not measure.rule.takes_newest]
        self._split = len(self._rules)
        names = _newest(measures, parts[0].source) if parts else []
        others = iter(range(self._split))
        self._places = [
            self._split + names.index(measure.name) if measure.rule.takes_newest else next(others)
            for measure in measures
            if parts
        ]
        self._rows: dict[Any, list[Any]] = {}

    def add(self, key: Any, row: list[Any]) -> None:
        """Merge ``row`` into what ``key`` has."""
        if all(value is None for value in row):
            return
        known = self._rows.setdefault(key, row)
        if known is row:
            return
        for place, rule in enumerate(self._rules):
            known[place] = rule.merge_in_order(known[place], row[place])
        split = self._split
        if row[split:] > known[split:]:
            known[split:] = row[split:]

    def result(self) -> dict[Any, tuple[Number, ...]]:
        """The numbers of each key, in the order of the measures."""
        return {
            key: tuple(plain(row[place]) for place in self._places)
            for key, row in self._rows.items()
        }


def plain(value: Any) -> Number:
    """A number as JSON has it: whole ones beyond 64 bits are rounded."""
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value  # type: ignore[no-any-return]


def _newest(measures: Sequence[Measure], source: SourceTable) -> list[str]:
    """The columns that tell which row is the newest, the first one that differs deciding."""
    if not any(measure.rule.takes_newest for measure in measures):
        return []
    return newest_columns(merges_of(source.dataset.values))


def _stored(moment: Any, column: ColumnElement[Any], is_sqlite: bool) -> Any:
    """A time, UNIX seconds, as ``column`` has it: classic models have naive datetimes in UTC."""
    if not isinstance(column.type, DateTime):
        return moment
    if is_sqlite:
        return func.strftime("%Y-%m-%d %H:%M:%f", moment, "unixepoch")
    return func.timezone("UTC", func.to_timestamp(moment))


def _json(value: Any) -> Any:
    return literal(orjson.dumps(value).decode(), Text())


def _array(values: Iterable[int]) -> Any:
    return cast(literal("{" + ",".join(map(str, values)) + "}", Text()), ARRAY(BigInteger))
