"""Upserts in bulk: the two databases' fastest way to merge many rows into a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Connection,
    Double,
    LargeBinary,
    Table,
    Text,
    bindparam,
    cast,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from statscache.plugins.aggregate import Aggregate
from statscache.plugins.columns import merges_of
from statscache.plugins.merges import NEWEST_AT, stored_row_merger

Rows = Sequence[tuple[Any, ...]]


class Upsert:
    """``INSERT ... ON CONFLICT DO UPDATE`` of rows into one table.

    Args:
        table: whose primary key says which rows are the same.
        merges: column name to a function of the stored and the new columns that returns the
            merged one; columns that are not named keep what is stored. Empty: rows that exist
            already stay as they are.
    """

    def __init__(self, table: Table, backend: str, merges: dict[str, Any]) -> None:
        self._backend = backend
        self._columns = [column.name for column in table.columns]
        self._types = [column.type for column in table.columns]
        if backend == "sqlite":
            insert: Any = sqlite.insert(table).values(
                {name: bindparam(name) for name in self._columns}
            )
            dialect: Any = sqlite.dialect(paramstyle="qmark")
        else:
            insert = postgresql.insert(table).from_select(
                self._columns,
                select(*(_unnested(column.name, column.type) for column in table.columns)),
            )
            dialect = None
        keys = list(table.primary_key.columns)
        if merges:
            new = insert.excluded
            insert = insert.on_conflict_do_update(
                index_elements=keys,
                set_={name: merge(table.c, new) for name, merge in merges.items()},
            )
        else:
            insert = insert.on_conflict_do_nothing(index_elements=keys)
        self._statement = insert
        # SQLAlchemy's processing of parameters would take longer than SQLite's own work.
        self._sql = str(insert.compile(dialect=dialect)) if dialect else ""

    def write(self, connection: Connection, rows: Rows) -> int:
        """Upsert ``rows``, tuples in the order of the columns and sorted by key.

        Sorted, so that two writers cannot deadlock. Returns the number of rows written.
        """
        if not rows:
            return 0
        if self._backend == "sqlite":
            return connection.exec_driver_sql(self._sql, list(rows)).rowcount
        columns = zip(*rows, strict=True)
        parameters = {
            name: _literal(values, type_)
            for name, type_, values in zip(self._columns, self._types, columns, strict=True)
        }
        return connection.execute(self._statement, parameters).rowcount


def aggregate_upsert(plugin: Aggregate, table: Table, backend: str, *, is_latest: bool) -> Upsert:
    """Returns the upsert that merges the rows of an aggregate as its values declare."""
    has_clock = NEWEST_AT in table.c
    merges = stored_row_merger(
        merges_of(plugin.values),
        NEWEST_AT if has_clock else "timestamp",
        keeps_clock=is_latest or has_clock,
    )
    return Upsert(table, backend, merges)


def _unnested(name: str, type_: Any) -> Any:
    """A column of an array parameter: one parameter per column, however many rows there are."""
    parameter = bindparam(name, type_=Text())
    if isinstance(type_, LargeBinary):
        text = func.json_array_elements_text(cast(parameter, JSON))
        return func.decode(text, "hex").label(name)
    if isinstance(type_, Text):
        return func.json_array_elements_text(cast(parameter, JSON)).label(name)
    element: TypeEngine[Any] = Double() if isinstance(type_, Double) else BigInteger()
    return func.unnest(cast(parameter, ARRAY(element))).label(name)


def _literal(values: tuple[Any, ...], type_: Any) -> str:
    """``values`` as the text of a JSON array, or of a PostgreSQL array for numbers."""
    if isinstance(type_, LargeBinary):
        return orjson.dumps([value.hex() for value in values]).decode()
    text = orjson.dumps(values).decode()
    if isinstance(type_, Text):
        return text
    return "{" + text[1:-1] + "}"
