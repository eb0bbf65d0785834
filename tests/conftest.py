"""Databases, messages and the real hub, for all the tests."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import statscache_migrations
from hypothesis import settings
from sqlalchemy.engine import make_url

from statscache.config import URI_VARIABLE
from statscache.message import Message
from tests.support.databases import BACKENDS, migrated, new_postgresql, upgrade
from tests.support.datagrepper import Datagrepper
from tests.support.full_app import FullApp, full_app
from tests.support.hub_fixture import HubFixture
from tests.support.messages import NOON, bus_messages
from tests.support.paths import ROOT, TESTS
from tests.support.postgresql import Server

POSTGRESQL_VARIABLE = "STATSCACHE_TEST_POSTGRESQL_URI"
"""A PostgreSQL server to use, as a role that may create databases; absent, one is started."""

# How long an example takes says more of the machine than of the program.
settings.register_profile("statscache", deadline=None)
settings.load_profile("statscache")

# The migrations of the tree that is tested, whichever one is installed.
statscache_migrations.__path__ = [str(ROOT / "alembic")]

_MEMORY = Path("/dev/shm")
_ROOM = 4 * 1024**3
"""Bytes that a run of all the tests may need."""


def pytest_configure() -> None:
    """Have temporary folders in memory, where there is room: we make a thousand databases."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free > _ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


_ONCE = (
    *("app/", "cli/", "counting/test_laws.py", "database/test_export.py"),
    *("database/test_migrations.py", "hub/test_crash.py", "hub/test_hub.py"),
    *("plugins/test_of_2015.py", "test_people.py"),
)
"""Folders and modules whose tests ask the API, start programs, or try many examples."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what is in these modules on the second database to the long run."""

    def database_of(item: pytest.Item) -> Any:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        return next((value for value in parameters if value in BACKENDS), None)

    on_first = {item.nodeid.partition("[")[0] for item in items if database_of(item) == BACKENDS[0]}
    for item in items:
        is_second = database_of(item) == BACKENDS[1] and item.nodeid.partition("[")[0] in on_first
        if is_second and str(item.path.relative_to(TESTS)).startswith(_ONCE):
            item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def _no_foreign_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URI_VARIABLE, raising=False)


@pytest.fixture(scope="session")
def postgresql_uri() -> Iterator[str]:
    """A server; its URI names a database that always exists."""
    given = os.environ.get(POSTGRESQL_VARIABLE)
    if given:
        yield given
        return
    with Server() as server:
        yield server.uri


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with our schema, to be copied."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_template(postgresql_uri: str) -> Iterator[str]:
    """The name of a PostgreSQL database with our schema, to be copied."""
    with new_postgresql(postgresql_uri) as uri:
        upgrade(uri)
        yield str(make_url(uri).database)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database_uri(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, on SQLite and on PostgreSQL."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'statscache.db'}"
    else:
        with new_postgresql(request.getfixturevalue("postgresql_uri")) as uri:
            yield uri


@pytest.fixture
def migrated_uri(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with our schema, on SQLite and on PostgreSQL."""
    with migrated(request, backend, tmp_path) as uri:
        yield uri


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes databases with our schema, as many as a test needs: a backend to a URI."""
    with ExitStack() as stack:

        def make(backend: str) -> str:
            folder = tmp_path / uuid.uuid4().hex
            folder.mkdir()
            return stack.enter_context(migrated(request, backend, folder))

        yield make


@pytest.fixture(scope="session")
def corpus() -> list[Message]:
    """Real messages; tests/data/README.rst says where they come from.

    Some were published without a timestamp, which no message on a bus lacks: they get one.
    """
    return [
        Message.from_fedmsg({"timestamp": NOON + number} | raw)
        for number, raw in enumerate(bus_messages())
    ]


@pytest.fixture(scope="module", params=BACKENDS, name="full_app")
def _full_app(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    corpus: list[Message],
) -> Iterator[FullApp]:
    """The API of everything that is installed, on either database."""
    with migrated(request, request.param, tmp_path_factory.mktemp("full-app")) as uri:
        yield full_app(uri, corpus)


@pytest.fixture
def hub_fixture(migrated_uri: str, tmp_path: Path) -> Iterator[HubFixture]:
    """A database, plugins, and an archive of one file."""
    made = HubFixture(migrated_uri, tmp_path / "archive.jsonl")
    yield made
    made.close()


@pytest.fixture(scope="session")
def datagrepper_process() -> Iterator[Datagrepper]:
    """It takes a second to start."""
    with Datagrepper() as process:
        yield process


@pytest.fixture
def datagrepper(datagrepper_process: Datagrepper) -> Datagrepper:
    """An archive over HTTP, which has nothing yet and behaves well."""
    datagrepper_process.clear()
    return datagrepper_process
