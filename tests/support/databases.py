"""Databases with our schema, and what is in them."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, select, text
from sqlalchemy.engine import make_url

from statscache.database import migrations, tables
from statscache.database.connection import Database
from tests.support.postgresql import administer

BACKENDS = ("sqlite", "postgresql")

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@contextmanager
def migrated(request: pytest.FixtureRequest, backend: str, folder: Path) -> Iterator[str]:
    """A database with our schema, for fixtures of any scope."""
    if backend == "sqlite":
        path = folder / "statscache.db"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        yield f"sqlite:///{path}"
    else:
        template = request.getfixturevalue("migrated_template")
        with new_postgresql(request.getfixturevalue("postgresql_uri"), template) as uri:
            yield uri


@contextmanager
def new_postgresql(server: str, template: str = "template1") -> Iterator[str]:
    """A database on this server, until the end of the block."""
    name = f"statscache_{uuid.uuid4().hex}"
    administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def upgrade(uri: str) -> None:
    """Make the schema."""
    database = Database(uri)
    with database.begin() as connection:
        migrations.upgrade(connection)
    if database.backend == "sqlite":
        # The file alone is to hold everything, so that it can be copied.
        with database.engine.connect() as connection:
            connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()


def table(uri: str, name: str) -> list[tuple[Any, ...]]:
    """All rows of a table, sorted."""
    database = Database(uri)
    with database.begin() as connection:
        found = connection.execute(text(f"SELECT * FROM {name}"))
        # psycopg2 returns binary values as memoryviews, which have no order.
        rows = [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in found]
    database.dispose()
    return sorted(rows)


def execute(uri: str, *statements: Executable | str) -> None:
    """Execute statements in one transaction."""
    database = Database(uri)
    with database.begin() as connection:
        for statement in statements:
            connection.execute(text(statement) if isinstance(statement, str) else statement)
    database.dispose()


def counted(uri: str) -> int:
    """How many messages the main lane has counted."""
    database = Database(uri)
    with database.begin() as connection:
        total = connection.scalar(select(tables.lane.c.messages).where(tables.lane.c.id == 1))
    database.dispose()
    return int(total or 0)
