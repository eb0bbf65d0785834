"""What an application holds: settings, plugins, and the way to the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from statscache.app.rows import CountCache, RowReader
from statscache.config import Settings
from statscache.database import Database
from statscache.errors import DatabaseUnavailable
from statscache.plugins.discovery import Installed


class Service:
    """Made once per application; all its threads share it."""

    def __init__(self, settings: Settings, installed: Installed) -> None:
        self.settings = settings
        self.installed = installed
        counts = CountCache()
        self.readers = {
            ident: RowReader(dataset, counts) for ident, dataset in installed.datasets.items()
        }
        self._database = Database(
            settings.uri, read_only=True, statement_timeout=settings.statement_timeout
        )
        self._has_our_schema = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads: all that is read in it is of one moment.

        Raises:
            DatabaseUnavailable: the database does not answer.
            SchemaError: it has not been upgraded; asked anew until it has.
        """
        if not self._has_our_schema:
            self._check_file()
            self._database.check_schema()
            self._has_our_schema = True
        with self._database.begin() as connection:
            yield connection

    def _check_file(self) -> None:
        """SQLite would make an empty file of one that is not there."""
        url = make_url(self.settings.uri)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            raise DatabaseUnavailable(
                f"the file {Path(url.database).name} does not exist yet: "
                "run 'statscache db upgrade'"
            )
