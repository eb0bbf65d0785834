"""Databases and archives that go away and come back: waited for, and nothing lost or doubled."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine, event, text

from statscache.app import create_app
from statscache.counting.engine import Engine
from statscache.database import engines
from statscache.database.connection import Database
from statscache.errors import DatabaseUnavailable
from statscache.hub.intake import Intake
from statscache.message import Message
from statscache.plugins import BaseModel, BasePlugin
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed, Source
from tests.support.classics import KeepsMessages, moment_of
from tests.support.clocks import ManualClock
from tests.support.databases import table, upgrade
from tests.support.datagrepper import Datagrepper
from tests.support.hub import PROGRAMS, Hub, wait_until
from tests.support.live import QUICK, Live, assert_complete, quick
from tests.support.messages import NOON
from tests.support.oracle import Oracle
from tests.support.postgresql import Server
from tests.support.stream import Stream


class SwallowingModel(BaseModel):
    __tablename__ = "data_swallowing"

    number: Any = sa.Column(sa.Integer, nullable=False)


class Swallowing(KeepsMessages):
    """Goes on whatever happens, as some plugins do."""

    name, summary, description = "swallowing", "swallowing", "For tests."
    model = SwallowingModel

    def write(self, session: Any, raw: dict[str, Any]) -> None:
        try:
            session.add(SwallowingModel(timestamp=moment_of(raw), number=raw["i"]))
            session.commit()
        except Exception:
            session.rollback()


class CrashingModel(BaseModel):
    __tablename__ = "data_crashing"


class Crashing(BasePlugin):
    """Is at work when the server crashes."""

    name, summary, description = "crashing", "crashing", "For tests."
    model = CrashingModel
    crash: ClassVar[Callable[[], Any]]

    def process(self, message: dict[str, Any]) -> None:
        pass

    def update(self, session: Any) -> None:
        type(self).crash()
        session.add(CrashingModel(timestamp=datetime(2023, 1, 1)))


@pytest.fixture
def installed() -> Installed:
    """The bundled plugins, and a classic one that hides what goes wrong."""
    found = discovery.discover({})
    classic = discovery.load([(Source("test", "elsewhere", "1"), lambda: Swallowing)], {})
    found.classics += classic.classics
    found.datasets |= classic.datasets
    return found


def batches(size: int) -> Iterator[list[Message]]:
    stream = Stream(without_id=0.2)
    moment = NOON
    while True:
        raws = [stream.message(moment + number) for number in range(size)]
        moment += size
        yield [Message.from_fedmsg(raw) for raw in raws]


def raws_of(messages: list[Message]) -> list[dict[str, Any]]:
    return [message.raw for message in messages]


class TestOneBatch:
    """The engine's transaction, with the database taken away in the midst of it."""

    @pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.long)])
    @pytest.mark.parametrize("backend", ["postgresql"])
    def test_a_connection_lost_at_any_statement(
        self,
        stride: int,
        migrated_uri: str,
        postgresql_uri: str,
        installed: Installed,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        database = Database(migrated_uri)
        admin = create_engine(postgresql_uri, isolation_level="AUTOCOMMIT")
        remaining = 0

        def step(connection: Any, *_: Any) -> None:
            nonlocal remaining
            remaining -= 1
            if remaining == 0:
                pid = connection.connection.dbapi_connection.info.backend_pid
                with admin.connect() as other:
                    other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

        event.listen(database.engine, "before_cursor_execute", step)
        event.listen(database.engine, "commit", step)
        engine = Engine(database, installed)
        engine.open()
        counted: list[Message] = []
        losses = 0
        for number, batch in zip(count(1, stride), batches(4), strict=False):
            remaining = number
            counted += batch
            try:
                engine.count(batch)
            except DatabaseUnavailable:
                losses += 1
            if remaining > 0:
                break  # the batch has fewer statements: it was left in peace
            remaining = 0
            assert engine.count(batch).counted == len(batch), f"statement {number}"
        engine.close()
        admin.dispose()
        assert losses > 30 / stride
        assert (
            Oracle(tmp_path / "oracle.db", raws_of(counted), installed).differences(migrated_uri)
            == []
        )
        assert {row[2] for row in table(migrated_uri, "statscache_plugin")} == {"active"}
        assert "cannot be written" not in caplog.text

    @pytest.mark.parametrize("backend", ["sqlite"])
    def test_a_disk_that_is_full_after_any_page(
        self,
        migrated_uri: str,
        installed: Installed,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        database = Database(migrated_uri)
        room: int | None = None

        def limit(connection: Any) -> None:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            most = 2**30 if room is None else pages + room
            connection.exec_driver_sql(f"PRAGMA max_page_count = {most}")

        event.listen(database.engine, "begin", limit)
        engine = Engine(database, installed)
        engine.open()
        counted: list[Message] = []
        losses = 0
        for number, batch in enumerate(batches(120)):
            room = number
            counted += batch
            try:
                engine.count(batch)
            except DatabaseUnavailable as error:
                assert "full" in str(error)  # noqa: PT017
                losses += 1
            else:
                break
            room = None
            assert engine.count(batch).counted == len(batch), f"{number} pages"
        engine.close()
        assert losses > 10
        assert (
            Oracle(tmp_path / "oracle.db", raws_of(counted), installed).differences(migrated_uri)
            == []
        )
        assert {row[2] for row in table(migrated_uri, "statscache_plugin")} == {"active"}
        assert "cannot be written" not in caplog.text

    def test_another_that_holds_the_lock(
        self, migrated_uri: str, installed: Installed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engines, "LOCK_TIMEOUT", timedelta(seconds=0.2))
        engine = Engine(Database(migrated_uri), installed)
        engine.open()
        batch = next(batches(3))
        other = Database(migrated_uri)
        with other.begin() as connection:
            if other.backend == "postgresql":
                connection.execute(text("LOCK TABLE statscache_claim IN EXCLUSIVE MODE"))
            with pytest.raises(DatabaseUnavailable, match=r"locked|lock timeout"):
                engine.count(batch)
        assert engine.count(batch).counted == 3
        engine.close()
        other.dispose()

    @pytest.mark.parametrize("backend", ["postgresql"])
    def test_a_session_that_cannot_write_any_more_is_let_go(
        self, migrated_uri: str, installed: Installed
    ) -> None:
        database = Database(migrated_uri)
        engine = Engine(database, installed)
        engine.open()
        # As the server of this session is after another one has taken its place.
        with database.begin() as connection:
            connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        batch = next(batches(3))
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            engine.count(batch)
        assert engine.count(batch).counted == 3
        engine.close()

    def test_the_uri_of_sqlite_may_say_how_long_to_wait(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path / 'x.db'}?timeout=0.1"
        first, second = Database(uri), Database(uri)
        began = time.monotonic()
        with first.begin(), pytest.raises(DatabaseUnavailable, match="locked"), second.begin():
            pass
        assert time.monotonic() - began < engines.LOCK_TIMEOUT.total_seconds() / 2
        first.dispose()
        second.dispose()


class TestIntake:
    """The buffer, while the database does not take what is in it."""

    def test_it_is_bounded_in_bytes_too(self, migrated_engine: Engine) -> None:
        intake = Intake(migrated_engine, batch_size=10, buffer_size=10)
        for _ in range(8):
            intake.accept(b"x" * 20_000)
            intake.reject(b"y" * 20_000, "nonsense")
        assert len(intake) < 3
        intake.close()
        # And emptied it holds as much as before.
        for number in range(8):
            intake.accept(json.dumps({"topic": "a.b.c.d", "timestamp": number, "msg": {}}))
        assert len(intake) == 8
        intake.close()

    def test_it_does_not_wait_for_the_database_when_it_closes(
        self, migrated_uri: str, migrated_engine: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        intake = Intake(migrated_engine, batch_size=10, buffer_size=10)
        other = Database(migrated_uri)
        with other.begin() as connection:
            if other.backend == "postgresql":
                connection.execute(text("LOCK TABLE statscache_claim IN EXCLUSIVE MODE"))
            intake.start()
            intake.accept(json.dumps({"topic": "a.b.c.d", "timestamp": 1, "msg": {}}))
            intake.wake()
            began = time.monotonic()
            intake.close(timeout=0.5)
            assert time.monotonic() - began < 10
        assert "stopped with 1 messages" in caplog.text
        # It was only slow: the thread goes on as soon as it can.
        wait_until(lambda: len(intake) == 0, "it is committed after all")
        other.dispose()

    def test_it_says_that_it_waits(
        self,
        migrated_uri: str,
        migrated_engine: Engine,
        clock: ManualClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        intake = Intake(migrated_engine, batch_size=10, buffer_size=10)
        other = Database(migrated_uri)
        with other.begin() as connection:
            if other.backend == "postgresql":
                connection.execute(text("LOCK TABLE statscache_claim IN EXCLUSIVE MODE"))
            intake.start()
            intake.accept(json.dumps({"topic": "a.b.c.d", "timestamp": 1, "msg": {}}))

            def is_told() -> bool:
                clock.advance(1)
                intake.wake()
                return "the database has not answered for" in caplog.text

            wait_until(is_told, "it says so")
        intake.close()
        assert len(intake) == 0
        other.dispose()

    def test_it_tries_again_ever_less_often(
        self,
        migrated_engine: Engine,
        clock: ManualClock,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        caplog.set_level("INFO", "statscache.hub.intake")
        tries: list[float] = []

        def fail(*_: Any) -> None:
            tries.append(clock.monotonic())
            raise DatabaseUnavailable("it is away")

        intake = Intake(migrated_engine, batch_size=10, buffer_size=10)
        intake.accept(json.dumps({"topic": "a.b.c.d", "timestamp": 1, "msg": {}}))
        with monkeypatch.context() as patch:
            patch.setattr(migrated_engine, "commit", fail)
            while clock.monotonic() < 100:
                intake.flush()
                clock.advance(1)
        assert tries == [0, 1, 3, 7, 15, 31, 61, 91]
        clock.advance(30)
        intake.flush()
        assert len(intake) == 0
        assert "the database is back" in caplog.text

    def test_it_says_when_the_clock_jumps(
        self, migrated_engine: Engine, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        intake = Intake(migrated_engine, batch_size=10, buffer_size=10)
        for jump in (4.0, 7200.0, -7200.0):
            clock.advance(3600)
            clock.jump(jump)
            intake.flush()
        intake.close()
        told = [record.getMessage() for record in caplog.records if "jumped" in record.msg]
        assert [text.partition(":")[0] for text in told] == [
            "the clock has jumped 7200 s ahead",
            "the clock has jumped 7200 s back",
        ]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def migrated_engine(migrated_uri: str, clock: ManualClock) -> Iterator[Engine]:
    engine = Engine(Database(migrated_uri), discovery.discover({}), clock=clock)
    engine.open()
    yield engine
    engine.close()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Datagrepper]:
    with Datagrepper(tmp_path / "archive.db") as server:
        yield server


def told(hub: Hub, words: str) -> Callable[[], bool]:
    return lambda: words in hub.log.read_text()


def test_a_postgresql_that_goes_away_and_comes_back(tmp_path: Path, archive: Datagrepper) -> None:
    stream = Stream(1)
    old = [stream.message(time.time() - 3600 + number) for number in range(50)]
    archive.add(old)
    config = quick(
        archive,
        **{"statscache.consumer.batch_size": 50, "statscache.consumer.buffer_size": 100},
    )
    with Server() as server:
        upgrade(server.uri)
        server.stop()
        with Hub(tmp_path, server.uri, **config) as hub:
            hub.start(subscribes=False)
            wait_until(told(hub, "the database is away"), "it says so at start", hub.log)
            # It listens all the same, and what arrives waits for the database.
            hub.wait_until_subscribed()
            early = stream.message(time.time())
            hub.publish(early)
            server.start()
            client = create_app(hub.config).test_client()
            with Live(hub, archive) as live:
                wait_until(lambda: table(server.uri, "volume_1d"), "they count", hub.log)
                server.stop()
                assert client.get("/api/volume-1d").status_code == 503
                wait_until(told(hub, "cannot commit"), "it says so", hub.log)
                wait_until(told(hub, "newer ones are dropped"), "the buffer is full", hub.log)
                server.start()
                wait_until(told(hub, "the database is back"), "it is back", hub.log)
                assert client.get("/api/volume-1d").status_code == 200
                # Again, for a moment only: all connections are lost, and new ones can be made.
                server.stop()
                server.start()
                # It is there, and does not answer.
                server.pause()
                wait_until(told(hub, "has not answered for"), "it says so", hub.log)
                server.resume()
            assert_complete(hub, [*old, early, *live.raws], server.uri)
            reasons = {row[2] for row in table(server.uri, "statscache_rejected") if not row[1]}
            assert any(reason.startswith("dropped: the buffer was full") for reason in reasons)
            assert hub.stop() < 10


@pytest.mark.long
def test_a_postgresql_that_goes_away_in_the_turn_of_a_plugin() -> None:
    installed = discovery.load([(Source("test", "elsewhere", "1"), lambda: Crashing)], {})
    stream = batches(3)
    batch = next(stream)
    with Server() as server:
        upgrade(server.uri)
        engine = Engine(Database(server.uri), installed)
        engine.open()
        for _ in range(2):
            # In its turn again, before it has had a good one.
            Crashing.crash = staticmethod(server.stop)
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable):
                    engine.count(batch)
            server.start()
        Crashing.crash = staticmethod(lambda: None)
        assert engine.count(batch).counted == 3
        assert len(table(server.uri, "data_crashing")) == 1
        assert {row[2] for row in table(server.uri, "statscache_plugin")} == {"active"}
        # It has shown that it does no harm.
        Crashing.crash = staticmethod(lambda: (server.stop(), server.start()))
        batch = next(stream)
        with pytest.raises(DatabaseUnavailable):
            engine.count(batch)
        Crashing.crash = staticmethod(lambda: None)
        assert engine.count(batch).counted == 3
        assert {row[2] for row in table(server.uri, "statscache_plugin")} == {"active"}
        engine.close()


@pytest.mark.long
def test_memory_stays_flat_while_a_flood_meets_a_database_that_is_away(tmp_path: Path) -> None:
    with Server() as server:
        upgrade(server.uri)
        config = {"statscache.consumer.buffer_size": 2000}
        with Hub(tmp_path, server.uri, **QUICK, **config) as hub:
            hub.start()
            stream = Stream()
            texts = [json.dumps(stream.message(time.time())).encode() for _ in range(1000)]
            assert hub.process is not None
            process = psutil.Process(hub.process.pid)

            def flood(count: int) -> int:
                """Publish, wait until all is taken in, and give the memory in use."""
                for number in range(count):
                    hub.send(b"org.fedoraproject.prod", texts[number % len(texts)])
                _until_idle(process)
                return process.memory_info().rss

            server.stop()
            try:
                flood(10_000)
                before = flood(10_000)
                after = flood(10_000)
            finally:
                server.start()
            # Some 25 MB were published in between.
            assert after - before < 10_000_000
            assert told(hub, "newer ones are dropped")()
            wait_until(told(hub, "the database is back"), "it is back", hub.log)
            wait_until(
                lambda: sum(row[-1] for row in table(server.uri, "volume_1d")) >= 1000,
                "what was kept is counted",
                hub.log,
            )


def _until_idle(process: psutil.Process) -> None:
    def used() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before, now = -1.0, used()
    while now - before > 0.05:
        time.sleep(0.5)
        before, now = now, used()


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


class Lock:
    """Another process that writes to a SQLite file until the end of the block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOCK, str(self._path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"locked\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


@pytest.mark.long
def test_a_sqlite_file_that_another_process_holds(
    tmp_path: Path, migrated_file: Path, archive: Datagrepper
) -> None:
    path = tmp_path / "statscache.db"
    shutil.copy(migrated_file, path)
    uri = f"sqlite:///{path}"
    with Hub(tmp_path, f"{uri}?timeout=0.3", **quick(archive)) as hub:
        with Lock(path):
            hub.start(subscribes=False)
            wait_until(told(hub, "the database is away"), "it says so at start", hub.log)
        hub.wait_until_subscribed()
        with Live(hub, archive) as live:
            wait_until(lambda: len(table(uri, "volume_1d")) == 1, "one is counted", hub.log)
            with Lock(path):
                wait_until(told(hub, "cannot commit"), "it says so", hub.log)
                assert "database is locked" in hub.log.read_text()
            wait_until(told(hub, "the database is back"), "it is back", hub.log)
        assert_complete(hub, live.raws, uri)
        # What is held too long at the end is told of, and the archive has it.
        with Lock(path):
            log = hub.log.read_text()
            hub.publish(Stream(7).message(time.time()))
            wait_until(lambda: "cannot commit" in hub.log.read_text()[len(log) :], "so", hub.log)
            assert hub.stop() < 15
        assert "could not be committed; the archive has them" in hub.log.read_text()


COPY = """
import sqlite3, sys
sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))
"""


def can_mount() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(command, check=False, capture_output=True).returncode
    )


@pytest.mark.long
@pytest.mark.skipif(not can_mount(), reason="only root may mount a small disk")
def test_a_disk_that_is_full(tmp_path: Path, migrated_file: Path, archive: Datagrepper) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        'mount -t tmpfs -o size=8m none "$1"; cp "$2" "$1/statscache.db"; '
        'head -c 100m /dev/zero > "$1/filling" 2>&-; exec "$3"'
    )
    uri = f"sqlite:///{disk / 'statscache.db'}"
    with Hub(tmp_path, f"{uri}?timeout=1", **quick(archive)) as hub:
        program = str(PROGRAMS / "fedmsg-hub")
        hub.command = [
            *("unshare", "--mount", "sh", "-c", script, "sh"),
            *(str(disk), str(migrated_file), program),
        ]
        hub.start(subscribes=False)
        assert hub.process is not None
        wait_until(told(hub, f"0 KiB are free on the disk of {disk}"), "it says so", hub.log)
        inside = Path(f"/proc/{hub.process.pid}/root{disk}")
        (inside / "filling").unlink()
        hub.wait_until_subscribed()

        def copied() -> str:
            copy = tmp_path / "copy.db"
            copy.unlink(missing_ok=True)
            enter = ("nsenter", "--mount", "--target", str(hub.process.pid), sys.executable)
            subprocess.run([*enter, "-c", COPY, str(disk / "statscache.db"), str(copy)], check=True)
            return f"sqlite:///{copy}"

        with Live(hub, archive) as live:
            wait_until(lambda: len(table(copied(), "volume_1d")) == 1, "it counts", hub.log)
            with pytest.raises(OSError, match="No space"):
                fill(inside / "filling")
            log = hub.log.read_text()
            wait_until(lambda: "full" in hub.log.read_text()[len(log) :], "it says so", hub.log)
            time.sleep(1)
            (inside / "filling").unlink()
            wait_until(told(hub, "the database is back"), "there is room", hub.log)
        assert_complete(hub, live.raws, uri, copied)


def fill(path: Path) -> None:
    with path.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()


@pytest.mark.long
@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_archive_that_is_away(tmp_path: Path, migrated_uri: str, archive: Datagrepper) -> None:
    stream = Stream(1)
    old = [stream.message(time.time() - 3600 + number) for number in range(150)]
    archive.add(old)
    archive.stop()
    with Hub(tmp_path, migrated_uri, **quick(archive)) as hub:
        hub.start()
        with Live(hub, archive) as live:
            # Live messages do not wait for it.
            wait_until(lambda: len(table(migrated_uri, "volume_1d")), "they count", hub.log)
            archive.start()
            wait_until(
                lambda: sum(row[-1] for row in table(migrated_uri, "volume_1d")) > 150,
                "history is there",
                hub.log,
            )
            archive.set(outage=True)
            time.sleep(2)
            hub.stop()
            hub.start()
            time.sleep(1)
            archive.set(outage=False)
        assert_complete(hub, old + live.raws, migrated_uri)
