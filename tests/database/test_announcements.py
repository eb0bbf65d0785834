"""Commits are announced on PostgreSQL: once each, with what they changed, if they happen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from statscache.counting.engine import Engine
from statscache.database.announcements import CHANNEL, announce
from statscache.database.connection import Database
from statscache.plugins.installed import discovery
from tests.support.databases import table
from tests.support.messages import NOON, message

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@pytest.fixture
def database(migrated_uri: str) -> Iterator[Database]:
    database = Database(migrated_uri)
    yield database
    database.dispose()


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    engine = Engine(database, discovery.discover({}), {"15s": timedelta(days=1)})
    engine.open()
    yield engine
    engine.close()


@pytest.fixture
def listener(migrated_uri: str, engine: Engine) -> Iterator[Any]:
    url = make_url(migrated_uri).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    connection.autocommit = True
    connection.cursor().execute(f"LISTEN {CHANNEL}")
    yield connection
    connection.close()


def heard(listener: Any) -> list[Any]:
    """What was announced up to now: a statement of one's own brings all of it."""
    listener.cursor().execute("SELECT 1")
    payloads = [json.loads(notify.payload) for notify in listener.notifies]
    listener.notifies.clear()
    return payloads


def test_each_commit_is_announced_once_with_its_idents(engine: Engine, listener: Any) -> None:
    seen = message()
    engine.count([seen])
    (idents,) = heard(listener)
    assert "volume-1m" in idents
    assert idents == sorted(idents)
    assert set(idents) <= set(engine.installed.datasets)
    # Counted before: no row is another one.
    engine.count([seen])
    assert heard(listener) == [[]]


def test_rows_that_are_deleted_are_announced(
    engine: Engine, listener: Any, migrated_uri: str
) -> None:
    # Rows are as old as the newest message says.
    engine.count([message(timestamp=NOON), message(timestamp=time.time())])
    before = table(migrated_uri, "statscache_revision")
    heard(listener)
    engine.prune()
    # Each table by itself, so that none waits long for the others.
    idents = sorted(ident for each in heard(listener) for ident in each)
    assert {"volume-15s", "volume-by-topic-15s"} <= set(idents)
    assert "volume-1h" not in idents
    after = table(migrated_uri, "statscache_revision")
    grown = [new[0] for old, new in zip(before, after, strict=True) if new[1] == old[1] + 1]
    assert grown == idents
    engine.prune()
    assert not any(heard(listener))


def test_what_is_rolled_back_is_not_announced(
    engine: Engine, database: Database, listener: Any
) -> None:
    with suppress(RuntimeError), database.begin() as connection:
        announce(connection, ["a"])
        raise RuntimeError
    with suppress(RuntimeError), engine.transaction() as connection:
        raise RuntimeError
    with engine.transaction() as connection:
        connection.rollback()
    assert heard(listener) == []
    with database.begin() as connection:
        announce(connection, ["a"])
    assert heard(listener) == [["a"]]


def test_more_idents_than_an_announcement_takes(
    engine: Engine, database: Database, listener: Any
) -> None:
    for idents in (["x" * 7995], ["x" * 7996], [f"ident-{n}" for n in range(2000)]):
        with database.begin() as connection:
            announce(connection, idents)
    assert heard(listener) == [["x" * 7995], None, None]
