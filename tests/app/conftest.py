"""The two sides of the database: the hub, which writes, and the API, which reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from statscache.app.state.revisions import Revisions
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.plugins.installed import discovery


@pytest.fixture
def engine(migrated_uri: str) -> Iterator[Engine]:
    """The writer, which has nothing in common with the readers but the database."""
    engine = Engine(Database(migrated_uri), discovery.discover({}))
    engine.open()
    yield engine
    engine.close()


@pytest.fixture
def database(migrated_uri: str) -> Iterator[Database]:
    """A reader's."""
    database = Database(migrated_uri, read_only=True)
    yield database
    database.dispose()


@pytest.fixture
def revisions(database: Database) -> Revisions:
    """What the reader knows of commits."""
    return Revisions(database.begin, database)
