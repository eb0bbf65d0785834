"""Statements of the API end in time, on both databases."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from statscache.database.connection import Database
from statscache.database.deadline import extend_deadline
from statscache.errors import StatementTimeout

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT (i + 1) & 1023 FROM n) "
"""Needs no memory, so that nothing but the time ends it."""


@pytest.fixture
def database(database_uri: str) -> Database:
    return Database(database_uri, read_only=True, statement_timeout=timedelta(milliseconds=100))


def test_a_statement_that_takes_too_long_is_ended(database: Database) -> None:
    with pytest.raises(StatementTimeout), database.begin() as connection:
        connection.exec_driver_sql(ENDLESS + "SELECT count(*) FROM n")
    # The connection is as good as before.
    with database.begin() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_so_is_one_of_sqlite_that_gives_rows_for_ever(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'any.db'}"
    database = Database(uri, read_only=True, statement_timeout=timedelta(milliseconds=100))
    with pytest.raises(StatementTimeout), database.begin() as connection:
        for _ in connection.exec_driver_sql(ENDLESS + "SELECT i FROM n"):
            pass


def test_a_statement_gets_more_time_where_it_is_wanted(database: Database) -> None:
    with database.begin() as connection:
        connection = connection.execution_options(yield_per=100)
        rows = connection.exec_driver_sql(ENDLESS + "SELECT i FROM n")
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            extend_deadline(connection)
            assert len(rows.fetchmany(100)) == 100


def test_each_statement_has_a_time_of_its_own(database: Database) -> None:
    with database.begin() as connection:
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            connection.exec_driver_sql(ENDLESS + "SELECT i FROM n LIMIT 1000").all()
