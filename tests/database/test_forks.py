"""A forked process has connections of its own."""

from __future__ import annotations

import os
from pathlib import Path

from statscache.database.connection import Database
from statscache.database.forks import PerProcess


def test_a_forked_process_makes_its_own_value() -> None:
    pid = PerProcess(os.getpid)
    child = os.fork()
    if child == 0:
        os._exit(0 if pid.value == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pid.value == os.getpid()


def test_a_forked_process_does_not_use_the_connections_of_its_parent(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'database.db'}")
    with database.begin() as connection:
        ours = connection.connection.dbapi_connection
    child = os.fork()
    if child == 0:
        with database.begin() as connection:
            os._exit(0 if connection.connection.dbapi_connection is not ours else 1)
    assert os.waitpid(child, 0)[1] == 0
    with database.begin() as connection:
        assert connection.connection.dbapi_connection is ours
    database.dispose()
