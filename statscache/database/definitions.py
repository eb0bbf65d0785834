"""What a table holds, by declaration; and the change from one declaration to another.

A plugin whose declaration changed is rebuilt in a table beside the served one (the shadow),
which takes its place, in one transaction, when it is complete. Readers never see a half of it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson
from sqlalchemy import Connection, DateTime, MetaData, Table, inspect
from sqlalchemy.schema import CreateIndex, DropIndex, DropTable
from sqlalchemy.sql.elements import quoted_name

from statscache.database import privileges
from statscache.plugins.aggregate import table_name
from statscache.plugins.installed.discovery import Dataset

_LONGEST_WAIT = 500
"""Milliseconds that a swap waits for those who read the served table."""


def definition_of(dataset: Dataset) -> str:
    """Returns all that decides which rows a table must hold, as JSON: equal texts, equal tables."""
    table = dataset.model.__table__
    content: dict[str, Any] = {
        "columns": [[column.name, _type_name(column.type)] for column in table.columns],
        "key": [column.name for column in table.primary_key.columns],
        "schedule": str(dataset.schedule) if dataset.schedule else None,
        "version": dataset.plugin.version,
    }
    if dataset.declaration is not None:
        content["merge"] = {value.name: value.merge for value in dataset.values}
        content["topics"] = list(dataset.topics)
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()


def columns_of(definition: str) -> list[tuple[str, str]]:
    """The names and types of the columns that a definition has, in their order."""
    return [(name, type_) for name, type_ in orjson.loads(definition)["columns"]]


def shadow_name(dataset: Dataset) -> str:
    """The name of the table that is filled beside the served one; it tells the definition."""
    digest = hashlib.sha256(definition_of(dataset).encode()).hexdigest()[:8]
    return table_name(f"{dataset.ident}__shadow_{digest}")


def shadow_table(table: Table, name: str) -> Table:
    """A copy of the declaration of ``table`` under another name."""
    shadow = table.to_metadata(MetaData(), name=name)
    for index in list(shadow.indexes):
        # The names of indexes are shared by all tables of a database.
        index.name = quoted_name(table_name(f"{index.name}__shadow_{name[-8:]}"), quote=None)
    return shadow


def create_shadow(connection: Connection, table: Table, name: str) -> None:
    """Make the shadow of ``table``, empty."""
    shadow = shadow_table(table, name)
    shadow.drop(connection, checkfirst=True)
    shadow.create(connection)


def drop_shadow(connection: Connection, table: Table, name: str) -> None:
    """Delete the shadow of ``table``, if it is there."""
    shadow_table(table, name).drop(connection, checkfirst=True)


def swap(connection: Connection, table: Table, name: str) -> None:
    """Let the shadow take the place of ``table``, in the transaction of ``connection``.

    On PostgreSQL the privileges are kept.

    Raises:
        DBAPIError: on PostgreSQL, where a long transaction reads the table.
    """
    shadow = shadow_table(table, name)
    if connection.dialect.name == "postgresql":
        # Retry later, instead of letting all readers and writers queue behind this lock.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LONGEST_WAIT}")
    if inspect(connection).has_table(table.name):
        privileges.copy(connection, table.name, name)
        connection.execute(DropTable(table))
    quote = connection.dialect.identifier_preparer.quote
    connection.exec_driver_sql(f"ALTER TABLE {quote(name)} RENAME TO {quote(table.name)}")
    for index in shadow.indexes:
        connection.execute(DropIndex(index))
    for index in table.indexes:
        connection.execute(CreateIndex(index))


def redirect(statement: str, table: Table, name: str) -> str:
    """``statement`` with ``table`` replaced by its shadow ``name``, wherever it is named.

    Classic plugins write their own statements; all values in them are parameters.
    """
    return re.sub(rf"(?<![\w.]){re.escape(table.name)}(?!\w)", name, statement)


def _type_name(type_: object) -> str:
    if isinstance(type_, DateTime):
        return "datetime"
    python = getattr(type_, "python_type", str)
    return str(python.__name__)
