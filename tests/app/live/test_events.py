"""Live events: through every server that they can be had from, after real commits."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from statscache.app import create_app
from statscache.counting.engine import Engine
from tests.support.databases import on_sqlite
from tests.support.hub import wait_until
from tests.support.messages import NOON, message
from tests.support.servers import Got, Listening, Refused, Server, get

IDENT = "volume-1m"
OTHER = "volume-by-topic-1d"

Starter = Callable[..., Server]

every_server = pytest.mark.parametrize(
    ("server_name", "backend"),
    [("serve", "sqlite"), ("gunicorn", "postgresql"), ("events", "postgresql")],
    indirect=["backend"],
)
threads_or_none = pytest.mark.parametrize(
    ("server_name", "backend"),
    [("serve", "sqlite"), ("events", "postgresql")],
    indirect=["backend"],
)
"""Gunicorn differs from the others in when clients come and go, and how it ends."""


@pytest.fixture
def start(migrated_uri: str, tmp_path: Path) -> Iterator[Starter]:
    """Starts a server; it ends with the test."""
    with ExitStack() as servers:

        def start_(name: str, *arguments: str, **config: Any) -> Server:
            keys = {f"statscache.app.{key}": value for key, value in config.items()}
            server = Server(name, tmp_path, migrated_uri, *arguments, config=keys)
            return servers.enter_context(server)

        yield start_


def revision_of(server: Server, ident: str) -> int:
    """As a new listener is told it."""
    with server.listen(f"/api/{ident}/events") as listening:
        revision: int = listening.event()["revision"]
        return revision


def refusal(server: Server, path: str) -> Got | None:
    """What is said instead of events."""
    try:
        with server.listen(path) as listening:
            listening.block()
    except Refused as refused:
        return refused.got
    return None


def has_ended(listening: Listening) -> bool:
    try:
        listening.block()
    except (EOFError, OSError):
        return True
    return False


@pytest.mark.parametrize(
    ("server_name", "backend"),
    [
        ("serve", "sqlite"),
        ("serve", "postgresql"),
        ("gunicorn", "postgresql"),
        ("events", "sqlite"),
        ("events", "postgresql"),
    ],
    indirect=["backend"],
)
def test_an_event_comes_for_each_commit(start: Starter, server_name: str, engine: Engine) -> None:
    server = start(server_name)
    with server.listen(f"/api/{IDENT}/events") as listening:
        assert listening.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert listening.headers["Access-Control-Allow-Origin"] == "*"
        assert listening.headers["Cache-Control"] == "no-store"
        assert listening.headers["X-Accel-Buffering"] == "no"
        assert "Content-Encoding" not in listening.headers
        # Nothing has ever been written: no event, but at once a sign that it works.
        first = listening.block()
        assert 2_000 <= int(first.fields["retry"]) < 5_000
        assert first.fields["id"]
        for number in range(1, 4):
            before = time.time()
            engine.count([message()])
            event = listening.event()
            assert event.keys() == {"ident", "revision", "changed_at"}
            assert (event["ident"], event["revision"]) == (IDENT, number)
            assert before <= event["changed_at"] <= time.time()
            rows = server.get(f"/api/{IDENT}").json
            assert [row["volume"] for row in rows] == [number]
        with server.listen(f"/api/{IDENT}/events") as another:
            # Who comes later learns what there is.
            assert another.event()["revision"] == 3


@every_server
def test_who_was_away_gets_what_it_missed(start: Starter, server_name: str, engine: Engine) -> None:
    server = start(server_name, heartbeat=timedelta(seconds=0.1))
    engine.count([message()])
    path = f"/api/events?ident={IDENT}&ident={OTHER}"
    with server.listen(path) as listening:
        first, second = listening.event(), listening.event()
        assert (first["ident"], second["ident"]) == (IDENT, OTHER)
        number = listening.last_event_id
    with server.listen(path, number) as listening:
        # Nothing happened: nothing is told but that it is alive.
        assert "data" not in listening.block().fields
        assert listening.block().comment == ""
        assert listening.last_event_id == number
    engine.count([message()])
    engine.count([message()])
    wait_until(lambda: revision_of(server, IDENT) == 3, "it is known")
    with server.listen(path, number) as listening:
        # The last of both changes.
        assert [listening.event()["revision"] for _ in range(2)] == [3, 3]
        newest = listening.last_event_id
    with server.listen(path, newest) as listening:
        assert "data" not in listening.block().fields
    for stranger in ("", "nonsense", number + ".1", "0" * 8 + number[8:], "a" * 4000):
        with server.listen(path, stranger) as listening:
            assert listening.event()["revision"] == 3


@on_sqlite
def test_a_number_of_another_database_is_no_obstacle(start: Starter, engine: Engine) -> None:
    server = start("serve")
    engine.count([message()])
    path = f"/api/{IDENT}/events"
    with server.listen(path) as listening:
        listening.event()
        number = listening.last_event_id
    name, _, _ = number.partition("-")
    with server.listen(path, f"{name}-ffff") as listening:
        assert listening.event()["revision"] == 1


@on_sqlite
def test_all_idents_unless_some_are_named(start: Starter, engine: Engine) -> None:
    server = start("serve")
    with (
        server.listen("/api/events") as all_,
        server.listen(f"/api/events?ident={OTHER}") as one,
    ):
        engine.count([message()])
        assert one.event()["ident"] == OTHER
        seen = {all_.event()["ident"] for _ in range(5)}
        assert len(seen) == 5
        assert seen <= set(engine.installed.datasets)


@threads_or_none
def test_silence_is_broken(start: Starter, server_name: str, engine: Engine) -> None:
    server = start(server_name, heartbeat=timedelta(seconds=0.2))
    with server.listen(f"/api/{IDENT}/events") as listening:
        listening.block()
        began = time.monotonic()
        for _ in range(5):
            block = listening.block()
            assert block.comment == ""
            assert block.fields == {}
        assert time.monotonic() - began > 0.7
        engine.count([message()])
        assert listening.event()["revision"] == 1


@every_server
def test_one_too_many_is_refused_until_there_is_room(
    start: Starter, server_name: str, engine: Engine
) -> None:
    arguments = ("--workers", "1") if server_name == "gunicorn" else ()
    server = start(server_name, *arguments, maximum_listeners=2, heartbeat=timedelta(seconds=0.1))
    path = f"/api/{IDENT}/events"

    def is_refused() -> bool:
        return refusal(server, path) is not None

    with server.listen(path) as first, server.listen(path) as second:
        first.block(), second.block()
        refused = refusal(server, path)
        assert refused is not None
        assert refused.status == 429
        assert int(refused.headers["Retry-After"]) > 0
        assert refused.headers["Access-Control-Allow-Origin"] == "*"
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert "statscache.app.maximum_listeners" in refused.json["detail"]
        assert server.get(path, method="HEAD").status == 429
        # Whoever does not wait is welcome.
        assert server.get("/api/").status == 200
        etag = {"If-None-Match": '"another"'}
        assert server.get(f"/api/{IDENT}?wait=1", etag).status == 200
    wait_until(lambda: not is_refused(), "there is room", server.log)
    wait_until(lambda: not is_refused(), "there is still room", server.log)
    # Nor does it take room to ask what it would be like.
    for _ in range(5):
        wait_until(lambda: server.get(path, method="HEAD").status == 200, "there is room")


@on_sqlite
def test_half_of_the_threads_are_left_to_others(start: Starter, engine: Engine) -> None:
    server = start("serve", "--threads", "4", maximum_listeners=100)
    path = f"/api/{IDENT}/events"
    with server.listen(path) as first, server.listen(path) as second:
        first.block(), second.block()
        assert refusal(server, path) is not None
        assert server.get(f"/api/{IDENT}").status == 200


@on_sqlite
def test_a_server_that_answers_one_at_a_time_lets_nobody_wait(
    start: Starter, engine: Engine
) -> None:
    server = start("gunicorn sync", maximum_listeners=10)
    engine.count([message()])
    refused = refusal(server, f"/api/{IDENT}/events")
    assert refused is not None
    assert refused.status == 429
    assert "statscache events" in refused.json["detail"]
    etag = server.get(f"/api/{IDENT}").headers["ETag"]
    assert server.get(f"/api/{IDENT}?wait=20", {"If-None-Match": etag}).status == 429


@threads_or_none
def test_a_long_poll_waits_for_a_change(start: Starter, server_name: str, engine: Engine) -> None:
    server = start(server_name)
    engine.count([message()])
    path = f"/api/{IDENT}?wait=1"
    first = server.get(path)
    assert first.status == 200
    # The time that one would wait is no part of what one asks.
    etag = first.headers["ETag"]
    assert server.get(f"/api/{IDENT}").headers["ETag"] == etag
    began = time.monotonic()
    again = server.get(path, {"If-None-Match": etag})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == etag
    assert 1 <= time.monotonic() - began < 10
    commit = threading.Timer(0.3, engine.count, [[message()]])
    commit.start()
    began = time.monotonic()
    changed = server.get(f"/api/{IDENT}?wait=25", {"If-None-Match": etag})
    assert time.monotonic() - began < 15
    commit.join()
    assert changed.status == 200
    assert [row["volume"] for row in changed.json] == [2]
    assert changed.headers["ETag"] != etag
    # Who has something older need not wait.
    began = time.monotonic()
    assert server.get(f"/api/{IDENT}?wait=25", {"If-None-Match": etag}).status == 200
    assert time.monotonic() - began < 15


@every_server
def test_others_are_answered_while_many_wait(
    start: Starter, server_name: str, engine: Engine
) -> None:
    count = {"serve": 8, "gunicorn": 4, "events": 60}[server_name]
    arguments = {"serve": ("--threads", "16"), "gunicorn": ("--threads", "16"), "events": ()}
    server = start(server_name, *arguments[server_name])
    engine.count([message()])
    with ExitStack() as waiting:
        listening = [waiting.enter_context(server.listen("/api/events")) for _ in range(count)]
        for each in listening:
            each.event()
        with closing(server.connect()) as connection:
            for number in range(2, 12):
                engine.count([message()])
                wait_until(
                    lambda number=number: (
                        get(connection, f"/api/{IDENT}").json[0]["volume"] == number
                    ),
                    "it is served",
                    server.log,
                )
        # Everybody has heard of the last one by now, or will.
        for each in listening:
            while True:
                event = each.event()
                if (event["ident"], event["revision"]) == (IDENT, 11):
                    break


@pytest.mark.parametrize(
    ("server_name", "arguments"),
    [("serve", ("--threads", "130")), ("events", ())],
)
@pytest.mark.parametrize("rows", ["", "?rows=true"])
def test_listeners_take_no_connections(
    start: Starter,
    server_name: str,
    arguments: tuple[str, ...],
    rows: str,
    engine: Engine,
    migrated_uri: str,
) -> None:
    """Sixty come at once, to a process that has fifteen connections."""
    server = start(server_name, *arguments)
    engine.count([message()])
    with ExitStack() as waiting:
        connections = [waiting.enter_context(closing(server.connect())) for _ in range(60)]
        for connection in connections:
            connection.request("GET", f"/api/{IDENT}/events{rows}")
        listening = []
        for connection in connections:
            answer = waiting.enter_context(connection.getresponse())
            assert answer.status == 200, answer.read()
            listening.append(Listening(answer))
        for each in listening:
            assert each.event()["revision"] == 1
        if migrated_uri.startswith("postgresql"):
            # Nor does any of them keep a transaction open, which would keep dead rows from vacuum.
            with sa.create_engine(migrated_uri, poolclass=sa.NullPool).connect() as sql:
                assert sql.scalar(_OPEN_TRANSACTIONS) == 0
        engine.count([message()])
        for each in listening:
            assert each.event()["revision"] == 2
        assert server.get(f"/api/{IDENT}").json[0]["volume"] == 2


_OPEN_TRANSACTIONS = sa.text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'idle in transaction'
""")


@threads_or_none
def test_rows_are_sent_along_where_they_are_small(
    start: Starter, server_name: str, engine: Engine
) -> None:
    server = start(server_name)
    noon = int(NOON)
    with server.listen(f"/api/{IDENT}/events?rows=true") as listening:
        listening.block()
        engine.count([message(timestamp=NOON + 60 * n) for n in range(3)])
        event = listening.event()
        assert event["revision"] == 1
        assert event["rows"] == [{"timestamp": noon + 60 * n, "volume": 1} for n in (2, 1, 0)]
        # Of buckets, whole ones only, the newest, and a few kilobytes of them.
        engine.count([message(timestamp=NOON + 60 * n) for n in range(500)])
        event = listening.event()
        assert event["rows"] == server.get(f"/api/{IDENT}").json[: len(event["rows"])]
        assert 50 < len(event["rows"]) < 100
    topic = "org.fedoraproject.prod.some." + "x" * 100
    engine.count([message(f"{topic}.{n}") for n in range(50)])
    with server.listen(f"/api/{OTHER}/events?rows=true") as listening:
        # One bucket, and it is too large.
        assert listening.event().keys() == {"ident", "revision", "changed_at"}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/volume-1mm/events", 404, "did you mean"),
        ("/api/events?ident=volume-1mm", 400, "volume-1m"),
        ("/api/events?since=1", 400, "is not a parameter"),
        (f"/api/{IDENT}/events?rows=maybe", 400, "must be one of"),
        (f"/api/{IDENT}/events?rows=true&rows=true", 400, "more than once"),
        (f"/api/{IDENT}?wait=1000", 400, "from 0 to 55"),
        (f"/api/{IDENT}?wait=-1", 400, "from 0 to 55"),
        (f"/api/{IDENT}?wait=soon", 400, "from 0 to 55"),
    ],
)
@on_sqlite
def test_what_makes_no_sense_is_refused(
    migrated_uri: str, path: str, status: int, words: str
) -> None:
    got = create_app({"statscache.sqlalchemy.uri": migrated_uri}).test_client().get(path)
    assert got.status_code == status
    assert words in got.text
    assert got.content_type == "application/problem+json"


@every_server
def test_listeners_do_not_keep_the_server_from_ending(
    start: Starter, server_name: str, engine: Engine
) -> None:
    server = start(server_name)
    engine.count([message()])
    with (
        server.listen(f"/api/{IDENT}/events") as listening,
        server.listen("/api/events") as another,
    ):
        listening.block(), another.block()
        assert server.stop(signal.SIGTERM) < 20
        wait_until(lambda: has_ended(listening), "the stream ends")


@every_server
def test_a_page_that_is_loaded_anew_finds_room(
    start: Starter, server_name: str, engine: Engine
) -> None:
    arguments = ("--workers", "1") if server_name == "gunicorn" else ()
    server = start(server_name, *arguments, maximum_listeners=1)
    engine.count([message()])
    for _ in range(20):
        # Long before a heartbeat could show that the last one is gone.
        with server.listen(f"/api/{IDENT}/events") as listening:
            listening.event()
        time.sleep(0.05)


@on_sqlite
def test_other_servers_of_asgi_will_do(start: Starter, engine: Engine) -> None:
    server = start("gunicorn asgi")
    with server.listen(f"/api/{IDENT}/events") as listening:
        listening.block()
        engine.count([message()])
        assert listening.event()["revision"] == 1
    assert server.get(f"/api/{IDENT}").json[0]["volume"] == 1
    assert server.get("/api/nothing").status == 404
