"""Databases, messages and the real hub, for all the tests."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import statscache_migrations
from hypothesis import settings
from sqlalchemy import text
from sqlalchemy.engine import make_url

from statscache.config import URI_VARIABLE
from statscache.database import migrations
from statscache.database.connection import Database
from statscache.message import Message
from tests.support.paths import BUS_MESSAGES, ROOT, TESTS
from tests.support.postgresql import Server, administer

if TYPE_CHECKING:
    from tests.support.full_app import Whole
    from tests.support.hub_fixture import World

POSTGRESQL_VARIABLE = "STATSCACHE_TEST_POSTGRESQL_URI"
"""A PostgreSQL server to use, as a role that may create databases; absent, one is started."""

BACKENDS = ("sqlite", "postgresql")

# How long an example takes says more of the machine than of the program.
settings.register_profile("statscache", deadline=None)
settings.load_profile("statscache")

NOON = 1_700_049_600.0
"""2023-11-15 12:00 UTC."""


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
    with _new_postgresql(postgresql_uri) as uri:
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
        with _new_postgresql(request.getfixturevalue("postgresql_uri")) as uri:
            yield uri


@pytest.fixture
def migrated_uri(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with our schema, on SQLite and on PostgreSQL."""
    with migrated(request, backend, tmp_path) as uri:
        yield uri


@contextmanager
def migrated(request: pytest.FixtureRequest, backend: str, folder: Path) -> Iterator[str]:
    """A database with our schema, for fixtures of any scope."""
    if backend == "sqlite":
        path = folder / "statscache.db"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        yield f"sqlite:///{path}"
    else:
        template = request.getfixturevalue("migrated_template")
        with _new_postgresql(request.getfixturevalue("postgresql_uri"), template) as uri:
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


@contextmanager
def _new_postgresql(server: str, template: str = "template1") -> Iterator[str]:
    name = f"statscache_{uuid.uuid4().hex}"
    administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    administer(server, f"DROP DATABASE {name} WITH (FORCE)")


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
        found = connection.execute(text(f"SELECT * FROM {name}"))
        # psycopg2 gives binary values as memoryviews, which have no order.
        rows = [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in found]
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


@pytest.fixture(scope="session")
def corpus() -> list[Message]:
    """Real messages; tests/data/README.rst says where they come from.

    Some were published without a timestamp, which no message on a bus lacks: they get one.
    """
    path = BUS_MESSAGES
    raws = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Message.from_fedmsg({"timestamp": NOON + number} | raw) for number, raw in enumerate(raws)
    ]


@pytest.fixture(scope="module", params=BACKENDS)
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    corpus: list[Message],
) -> Iterator[Whole]:
    """The API of everything that is installed, on either database."""
    from tests.support.full_app import whole

    with migrated(request, request.param, tmp_path_factory.mktemp("whole")) as uri:
        yield whole(uri, corpus)


@pytest.fixture
def world(migrated_uri: str, tmp_path: Path) -> Iterator[World]:
    """A database, plugins, and an archive of one file."""
    from tests.support.hub_fixture import World

    made = World(migrated_uri, tmp_path / "archive.jsonl")
    yield made
    for engine in made.engines:
        engine.close()
