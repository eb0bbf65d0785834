"""The way to the database of an application, which only reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Connection

from statscache.database import migrations, privileges, schema, tables
from statscache.database.connection import Database
from statscache.errors import AccessDenied
from statscache.plugins.installed.discovery import Dataset


class ReadOnlyDatabase:
    """Begins transactions; for all threads.

    Args:
        uri: of the database.
        statement_timeout: how long a statement may take.
        datasets: whose tables are served.

    Attributes:
        database: that is read.
    """

    def __init__(self, uri: str, statement_timeout: timedelta, datasets: Iterable[Dataset]) -> None:
        self.database = Database(uri, read_only=True, statement_timeout=statement_timeout)
        self._served_tables = [dataset.model.__table__.name for dataset in datasets]
        self._has_our_schema = False

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that only reads: all that is read in it is of one moment.

        Raises:
            DatabaseUnavailable: the database does not answer.
            SchemaError: it has not been upgraded; checked each time until it has.
            StatementTimeout: a statement ran longer than it may.
            AccessDenied: a table may not be read.
        """
        try:
            if not self._has_our_schema:
                schema.check(self.database)
                self._has_our_schema = True
            with self.database.begin() as connection:
                yield connection
        except AccessDenied as error:
            with self.database.begin() as connection:
                self.check_access(connection)
            # It is none of the tables that are served, or access has just been granted.
            raise error

    def check_access(self, connection: Connection) -> None:
        """Check that all existing tables may be read.

        Raises:
            AccessDenied: one may not; the message has the GRANT.
        """
        ours = [table.name for table in tables.metadata.sorted_tables]
        names = [migrations.REVISIONS, *ours, *self._served_tables]
        grant = privileges.missing(connection, names)
        if grant is not None:
            raise AccessDenied(f"tables may not be read; their owner has to say: {grant};")
