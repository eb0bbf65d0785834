"""Revisions in memory: exact, free while nothing is committed, and never a connection short."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from statscache.app.dispatch.service import Service
from statscache.app.state import change_feed
from statscache.app.state.revisions import Revision, Revisions, Snapshot
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database.announcements import CHANNEL, announce
from statscache.database.connection import Database
from statscache.errors import DatabaseMissing, DatabaseUnavailable, SchemaError
from statscache.plugins.installed import discovery
from tests.support.databases import upgrade
from tests.support.hub import wait_until
from tests.support.messages import NOON, message
from tests.support.servers import Server, get

IDENT = "volume-1m"

TABLES = (
    "statscache_revision",
    "statscache_plugin",
    "statscache_lane",
    "statscache_gap",
    "statscache_replayed",
    "statscache_rejected_total",
)


@pytest.fixture
def never_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_feed, "CHECK_EVERY", 3600.0)


@pytest.fixture
def statements(database: Database) -> list[str]:
    """What has been sent to the database through the pool of the reader."""
    seen: list[str] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    return seen


def number(revisions: Revisions) -> int:
    revision = revisions.current(IDENT)
    return 0 if revision is None else revision.number


def test_an_ident_that_was_never_written_has_no_revision(
    revisions: Revisions, engine: Engine
) -> None:
    assert revisions.current(IDENT) is None
    assert revisions.all().revisions == {}
    assert set(revisions.all().plugins) == set(engine.installed.datasets)


@pytest.mark.usefixtures("never_checks")
def test_each_commit_is_seen(revisions: Revisions, engine: Engine) -> None:
    assert number(revisions) == 0
    for expected in range(1, 20):
        began = time.time()
        engine.count([message()])
        if engine.database.backend == "sqlite":
            # At once: a client that knows of the commit finds it.
            assert number(revisions) == expected
        wait_until(lambda expected=expected: number(revisions) == expected, "it is seen")
        revision = revisions.current(IDENT)
        assert revision is not None
        assert began <= revision.changed_at <= time.time()
    assert revisions.all().revisions["volume-by-topic-1d"].number == 19


@pytest.mark.usefixtures("never_checks")
def test_who_wants_to_be_sure_misses_nothing(revisions: Revisions, engine: Engine) -> None:
    for expected in range(1, 30):
        engine.count([message()])
        revisions.confirm()
        assert number(revisions) == expected


@pytest.mark.usefixtures("never_checks")
def test_nothing_is_asked_while_nothing_is_committed_and_once_per_commit(
    revisions: Revisions, engine: Engine, statements: list[str]
) -> None:
    revisions.all()
    for expected in range(1, 5):
        statements.clear()
        engine.count([message()])
        wait_until(lambda expected=expected: number(revisions) == expected, "it is seen")
        for _ in range(500):
            assert number(revisions) == expected
        asked = [text for text in statements if text != "BEGIN"]
        assert len(asked) == len(TABLES)
        assert all(f"FROM {name}" in text for name, text in zip(TABLES, asked, strict=True))


def test_what_says_the_same_is_the_same_object(
    revisions: Revisions, engine: Engine, migrated_uri: str
) -> None:
    engine.count([message()])
    wait_until(lambda: number(revisions) == 1, "it is seen")
    before = revisions.all()
    other = Database(migrated_uri)
    with other.begin() as connection:
        announce(connection, [])
        connection.execute(sa.text("UPDATE statscache_revision SET revision = revision"))
    other.dispose()
    time.sleep(0.1)
    for _ in range(100):
        assert revisions.all() is before


def test_what_the_hub_notes_without_new_rows_is_seen(revisions: Revisions, engine: Engine) -> None:
    now = time.time()
    engine.beat(now)
    wait_until(
        lambda: any(lane.beat_at == now for lane in revisions.all().lanes.values()), "it is seen"
    )
    assert revisions.all().revisions == {}


def test_rows_that_are_deleted_change_the_revision(revisions: Revisions, engine: Engine) -> None:
    engine._pruning._retention._ages = {"1m": timedelta(days=1)}
    engine.count([message(timestamp=NOON), message(timestamp=NOON + 2 * 86_400)])
    wait_until(lambda: number(revisions) == 1, "it is seen")
    engine.prune()
    wait_until(lambda: number(revisions) == 2, "the deletion is seen")
    engine.prune()
    assert number(revisions) == 2
    assert revisions.all().revisions["volume-1h"].number == 1


@pytest.mark.usefixtures("never_checks")
def test_what_a_transaction_saw_is_never_taken_back(
    revisions: Revisions, engine: Engine, statements: list[str]
) -> None:
    engine.count([message()])
    wait_until(lambda: number(revisions) == 1, "it is seen")
    # As if the announcement were still on its way.
    with engine.database.begin() as connection:
        connection.execute(
            sa.text("UPDATE statscache_revision SET revision = 2 WHERE ident = :ident"),
            {"ident": IDENT},
        )
    revisions.observe(IDENT, Revision(2, 0.0))
    assert number(revisions) == 2
    statements.clear()
    revisions.observe(IDENT, Revision(2, 0.0))
    revisions.observe(IDENT, Revision(1, 0.0))
    revisions.observe("another", None)
    assert number(revisions) == 2
    assert statements == []


def test_waits_until_something_changes(revisions: Revisions, engine: Engine) -> None:
    known = revisions.all()
    began = time.monotonic()
    assert revisions.next_after(known, 0.3) is known
    assert 0.3 <= time.monotonic() - began < 10
    commit = threading.Timer(0.2, engine.count, [[message()]])
    commit.start()
    assert revisions.next_after(known, 30).revisions[IDENT].number == 1
    assert time.monotonic() - began < 20
    commit.join()
    assert revisions.next_after(known, 30).revisions[IDENT].number == 1


@pytest.mark.usefixtures("never_checks")
def test_who_waits_is_told_what_another_thread_found(
    revisions: Revisions, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "POLL_EVERY", 3600.0)
    known = revisions.all()
    found: list[Snapshot] = []
    waiting = threading.Thread(target=lambda: found.append(revisions.next_after(known, 60)))
    waiting.start()
    # Asks so often that it takes the announcement from under the other's nose.
    engine.count([message()])
    wait_until(lambda: number(revisions) == 1, "it is seen")
    deadline = time.monotonic() + 30
    while waiting.is_alive() and time.monotonic() < deadline:
        number(revisions)
    waiting.join(timeout=0)
    assert [snapshot.revisions[IDENT].number for snapshot in found] == [1]


def test_threads_see_revisions_that_never_go_back(revisions: Revisions, engine: Engine) -> None:
    ended = threading.Event()
    wrong: list[tuple[int, int]] = []

    def ask() -> None:
        last = 0
        while not ended.is_set():
            now = number(revisions)
            if now < last:
                wrong.append((last, now))
            last = now

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        engine.count([message()])
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    wait_until(lambda: number(revisions) == 30, "all are seen")


FORKING = """
import os, sys, time
from statscache.app.state.revisions import Revisions
from statscache.database.connection import Database

database = Database(sys.argv[1], read_only=True)
revisions = Revisions(database.begin, database)

def number():
    revision = revisions.current(sys.argv[2])
    return 0 if revision is None else revision.number

assert number() == 1
read, write = os.pipe()
go_read, go_write = os.pipe()
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        first = number()
        os.write(write, b"r")
        os.read(go_read, 1)
        deadline = time.monotonic() + 30
        while number() < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        # Without the goodbyes of an interpreter, which belong to the parent.
        os._exit((first, number()) != (1, 2))
    children.append(child)
assert len(os.read(read, 1) + os.read(read, 1)) == 2
print("ready", flush=True)
sys.stdin.readline()
os.write(go_write, b"gg")
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
deadline = time.monotonic() + 30
while number() < 2 and time.monotonic() < deadline:
    time.sleep(0.001)
assert number() == 2
# The end of the children has not ended the connection of the parent.
assert revisions._copy.value._feed is not None
assert not revisions._copy.value._feed.has_changed()
"""


def test_forked_processes_have_connections_of_their_own(migrated_uri: str, engine: Engine) -> None:
    engine.count([message()])
    # From a process without threads: whoever forks beside others inherits the locks that they hold.
    command = [sys.executable, "-c", FORKING, migrated_uri, IDENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as forking:
        assert forking.stdout is not None
        assert forking.stdout.readline() == b"ready\n"
        engine.count([message()])
        forking.communicate(b"go\n", timeout=60)
    assert forking.returncode == 0


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_what_limits_statements_does_not_end_the_watch(migrated_uri: str, engine: Engine) -> None:
    limit = timedelta(seconds=0.05)
    database = Database(migrated_uri, read_only=True, statement_timeout=limit)
    revisions = Revisions(database.begin, database)
    assert number(revisions) == 0
    watch = revisions._copy.value._feed
    time.sleep(2 * limit.total_seconds())
    for _ in range(20_000):
        revisions.all()
    assert revisions._copy.value._feed is watch
    database.dispose()


def test_says_what_is_wrong_with_the_database(tmp_path: Path) -> None:
    path = tmp_path / "statscache.db"
    settings = Settings.from_config({"statscache.sqlalchemy.uri": f"sqlite:///{path}"})
    service = Service(settings, discovery.discover({}))
    revisions = service.revisions
    with pytest.raises(DatabaseMissing, match="has no statscache tables yet"):
        revisions.all()
    assert not path.exists()
    path.touch()
    with pytest.raises(SchemaError, match="db upgrade"):
        revisions.all()
    upgrade(str(service.database.database.uri))
    assert revisions.all().revisions == {}
    service.database.database.dispose()


@pytest.mark.parametrize(
    ("server_name", "backend"),
    [("serve", "sqlite"), ("gunicorn", "postgresql")],
    indirect=["backend"],
)
def test_nobody_is_served_a_mixture(
    server_name: str, engine: Engine, migrated_uri: str, tmp_path: Path
) -> None:
    """Rows that are committed together are served together, under an ETag of their own."""
    categories = ("git", "bodhi", "wiki")
    bodies: dict[str, set[bytes]] = {}
    ended = threading.Event()
    seen: list[list[int]] = []

    def read(server: Server) -> None:
        volumes: list[int] = []
        seen.append(volumes)
        headers: dict[str, str] = {}
        with closing(server.connect()) as connection:
            is_last = False
            while not is_last:
                is_last = ended.is_set()
                got = get(connection, "/api/volume-by-category-1d", headers)
                if got.status == 304:
                    assert got.headers["ETag"] == headers["If-None-Match"]
                    continue
                assert got.status == 200
                bodies.setdefault(got.headers["ETag"], set()).add(got.body)
                rows = got.json
                (volume,) = {row["volume"] for row in rows}
                assert len(rows) == len(categories)
                volumes.append(volume)
                # Half of them know already what there is.
                headers = {"If-None-Match": got.headers["ETag"]} if volume % 2 else {}

    def commit() -> None:
        engine.count([message(f"org.fedoraproject.prod.{name}.thing") for name in categories])

    commit()
    with (
        Server(server_name, tmp_path, migrated_uri, config={}) as server,
        ThreadPoolExecutor(6) as readers,
    ):
        reading = [readers.submit(read, server) for _ in range(6)]
        for _ in range(80):
            commit()
        # For those to whom PostgreSQL has not yet told of the last one.
        time.sleep(0.5)
        ended.set()
        for each in reading:
            each.result()
    assert all(len(texts) == 1 for texts in bodies.values())
    for volumes in seen:
        assert volumes == sorted(volumes)
        assert volumes[-1] == 81
    assert len(bodies) > 10


@pytest.mark.parametrize(
    ("server_name", "backend"),
    [("serve", "sqlite"), ("gunicorn", "postgresql")],
    indirect=["backend"],
)
def test_who_reloads_gets_the_newest_from_every_worker(
    server_name: str, engine: Engine, migrated_uri: str, tmp_path: Path
) -> None:
    with Server(server_name, tmp_path, migrated_uri, config={}) as server:
        for expected in range(1, 30):
            engine.count([message()])
            anew = "no-cache" if expected % 2 else "max-age=0"
            # Each on a new connection, and so of any worker.
            rows = server.get(f"/api/{IDENT}", {"Cache-Control": anew}).json
            assert rows[0]["volume"] == expected


# What only PostgreSQL needs.

only_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


def listeners(migrated_uri: str, action: str) -> list[Any]:
    """Do something to the connections that listen."""
    database = Database(migrated_uri)
    with database.begin() as connection:
        found = connection.execute(
            sa.text(
                f"SELECT {action}(pid) FROM pg_stat_activity WHERE datname = current_database()"
                f" AND query = 'LISTEN {CHANNEL}'"
            )
        ).all()
    database.dispose()
    return [value for (value,) in found]


@only_postgresql
def test_a_listener_that_is_lost_is_replaced_and_missed_by_nobody(
    revisions: Revisions, engine: Engine, migrated_uri: str, statements: list[str]
) -> None:
    assert number(revisions) == 0
    assert listeners(migrated_uri, "pg_terminate_backend") == [True]
    wait_until(lambda: listeners(migrated_uri, "abs") == [], "it is gone")
    engine.count([message()])
    # At once: without a listener each request asks.
    statements.clear()
    assert [number(revisions) for _ in range(3)] == [1, 1, 1]
    assert len([text for text in statements if TABLES[0] in text]) == 3
    wait_until(
        lambda: number(revisions) and len(listeners(migrated_uri, "abs")) == 1, "it listens anew"
    )
    engine.count([message()])
    wait_until(lambda: number(revisions) == 2, "it is seen")


@only_postgresql
def test_a_listener_that_hears_nothing_is_noticed(
    revisions: Revisions, engine: Engine, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "CHECK_EVERY", 0.1)
    assert number(revisions) == 0
    deaf: Any = revisions._copy.value._feed
    # As behind a pooler, where each transaction has another connection.
    deaf._connection.cursor().execute("UNLISTEN *")
    engine.count([message()])
    wait_until(lambda: number(revisions) == 1, "it is seen all the same")
    monkeypatch.setattr(change_feed, "CHECK_EVERY", 3600.0)
    copy = revisions._copy.value
    wait_until(lambda: number(revisions) and copy._feed is not deaf, "it is replaced")
    engine.count([message()])
    wait_until(lambda: number(revisions) == 2, "it is announced again")


@only_postgresql
def test_a_database_that_goes_away_and_comes_back(
    revisions: Revisions, engine: Engine, migrated_uri: str
) -> None:
    assert number(revisions) == 0
    name = make_url(migrated_uri).database
    server = sa.create_engine(
        make_url(migrated_uri).set(database="postgres"), isolation_level="AUTOCOMMIT"
    )
    with server.connect() as admin:
        admin.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        sessions = f"FROM pg_stat_activity WHERE datname = '{name}'"
        admin.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {sessions}")
        wait_until(
            lambda: admin.exec_driver_sql(f"SELECT count(*) {sessions}").scalar() == 0,
            "all connections are gone",
        )
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                number(revisions)
        admin.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    server.dispose()
    assert number(revisions) == 0
    engine.count([message()])
    wait_until(lambda: number(revisions) == 1, "it is seen")
