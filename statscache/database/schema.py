"""Whether a database has the tables that this version needs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, MetaData, inspect

from statscache.database import migrations
from statscache.database.connection import Database
from statscache.errors import DatabaseMissing, SchemaError


def check(database: Database) -> None:
    """Compare the revision of the schema with that of the installed migrations.

    Raises:
        SchemaError: it is another one; the text names both and the command that helps.
        DatabaseMissing: SQLite has no such file.
        DatabaseUnavailable: see :meth:`Database.begin`.
    """
    expected = migrations.HEAD
    if database.file is not None and not database.file.exists():
        # Connecting would create the file.
        raise DatabaseMissing(
            f"the database {database.name} has no statscache tables yet, nor a file: run "
            "'statscache db upgrade' to make it, or name another one, with its whole path, in "
            "statscache.sqlalchemy.uri"
        )
    with database.begin() as connection:
        current = migrations.revision_of(connection)
    if current == expected:
        return
    where = database.name
    if current is None:
        raise SchemaError(
            f"the database {where} has no statscache tables yet (this version needs schema "
            f"{expected}): run 'statscache db upgrade'"
        )
    if not migrations.is_known(current):
        raise SchemaError(
            f"the database {where} has schema {current}, which this version of statscache "
            f"(schema {expected}) does not know: it is newer; upgrade statscache"
        )
    raise SchemaError(
        f"the database {where} has schema {current}, and this version of statscache needs "
        f"{expected}: stop the hub and run 'statscache db upgrade'"
    )


def create_missing(connection: Connection, tables: list[Any]) -> list[str]:
    """Create those of ``tables`` that are not there; returns their names.

    For the tables of plugins from other distributions, which no migration of ours knows.
    """
    existing = set(inspect(connection).get_table_names())
    missing = [table for table in tables if table.name not in existing]
    by_metadata: dict[MetaData, list[Any]] = {}
    for table in missing:
        by_metadata.setdefault(table.metadata, []).append(table)
    for metadata, group in by_metadata.items():
        metadata.create_all(connection, tables=group, checkfirst=False)
    return [table.name for table in missing]
