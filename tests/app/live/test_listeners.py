"""Who waits in a process: few threads, few queries, bounded room, no listener forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import ANY

import pytest
import sqlalchemy as sa

from statscache.app.application import build_app
from statscache.app.http.client import Client
from statscache.app.http.problems import Problem
from statscache.app.live import listeners as module
from statscache.app.live.event_rows import EventRows, RevisionRows
from statscache.app.live.event_stream import HEARTBEAT, EventStream, known_of
from statscache.app.live.listeners import Listeners, is_newer
from statscache.app.state import change_feed
from statscache.app.state.revisions import Revision, Revisions
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from tests.support.hub import wait_until
from tests.support.messages import message

IDENT = "volume-1m"
PATIENT = Client(may_wait=True)


def nothing(_changed: Collection[str]) -> None:
    """No rows are read before listeners are woken."""


@pytest.fixture
def listeners(revisions: Revisions) -> Iterator[Listeners]:
    listeners = Listeners(revisions, 1000, nothing)
    yield listeners
    assert len(listeners) == 0
    wait_until(lambda: watching() == 0, "the thread ends")


def watching() -> int:
    return sum(thread.name == "statscache-events" for thread in threading.enumerate())


def stream(
    listeners: Listeners,
    revisions: Revisions,
    *idents: str,
    heartbeat: float = 60,
    client: Client = PATIENT,
) -> EventStream:
    listener = listeners.add(idents, client)
    return EventStream(
        listeners, listener, idents, {}, revisions.all(), timedelta(seconds=heartbeat)
    )


def test_a_change_costs_the_same_for_one_as_for_hundreds(
    listeners: Listeners,
    revisions: Revisions,
    engine: Engine,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(change_feed, "CHECK_EVERY", 3600.0)
    statements: list[str] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement != "BEGIN":
            statements.append(statement)

    asked = []
    for count in (1, 300):
        with ExitStack() as closing:
            streams = [stream(listeners, revisions, IDENT) for _ in range(count)]
            for each in streams:
                closing.callback(each.close)
                each.take()
            assert watching() == 1
            statements.clear()
            engine.count([message()])
            with ThreadPoolExecutor(count) as threads:
                heard = list(threads.map(next, streams))
            assert len(heard) == count
            assert all(b'"ident":"volume-1m"' in text for text in heard)
            asked.append(len(statements))
    # One for each of the tables of the framework.
    assert asked[0] == asked[1] == 6


def test_several_changes_are_one_event_for_who_is_slow(
    listeners: Listeners, revisions: Revisions, engine: Engine
) -> None:
    slow = stream(listeners, revisions, IDENT)
    slow.take()
    for _ in range(5):
        engine.count([message()])

    def has_seen_all() -> bool:
        revision = listeners.snapshot and listeners.snapshot.revisions.get(IDENT)
        return revision is not None and revision.number == 5

    wait_until(has_seen_all, "all are seen")
    text = slow.take()
    assert text.count(b"data:") == 1
    assert b'"revision":5' in text
    assert slow.take() == b""
    slow.close()


def test_only_those_are_woken_whom_it_concerns(
    listeners: Listeners, revisions: Revisions, engine: Engine
) -> None:
    concerned = stream(listeners, revisions, IDENT)
    others = stream(listeners, revisions, "no-such-ident")
    woken: list[str] = []
    concerned.listener.wake = lambda: woken.append("concerned")
    others.listener.wake = lambda: woken.append("other")
    engine.count([message()])
    wait_until(lambda: woken, "somebody is woken")
    engine.count([message()])
    wait_until(lambda: len(woken) == 2, "again")
    assert woken == ["concerned"] * 2
    concerned.close()
    others.close()


def test_room_is_given_back(listeners: Listeners, revisions: Revisions, engine: Engine) -> None:
    listeners.maximum = 2
    first, second = stream(listeners, revisions, IDENT), stream(listeners, revisions, IDENT)
    with pytest.raises(Problem) as caught:
        listeners.add([IDENT], PATIENT)
    assert caught.value.status == 429
    assert int(caught.value.headers["Retry-After"]) > 0
    first.close()
    first.close()
    third = stream(listeners, revisions, IDENT)
    with pytest.raises(Problem):
        listeners.add([IDENT], PATIENT)
    second.close()
    third.close()


def test_the_thread_comes_and_goes_with_the_listeners(
    listeners: Listeners, revisions: Revisions, engine: Engine
) -> None:
    assert watching() == 0
    for number in range(1, 3):
        one = stream(listeners, revisions, IDENT)
        one.take()
        assert watching() == 1
        engine.count([message()])
        assert b'"revision":%d' % number in next(one)
        one.close()
        wait_until(lambda: watching() == 0, "nobody watches for nobody")


def test_who_has_hung_up_is_not_waited_for(
    listeners: Listeners, revisions: Revisions, engine: Engine
) -> None:
    gone = threading.Event()
    one = stream(listeners, revisions, IDENT, client=Client(may_wait=True, is_gone=gone.is_set))
    one.take()
    threading.Timer(0.2, gone.set).start()
    began = time.monotonic()
    assert list(one) == []
    assert time.monotonic() - began < 20
    one.close()


def test_all_streams_end_with_the_server(
    listeners: Listeners, revisions: Revisions, engine: Engine
) -> None:
    one = stream(listeners, revisions, IDENT)
    one.take()
    woken = threading.Event()
    another = stream(listeners, revisions, IDENT)
    another.listener.wake = woken.set
    ending = threading.Event()
    listeners.is_ending = ending.is_set
    threading.Timer(0.2, ending.set).start()
    assert list(one) == []
    # Who sleeps elsewhere is woken for it.
    assert woken.wait(20)
    one.close()
    another.close()


def test_a_heartbeat_when_there_is_nothing_to_tell(
    listeners: Listeners, revisions: Revisions, engine: Engine
) -> None:
    one = stream(listeners, revisions, IDENT, heartbeat=0.05)
    one.take()
    assert [next(one) for _ in range(3)] == [HEARTBEAT] * 3
    one.close()


def test_a_database_that_goes_away_ends_no_stream(
    listeners: Listeners,
    revisions: Revisions,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.05)
    away = threading.Event()
    read, tries = revisions.next_after, []

    def next_after(*arguments: Any) -> Any:
        if away.is_set():
            tries.append(1)
            raise ConnectionError("there is no database")
        return read(*arguments)

    monkeypatch.setattr(revisions, "next_after", next_after)
    one = stream(listeners, revisions, IDENT, heartbeat=0.1)
    one.take()
    away.set()
    wait_until(lambda: len(tries) > 3, "it is tried again")
    assert next(one) == HEARTBEAT
    engine.count([message()])
    away.clear()
    wait_until(lambda: b'"revision":1' in next(one), "it goes on")
    assert len([r for r in caplog.records if "there is no database" in r.message]) == 1
    one.close()


def test_rows_that_take_too_long_are_left_out(migrated_uri: str, engine: Engine) -> None:
    engine.count([message()])
    settings = Settings.from_config({"statscache.sqlalchemy.uri": migrated_uri})
    service = build_app(settings, engine.installed).extensions["statscache"]
    # A table of which the first row takes longer than a statement may.
    limit = timedelta(seconds=0.2)
    slow = Database(migrated_uri, read_only=True, statement_timeout=limit)

    @contextmanager
    def begin() -> Iterator[Any]:
        with slow.begin() as connection:
            yield connection

    class Slow:
        def respond(self, _request: Any, transaction: Any) -> Any:
            if "1m" not in _request.path:
                return service.dispatcher.respond(_request, transaction=transaction)
            forever = "SELECT count(*) FROM f a, f b, f c, f d"
            numbers = (
                "WITH RECURSIVE f(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM f WHERE n < 999)"
            )
            return transaction.connection.execute(sa.text(f"{numbers} {forever}"))

    newest = EventRows(Slow(), begin, 100)  # type: ignore[arg-type]
    newest.want(["volume-1m", "volume-1h"], service.revisions.all())
    assert newest.get("volume-1m") == RevisionRows(Revision(1, ANY), None)
    found = newest.get("volume-1h")
    assert found is not None
    assert found.rows is not None
    newest.release(["volume-1m", "volume-1h"])
    assert newest.get("volume-1m") is None
    slow.dispose()


def test_how_many_listeners_suit_a_server() -> None:
    def maximum(configured: int | None, threads: int | None) -> int:
        listeners = Listeners(Revisions(None, None), configured, nothing)  # type: ignore[arg-type]
        if threads is None:
            listeners.take_no_threads()
        else:
            listeners.leave_threads(threads)
        return listeners.maximum

    assert [maximum(None, threads) for threads in (1, 2, 4, 5, 64)] == [0, 1, 2, 2, 32]
    assert [maximum(10, threads) for threads in (1, 4, 64)] == [0, 2, 10]
    assert maximum(None, None) == 500
    assert maximum(2000, None) == 2000
    assert Listeners(Revisions(None, None), None, nothing).maximum == 2  # type: ignore[arg-type]
    assert Listeners(Revisions(None, None), 7, nothing).maximum == 7  # type: ignore[arg-type]


def test_which_revision_is_newer() -> None:
    assert is_newer(Revision(1, 5.0), None)
    assert is_newer(Revision(2, 5.0), Revision(1, 6.0))
    assert not is_newer(Revision(1, 5.0), Revision(1, 5.0))
    assert not is_newer(Revision(1, 5.0), Revision(2, 6.0))
    # A database that was created again.
    assert is_newer(Revision(1, 7.0), Revision(500, 6.0))


def test_what_the_number_of_an_event_says(
    listeners: Listeners, revisions: Revisions, engine: Engine
) -> None:
    engine.count([message()])
    wait_until(lambda: IDENT in revisions.all().revisions, "it is seen")
    idents = (IDENT, "no-such-ident", "volume-1h")
    one = stream(listeners, revisions, *idents)
    (line,) = [line for line in one.take().decode().splitlines() if line.startswith("id: ")]
    number = line.removeprefix("id: ")
    known = known_of(number, idents)
    assert {ident: revision.number for ident, revision in known.items()} == {
        IDENT: 1,
        "volume-1h": 1,
    }
    assert known_of(number, idents[::-1]) == {}
    assert known_of(number, idents[:2]) == {}
    assert known_of(None, idents) == {}
    one.close()
