"""A plugin that takes for ever, or meddles with the transaction of all, hurts only itself."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from statscache.audit.verify import Verification
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.database.fence import is_end, written
from statscache.errors import DatabaseUnavailable
from statscache.message import Message
from statscache.plugins import Aggregate, BaseModel, BasePlugin, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from tests.support.commands import call
from tests.support.databases import execute, table
from tests.support.distributions import distribute
from tests.support.hub_fixture import TODAY, HubFixture
from tests.support.hub_steps import lane, settle
from tests.support.messages import NOON, message

Opener = Callable[..., Engine]


@pytest.fixture
def open_engine(migrated_uri: str) -> Iterator[Opener]:
    engines: list[Engine] = []

    def open_(*classes: type, seconds: float | None = None, **more: Any) -> Engine:
        installed = discovery.load([(Source("t", "t", "1"), lambda: classes)], {})
        assert not installed.broken
        limit = None if seconds is None else timedelta(seconds=seconds)
        engine = Engine(Database(migrated_uri), installed, time_limit=limit, **more)
        engines.append(engine)
        if seconds is not None:
            enforcing = threading.Thread(
                target=engine.enforce_time_limit, args=(pytest.fail,), daemon=True
            )
            enforcing.start()
        engine.open()
        return engine

    yield open_
    for engine in engines:
        engine.close()


class Hits(Aggregate):
    name, summary, description = "hits", "hits", "For tests."
    values = (Value("hits"),)
    resolutions = (timedelta(days=1),)

    def rows(self, message: Message) -> list[tuple[int]]:
        return [(1,)]


class Looping(Aggregate):
    name, summary, description = "looping", "loops", "For tests."
    keys = (Key("place"),)
    values = (Value("hits"),)
    resolutions = (timedelta(days=1),)

    def rows(self, message: Message) -> list[tuple[str, int]]:
        if message.msg.get("loop"):
            while True:
                # What ends it is no Exception.
                with contextlib.suppress(Exception):
                    time.sleep(0.01)
        return [("here", 1)]


def hits(uri: str, name: str = "hits_1d") -> int:
    return sum(row[-1] for row in table(uri, name))


def plugin(uri: str, ident: str) -> dict[str, Any]:
    database = Database(uri)
    with database.begin() as connection:
        found = connection.execute(
            sa.text(
                "SELECT p.*, l.name AS lane_name, l.retry_at FROM statscache_plugin p "
                "JOIN statscache_lane l ON l.id = p.lane WHERE ident = :ident"
            ),
            {"ident": ident},
        ).one()
    database.dispose()
    return dict(found._mapping)


def test_a_plugin_that_loops_is_named_and_quarantined(
    open_engine: Opener, migrated_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(Hits, Looping, seconds=1.0)
    batch = [message(timestamp=NOON), message(timestamp=NOON + 1, msg={"loop": True})]
    assert engine.count(batch).counted == 2
    assert hits(migrated_uri) == 2
    assert f"all counting waits for a plugin: looping-1d (for 1 s, at {batch[1]!r})" in caplog.text
    row = plugin(migrated_uri, "looping-1d")
    assert row["lane_name"] == "quarantine looping-1d"
    assert "too slow: looping-1d" in row["error"]
    # It rests for long enough not to take much of the time of the others.
    assert row["retry_at"] - time.time() > 5
    engine.count([message(timestamp=NOON + 2), message(timestamp=NOON + 3, msg={"loop": True})])
    assert caplog.text.count("all counting waits") == 1
    assert plugin(migrated_uri, "looping-1d")["missed"] == 4
    # When it can, it goes on, together with the others.
    execute(migrated_uri, "UPDATE statscache_lane SET retry_at = 0 WHERE retry_at IS NOT NULL")
    engine.count([message(timestamp=NOON + 4)])
    row = plugin(migrated_uri, "looping-1d")
    assert (row["lane_name"], row["state"]) == ("main", "active")
    status = call(tmp_path, "status", uri=migrated_uri).stdout
    assert ", without 4 messages that it missed while it failed:\n  failed last " in status
    assert " ago), and continues:\n  too slow: looping-1d" in status
    assert hits(migrated_uri) == 5
    assert hits(migrated_uri, "looping_1d") == 1
    engine.count([message(timestamp=NOON + 5)])
    assert (hits(migrated_uri), hits(migrated_uri, "looping_1d")) == (6, 2)


class LoopingModel(BaseModel):
    __tablename__ = "isolation_looping"


class LoopingClassic(BasePlugin):
    name, summary, description = "looping classic", "loops", "For tests."
    model = LoopingModel
    where: ClassVar[str] = "process"

    def process(self, message: dict[str, Any]) -> None:
        self._loop("process")

    def update(self, session: Any) -> None:
        self._loop("update")
        session.add(LoopingModel(timestamp=datetime(2023, 1, 1)))

    def _loop(self, where: str) -> None:
        while self.where == where:
            pass


@pytest.mark.parametrize("where", ["process", "update"])
def test_a_classic_plugin_that_loops(
    open_engine: Opener, migrated_uri: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoopingClassic, "where", where)
    engine = open_engine(Hits, LoopingClassic, Noting, seconds=1.0)
    assert engine.count([message(timestamp=NOON)]).counted == 1
    assert hits(migrated_uri) == 1
    assert len(table(migrated_uri, "isolation_noting")) == 1
    row = plugin(migrated_uri, "looping-classic")
    assert row["lane_name"] == "quarantine looping-classic"
    assert "too slow: looping-classic" in row["error"]
    assert engine.count([message(timestamp=NOON + 1)]).counted == 1
    assert hits(migrated_uri) == 2


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_statement_that_takes_for_ever(open_engine: Opener, migrated_uri: str) -> None:
    engine = open_engine(Hits, Meddling, seconds=1.0)
    Meddling.meddle = staticmethod(lambda session: session.execute(sa.text("SELECT pg_sleep(60)")))
    assert engine.count([message(timestamp=NOON)]).counted == 1
    assert "SELECT pg_sleep(60)" in plugin(migrated_uri, "meddling")["error"]


class NotingModel(BaseModel):
    __tablename__ = "isolation_noting"


class Noting(BasePlugin):
    """Comes behind the others, in the order of the idents."""

    name, summary, description = "noting", "notes", "For tests."
    model = NotingModel

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen = 0

    def process(self, message: dict[str, Any]) -> None:
        self.seen += 1

    def update(self, session: Any) -> None:
        for _ in range(self.seen):
            session.add(self.model(timestamp=datetime(2023, 1, 1)))
        self.seen = 0


class MeddlingModel(BaseModel):
    __tablename__ = "isolation_meddling"


class Meddling(Noting):
    name = "meddling"
    model = MeddlingModel
    meddle: ClassVar[Callable[[Any], Any]]

    def update(self, session: Any) -> None:
        session.add(MeddlingModel(timestamp=datetime(2023, 1, 1)))
        session.flush()
        type(self).meddle(session)


def quietly(act: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Pass over what it raises, as some plugins do."""

    def acting(session: Any) -> None:
        try:
            act(session)
        except Exception:
            session.rollback()

    return acting


def statement(text: str) -> Callable[[Any], Any]:
    return lambda session: session.execute(sa.text(text))


def driver(session: Any) -> Any:
    return session.connection().connection


def commit_connection(session: Any) -> None:
    session.connection().commit()


def leave(session: Any) -> None:
    class Leaving(sa.types.TypeDecorator[str]):
        impl = sa.Text
        cache_ok = True

        def process_bind_param(self, value: Any, dialect: Any) -> Any:
            raise SystemExit

    session.execute(sa.select(sa.literal("x", Leaving())))


MEDDLING: dict[str, Callable[[Any], Any]] = {
    "rolls back": statement("ROLLBACK"),
    "rolls back, passing over it": quietly(statement("ROLLBACK")),
    "commits": statement("COMMIT"),
    "commits behind a comment": statement("/* now */ ; COMMIT"),
    "commits the connection": commit_connection,
    "commits the connection, passing over it": quietly(commit_connection),
    "rolls back the connection": lambda session: session.connection().rollback(),
    "closes the connection": quietly(lambda session: session.connection().close()),
    "invalidates the connection": lambda session: session.connection().invalidate(),
    "commits through the driver": lambda session: driver(session).commit(),
    "commits by a cursor": lambda session: driver(session).cursor().execute("COMMIT"),
    "closes through the driver": lambda session: driver(session).dbapi_connection.close(),
    "writes to others": statement("UPDATE hits_1d SET hits = hits + 10"),
    "writes to others, passing over it": quietly(statement("DELETE FROM isolation_noting")),
    "writes to the framework": statement("INSERT INTO statscache_claim SELECT * FROM hits_1d"),
    "leaves": leave,
}


@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
@pytest.mark.parametrize("what", MEDDLING)
def test_a_classic_plugin_that_meddles_is_blamed_alone(
    open_engine: Opener, migrated_uri: str, what: str
) -> None:
    Meddling.meddle = staticmethod(MEDDLING[what])
    engine = open_engine(Hits, Meddling, Noting)
    for number in range(3):
        assert engine.count([message(timestamp=NOON + number)]).counted == 1
    assert hits(migrated_uri) == 3
    assert len(table(migrated_uri, "isolation_noting")) == 3
    assert table(migrated_uri, "isolation_meddling") == []
    row = plugin(migrated_uri, "meddling")
    assert row["state"] == "failing"
    assert row["error"]
    assert plugin(migrated_uri, "noting")["state"] == "active"
    assert plugin(migrated_uri, "hits-1d")["state"] == "active"
    # Its author puts it right, and it goes on.
    execute(migrated_uri, "UPDATE statscache_lane SET retry_at = 0 WHERE retry_at IS NOT NULL")
    Meddling.meddle = staticmethod(lambda _session: None)
    engine.count([message(timestamp=NOON + 4)])
    assert len(table(migrated_uri, "isolation_meddling")) == 1
    assert plugin(migrated_uri, "meddling")["state"] == "active"
    assert hits(migrated_uri) == 4


class Tiring(Aggregate):
    """Takes its time in the midst of the transaction."""

    name, summary, description = "tiring", "tires the server", "For tests."
    values = (Value("hits"),)
    resolutions = (timedelta(days=1),)

    def rows(self, message: Message) -> list[tuple[int]]:
        time.sleep(message.msg.get("sleep", 0))
        return []


def end_session(session: Any) -> None:
    session.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))


ENDING: dict[str, Callable[[Any], Any]] = {
    "by a statement": end_session,
    "passing over it": quietly(end_session),
    "through the driver": lambda session: (
        driver(session).cursor().execute("SELECT pg_terminate_backend(pg_backend_pid())")
    ),
    "asleep": lambda _session: time.sleep(1.5),
}


def limit_idleness(uri: str) -> None:
    name = sa.engine.make_url(uri).database
    execute(uri, f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '1s'")


@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.parametrize(
    "how", [pytest.param(x, marks=[pytest.mark.long] * (x == "asleep")) for x in ENDING]
)
def test_a_classic_plugin_that_ends_the_session_is_quarantined(
    open_engine: Opener, migrated_uri: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    Meddling.meddle = staticmethod(ENDING[how])
    limit_idleness(migrated_uri)
    engine = open_engine(Hits, Meddling, Noting)
    batch = [message(timestamp=NOON)]
    # It may have been the database, which is waited for.
    with pytest.raises(DatabaseUnavailable):
        engine.count(batch)
    assert "was lost in the turn of meddling" in caplog.text
    assert plugin(migrated_uri, "meddling")["state"] == "active"
    assert engine.count(batch).counted == 1
    row = plugin(migrated_uri, "meddling")
    assert (row["lane_name"], row["state"]) == ("quarantine meddling", "failing")
    assert "was lost in its turn, twice in a row" in row["error"]
    assert engine.count([message(timestamp=NOON + 1)]).counted == 1
    assert (hits(migrated_uri), len(table(migrated_uri, "isolation_noting"))) == (2, 2)
    # When it does so again after its rest, nobody waits.
    execute(migrated_uri, "UPDATE statscache_lane SET retry_at = 0 WHERE retry_at IS NOT NULL")
    assert engine.count([message(timestamp=NOON + 2)]).counted == 1
    Meddling.meddle = staticmethod(lambda _session: None)
    execute(migrated_uri, "UPDATE statscache_lane SET retry_at = 0 WHERE retry_at IS NOT NULL")
    assert engine.count([message(timestamp=NOON + 3)]).counted == 1
    assert plugin(migrated_uri, "meddling")["state"] == "active"
    assert len(table(migrated_uri, "isolation_meddling")) == 1


class AskedModel(BaseModel):
    __tablename__ = "isolation_asked"


class Asked(Noting):
    name = "asked"
    model = AskedModel
    answer: ClassVar[Callable[[Any], Any]]

    def latest(self, session: Any) -> Any:
        type(self).answer(session)


@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
@pytest.mark.parametrize(
    ("backend", "answer"),
    [
        ("sqlite", MEDDLING["closes through the driver"]),
        ("postgresql", MEDDLING["closes through the driver"]),
        ("postgresql", end_session),
    ],
)
def test_a_classic_plugin_that_ends_the_session_before_it_has_a_lane(
    open_engine: Opener, migrated_uri: str, answer: Callable[[Any], Any]
) -> None:
    Asked.answer = staticmethod(answer)
    if answer is end_session:
        installed = discovery.load([(Source("t", "t", "1"), lambda: (Hits, Asked))], {})
        engine = Engine(Database(migrated_uri), installed, has_history=True)
        with pytest.raises(DatabaseUnavailable):
            engine.open()
        engine.open()
    else:
        engine = open_engine(Hits, Asked, has_history=True)
    assert engine.count([message(timestamp=NOON)]).counted == 1
    engine.release_live()
    assert (hits(migrated_uri), len(table(migrated_uri, "isolation_asked"))) == (1, 1)
    engine.close()


@pytest.mark.long
@pytest.mark.parametrize("backend", ["postgresql"])
def test_an_aggregate_that_the_server_does_not_wait_for(
    open_engine: Opener, migrated_uri: str
) -> None:
    limit_idleness(migrated_uri)
    engine = open_engine(Hits, Noting, Tiring, seconds=60.0)
    batch = [message(timestamp=NOON, msg={"sleep": 2})]
    with pytest.raises(DatabaseUnavailable):
        engine.count(batch)
    assert engine.count(batch).counted == 1
    row = plugin(migrated_uri, "tiring-1d")
    assert (row["lane_name"], row["state"]) == ("quarantine tiring-1d", "failing")
    assert "idle_in_transaction_session_timeout" in row["error"]
    assert row["retry_at"] - time.time() > 20
    assert plugin(migrated_uri, "noting")["state"] == "active"
    assert hits(migrated_uri) == 1


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_plugin_is_suspected_until_it_has_come_through_as_much(
    open_engine: Opener, migrated_uri: str
) -> None:
    engine = open_engine(Meddling)
    many = [message(timestamp=NOON + number) for number in range(3)]
    few = [message(timestamp=NOON + 10)]

    def is_lost(batch: list[Message], how: str | None) -> bool:
        Meddling.meddle = staticmethod(ENDING[how] if how else lambda _session: None)
        try:
            engine.count(batch)
        except DatabaseUnavailable:
            return True
        return False

    assert is_lost(many, "by a statement")
    assert not is_lost(many, None)
    # That was that: the next time may be an accident again.
    many = [message(timestamp=NOON + 20 + number) for number in range(3)]
    assert is_lost(many, "by a statement")
    assert not is_lost(few, None)
    assert plugin(migrated_uri, "meddling")["state"] == "active"
    assert not is_lost(many, "by a statement")
    assert plugin(migrated_uri, "meddling")["state"] == "failing"


class OnceModel(BaseModel):
    __tablename__ = "isolation_once"


class Once(Noting):
    name = "once"
    model = OnceModel
    can: ClassVar[bool] = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if not self.can:
            raise RuntimeError("there is something of mine already")

    def update(self, session: Any) -> None:
        if not self.can:
            raise ValueError("no more")
        super().update(session)


def test_a_classic_plugin_that_cannot_be_made_anew(
    open_engine: Opener, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(Hits, Noting, Once)
    monkeypatch.setattr(Once, "can", False)
    for number in range(3):
        assert engine.count([message(timestamp=NOON + number)]).counted == 1
    assert len(table(migrated_uri, "isolation_noting")) == 3
    assert "something of mine already" in plugin(migrated_uri, "once")["error"]
    monkeypatch.setattr(Once, "can", True)
    engine.count([message(timestamp=NOON + 3)])
    assert len(table(migrated_uri, "isolation_noting")) == 4
    assert len(table(migrated_uri, "isolation_once")) == 1
    assert plugin(migrated_uri, "once")["state"] == "active"


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_lock_that_we_hold_ourselves_is_not_the_database(
    open_engine: Opener, migrated_uri: str
) -> None:
    def write_elsewhere(_session: Any) -> None:
        other = sa.create_engine(f"{migrated_uri}?timeout=0.1")
        try:
            with other.begin() as connection:
                connection.execute(sa.insert(MeddlingModel).values(timestamp=datetime(2023, 1, 1)))
        finally:
            other.dispose()

    Meddling.meddle = staticmethod(write_elsewhere)
    engine = open_engine(Hits, Meddling)
    assert engine.count([message(timestamp=NOON)]).counted == 1
    assert "on a connection of its own" in plugin(migrated_uri, "meddling")["error"]


@pytest.mark.parametrize(
    ("text", "ends", "names"),
    [
        ("commit", True, set()),
        ("INSERT INTO a VALUES (1); END TRANSACTION", True, {"a"}),
        ("ROLLBACK TO SAVEPOINT x", False, set()),
        ("SET TRANSACTION READ ONLY", True, set()),
        ("PRAGMA query_only = 1", True, set()),
        ('PRAGMA main.table_info("x")', False, set()),
        ("ROLLBACK WORK TO x", False, set()),
        ("RELEASE SAVEPOINT x", False, set()),
        ("SELECT 'commit; drop table a' -- delete from b", False, set()),
        ('UPDATE ONLY "public"."Big" SET x = 1', False, {"big"}),
        (
            "insert or replace into t values (1) on conflict do update set x = 1",
            False,
            {"t", "set"},
        ),
        ("WITH x AS (SELECT 1) DELETE FROM main.t", False, {"t"}),
        ("CREATE UNIQUE INDEX i ON t (x)", False, {"t"}),
        ("DROP TABLE IF EXISTS t", False, {"t"}),
        ("TRUNCATE t", False, {"t"}),
        ("SELECT * FROM updates", False, set()),
    ],
)
def test_what_a_statement_does(text: str, ends: bool, names: set[str]) -> None:
    assert is_end(text) is ends
    assert written(text) == names


SLOW = """
import datetime
import time

from statscache.plugins import Aggregate, Value


class Slow(Aggregate):
    name, summary, description = "slow", "takes its time", "For tests."
    values = (Value("hits"),)
    resolutions = (datetime.timedelta(days=1),)

    def rows(self, message):
        time.sleep(2)
        return [(1,)]
"""


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_command_names_what_takes_long(
    tmp_path: Path,
    migrated_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("statscache.isolation.time_limit._PATIENCE", 0.5)
    monkeypatch.syspath_prepend(distribute(tmp_path / "plugins", "slow_one", SLOW, slow="Slow"))
    found = message(timestamp=NOON)
    (tmp_path / "a.jsonl").write_text(found.to_json())
    done = call(tmp_path, "replay", "a.jsonl", uri=migrated_uri)
    assert "1 counted" in done.stdout
    assert f"all counting waits for a plugin: slow-1d (for 1 s, at {found!r})" in caplog.text
    assert hits(migrated_uri, "slow_1d") == 1


class Recounted(Aggregate):
    name, summary, description = "recounted", "loops later", "For tests."
    values = (Value("hits"),)
    resolutions = (timedelta(days=1),)
    loops: ClassVar[bool] = False

    def rows(self, message: Message) -> list[tuple[int]]:
        while self.loops:
            pass
        return [(1,)]


def test_the_audit_goes_on_without_a_plugin_that_loops(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [message(timestamp=TODAY - 86_400 + number) for number in range(10)]
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Recounted, Meddling)
    Meddling.meddle = staticmethod(lambda _session: None)
    settle(engine, archive, TODAY)
    assert hub_fixture.total() == 10
    engine.time_limit.limit = 1.0
    threading.Thread(target=engine.enforce_time_limit, daemon=True).start()
    monkeypatch.setattr(Recounted, "loops", True)
    Meddling.meddle = staticmethod(commit_connection)
    database = Database(hub_fixture.uri, read_only=True)
    verification = Verification(
        database, engine.installed, archive, time_limit=engine.time_limit, clock=engine.clock
    )
    assert list(verification.compare())
    database.dispose()
    verdicts = {verdict.ident: verdict for verdict in verification.verdicts}
    assert (verdicts["hits-1d"].rows, verdicts["hits-1d"].differences) == (1, [])
    assert "too slow: recounted-1d" in verdicts["recounted-1d"].refused
    assert "must not end the transaction" in verdicts["meddling"].refused


def test_from_the_archive_it_gets_what_it_missed(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [message(timestamp=TODAY - 86_400 + number) for number in range(10)]
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Recounted, Noting, Meddling)
    engine.time_limit.limit = 1.0
    threading.Thread(target=engine.enforce_time_limit, daemon=True).start()
    monkeypatch.setattr(Recounted, "loops", True)
    Meddling.meddle = staticmethod(commit_connection)
    settle(engine, archive, TODAY)
    assert hub_fixture.total() == len(hub_fixture.rows("isolation_noting")) == 10
    assert hub_fixture.rows("recounted_1d") == hub_fixture.rows("isolation_meddling") == []
    assert hub_fixture.lane_of("recounted-1d") == "quarantine recounted-1d"
    assert hub_fixture.lane_of("meddling") == "quarantine meddling"
    monkeypatch.setattr(Recounted, "loops", False)
    Meddling.meddle = staticmethod(lambda _session: None)
    hub_fixture.let_lanes_rest()
    settle(engine, archive, TODAY)
    for name in ("quarantine recounted-1d", "quarantine meddling"):
        assert engine.join(lane(engine, name).id)
    assert hub_fixture.total("recounted_1d") == 10
    assert hub_fixture.rows("isolation_meddling")
    assert {row[2] for row in hub_fixture.rows("statscache_plugin")} == {"active"}


class Weird(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Speechless(Hits):
    name = "speechless"

    def rows(self, message: Message) -> list[tuple[int]]:
        raise Weird


class SpeechlessRows(BaseModel):
    __tablename__ = "isolation_speechless"


class SpeechlessClassic(BasePlugin):
    name, summary, description = "speechless classic", "raises", "For tests."
    model = SpeechlessRows

    def process(self, message: dict[str, Any]) -> None:
        pass

    def update(self, session: Any) -> None:
        raise Weird


def test_an_exception_that_has_no_text_is_as_good_as_another(
    open_engine: Opener, migrated_uri: str
) -> None:
    engine = open_engine(Hits, Speechless, SpeechlessClassic)
    outcome = engine.count([message(), message()])
    assert outcome.counted == 2
    assert hits(migrated_uri) == 2
    assert {(each.plugin, each.reason) for each in outcome.rejections} == {
        ("speechless-1d", "Weird: (its text raises RuntimeError)")
    }
    assert outcome.failing == {"speechless-classic": "Weird: (its text raises RuntimeError)"}
