"""The parts of which statements on rows are made: pieces of buckets, keys, conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Double,
    Float,
    Integer,
    Select,
    Text,
    cast,
    func,
    inspect,
    literal,
    or_,
    select,
)
from sqlalchemy.exc import DBAPIError

from statscache.app.charts.sources import Part, SourceTable
from statscache.app.state import filters
from statscache.app.state.filters import Filters
from statscache.plugins.merges import MergeRule

_SQLITE_OVERFLOW = "integer overflow"


class Pieces(NamedTuple):
    """A table of pieces: the place of each in its part, its start, its stop and its number."""

    table: Any
    place: ColumnElement[int]
    start: ColumnElement[int]
    stop: ColumnElement[int]
    number: ColumnElement[int]


class Statements:
    """Makes statements for one connection and the filters of one query, and executes them.

    Args:
        connection: in which all is of one moment.
        filters: that the rows must pass.
    """

    def __init__(self, connection: Connection, filters: Filters) -> None:
        self._connection = connection
        self._filters = filters
        self._is_sqlite = connection.dialect.name == "sqlite"
        self._existing: dict[str, bool] = {}
        self._exceeds_64_bits = False

    def execute(self, statement: Callable[[], Select[Any]]) -> Sequence[Any]:
        """The rows of ``statement``, which is made again if SQLite cannot add its numbers."""
        try:
            return self._connection.execute(statement()).all()
        except DBAPIError as error:
            if str(error.orig) != _SQLITE_OVERFLOW:
                raise
        # Whole numbers beyond 64 bits, which SQLite does not add.
        self._exceeds_64_bits = True
        return self._connection.execute(statement()).all()

    def merged(self, rule: MergeRule, column: Any) -> Any:
        """The SQL aggregate that merges ``column``."""
        if self._exceeds_64_bits:
            return rule.merge_rows_beyond_64_bits(column)
        return rule.merge_rows(column)

    def existing(self, parts: Iterable[Part]) -> list[Part]:
        """Without tables that the hub has not made yet: they have no rows."""
        return [part for part in parts if self._exists(part.source)]

    def _exists(self, source: SourceTable) -> bool:
        name = source.table.name
        if name not in self._existing:
            self._existing[name] = inspect(self._connection).has_table(name)
        return self._existing[name]

    def clauses(self, source: SourceTable) -> Sequence[ColumnElement[bool]]:
        """The conditions for the rows that are asked for, and may be shown."""
        return filters.clauses(self._filters, source.dataset)

    def pieces(self, part: Part, *, is_joined: bool = False) -> Pieces:
        """The pieces as a table of one parameter, however many there are.

        Args:
            is_joined: whether many rows are compared with each piece.
        """
        lag = part.source.lag
        rows = [(start + lag, stop + lag, number) for start, stop, number in part.pieces]
        if self._is_sqlite:
            table = func.json_each(_json(rows)).table_valued("key", "value", name="pieces")
            columns = [func.json_extract(table.c.value, f"$[{place}]") for place in range(3)]
            if not is_joined:
                return Pieces(table, table.c.key, *columns)
            # Otherwise SQLite would extract them for each row.
            names = ("place", "start", "stop", "number")
            labelled = (c.label(n) for c, n in zip((table.c.key, *columns), names, strict=True))
            found = select(*labelled).cte(f"pieces_{part.source.width}")
            found = found.prefix_with("MATERIALIZED")
            return Pieces(found, *(found.c[name] for name in names))
        arrays = [_array(column, BigInteger()) for column in zip(*rows, strict=True)]
        table = (
            func.unnest(*arrays)
            .table_valued("start", "stop", "number", with_ordinality="place", name="pieces")
            .render_derived()
        )
        return Pieces(table, table.c.place - 1, table.c.start, table.c.stop, table.c.number)

    def wanted(self, column: ColumnElement[Any], keys: Sequence[Any]) -> Any:
        """Keys of ``column`` as a table of one parameter, with the column ``key``."""
        if self._is_sqlite:
            table = func.json_each(_json(keys)).table_valued("value", name="keys")
            return select(table.c.value.label("key")).subquery("wanted")
        if isinstance(column.type, Integer):
            values = func.unnest(_array(keys, BigInteger()))
        elif isinstance(column.type, Float):
            values = func.unnest(_array(keys, Double()))
        else:
            values = func.json_array_elements_text(cast(_json(keys), JSON))
        return select(values.column_valued("key")).subquery("wanted")

    def within(
        self, source: SourceTable, start: Any, stop: Any
    ) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        """The conditions for a time, both ends as ``timestamp`` would have them in UNIX seconds."""
        at = source.timestamp
        return at >= self._stored(start, at), at < self._stored(stop, at)

    def between(
        self, source: SourceTable, start: float | None, stop: float | None
    ) -> list[ColumnElement[bool]]:
        """The conditions for rows of an own time, UNIX seconds; None is any."""
        at = source.timestamp
        found = [] if start is None else [at >= start]
        return found if stop is None else [*found, at < stop]

    def _stored(self, moment: Any, column: ColumnElement[Any]) -> Any:
        """A time as ``column`` has it: classic models have naive datetimes in UTC."""
        if not isinstance(column.type, DateTime):
            return moment
        if self._is_sqlite:
            return func.strftime("%Y-%m-%d %H:%M:%f", moment, "unixepoch")
        return func.timezone("UTC", func.to_timestamp(moment))


def _json(value: Any) -> Any:
    return literal(orjson.dumps(value).decode(), Text())


def _array(values: Iterable[int | float], type_: Any) -> Any:
    return cast(literal("{" + ",".join(map(repr, values)) + "}", Text()), ARRAY(type_))


def others(column: ColumnElement[Any], keys: Sequence[Any]) -> ColumnElement[bool]:
    """The condition for the rows of all keys but ``keys``."""
    found = column.not_in(keys)
    return or_(found, column.is_(None)) if getattr(column, "nullable", False) else found
