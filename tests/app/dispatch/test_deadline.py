"""No request takes longer than it may, whatever it consists of, and however its client reads."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from statscache.app.http.client import SEND_UNTIL
from statscache.app.http.problems import Problem
from statscache.app.http.request import Request
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.database.deadline import limit
from statscache.errors import RequestTimeout, StatementTimeout
from statscache.plugins.installed import discovery
from tests.support.api_fixture import api_fixture, things
from tests.support.hub import wait_until
from tests.support.messages import NOON
from tests.support.servers import Server

IDENT = "volume-by-topic-1d"
ROWS, WIDTH = 20_000, 2_000
"""More than all the buffers between a server and its client hold."""


def fill(uri: str) -> None:
    engine = Engine(Database(uri), discovery.discover({}))
    engine.open()
    engine.close()
    with Database(uri).begin() as connection:
        connection.execute(
            text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows) "
                "INSERT INTO volume_by_topic_1d (timestamp, topic, volume) "
                "SELECT 86400 * i, CAST(:text AS text) || i, 1 FROM n"
            ),
            {"rows": ROWS, "text": "x" * WIDTH},
        )
        connection.execute(
            text("INSERT INTO statscache_revision VALUES (:ident, 1, 0)"), {"ident": IDENT}
        )


@contextmanager
def connected(server: Server, request: str) -> Iterator[socket.socket]:
    """A connection on which ``request`` was sent, with little room for the answer."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(request.replace("\n", "\r\n").encode())
        yield connection


def rest(connection: socket.socket) -> bytes:
    """What there is to read, until the server closes the connection or breaks it."""
    pieces: list[bytes] = []
    with suppress(ConnectionResetError):
        read_all(connection, pieces.append)
    return b"".join(pieces)


def read_all(connection: socket.socket, keep: Callable[[bytes], Any] = len) -> None:
    while piece := connection.recv(65_536):
        keep(piece)


def transactions(uri: str) -> int:
    """How many are open on PostgreSQL, but for our own."""
    with Database(uri).begin() as connection:
        found = connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL "
                "AND datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    return int(found or 0)


@pytest.mark.parametrize(
    "name",
    [
        "serve",
        pytest.param("gunicorn", marks=pytest.mark.long),
        pytest.param("events", marks=pytest.mark.long),
        pytest.param("gunicorn asgi", marks=pytest.mark.long),
    ],
)
def test_a_client_that_does_not_read_is_cut_off(
    name: str, migrated_uri: str, tmp_path: Path
) -> None:
    fill(migrated_uri)
    config = {"statscache.app.request_timeout": timedelta(seconds=2)}
    is_postgresql = migrated_uri.startswith("postgresql")
    whole = f"GET /api/{IDENT}?format=ndjson&rows_per_page=all HTTP/1.1\nHost: localhost\n\n"
    with Server(name, tmp_path, migrated_uri, config=config) as server:
        with connected(server, whole) as connection:
            start = connection.recv(1_000)
            assert start.startswith(b"HTTP/1.1 200")
            assert b"transfer-encoding: chunked" in start.lower()
            time.sleep(4)
            if is_postgresql:
                wait_until(lambda: transactions(migrated_uri) == 0, "the transaction ends")
            body = rest(connection)
        assert not body.endswith(b"\r\n0\r\n\r\n")
        assert len(body) < ROWS * WIDTH / 2
        if name in ("serve", "gunicorn"):
            said = server.log.read_text()
            assert said.count("a client took longer to read an answer than it may") == 1
            assert "Traceback" not in said
        # Who reads gets everything.
        with connected(server, whole.replace("\n\n", "\nConnection: close\n\n")) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            body = rest(connection)
        assert body.endswith(b"\r\n0\r\n\r\n")
        assert len(body) > ROWS * WIDTH


@pytest.mark.long
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_client_of_http_1_0_is_told_as_well(migrated_uri: str, tmp_path: Path) -> None:
    fill(migrated_uri)
    config = {"statscache.app.request_timeout": timedelta(seconds=1)}
    whole = f"GET /api/{IDENT}?format=csv HTTP/1.0\n\n"
    with (
        Server("serve", tmp_path, migrated_uri, config=config) as server,
        connected(server, whole) as connection,
    ):
        assert connection.recv(1_000).startswith(b"HTTP/1.0 200")
        time.sleep(3)
        with pytest.raises(ConnectionResetError):
            read_all(connection)


def test_listeners_are_not_cut_off_but_must_read(migrated_uri: str) -> None:
    config = {"request_timeout": timedelta(microseconds=1), "heartbeat": timedelta(seconds=10)}
    asked: list[float] = []
    with api_fixture(migrated_uri, **config) as api:
        api.count(things(("a", 1)))
        answer = api.client.get(
            "/api/sizes-1h/events",
            buffered=False,
            environ_overrides={"wsgi.multithread": True, SEND_UNTIL: asked.append},
        )
        first = next(iter(answer.response))
        assert b"sizes-1h" in first
        (until,) = asked
        assert 10 < until - time.monotonic() <= 20
        answer.close()


@pytest.mark.parametrize("limit_of", ["statement_timeout", "request_timeout"])
def test_all_statements_of_a_batch_have_one_limit(migrated_uri: str, limit_of: str) -> None:
    with api_fixture(migrated_uri, **{limit_of: timedelta(seconds=1.5)}) as api:
        api.count(things(("a", 1)))

        def be_slow(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if "sizes_1h" in statement:
                time.sleep(0.15)

        service = api.app.extensions["statscache"]
        event.listen(service.service.database.database.engine, "before_cursor_execute", be_slow)
        one = f"/api/sizes-1h/summary%3Fstart={NOON - 3600:.0f}%26stop={NOON + 3600:.0f}%26size="
        questions = [f"q={one}{number}" for number in range(20)]
        answer = api.client.get(f"/api/batch?{'&'.join(questions)}")
        assert answer.status_code == 422
        detail = answer.get_json(force=True)["detail"]
        assert "1.5 seconds that a request may" in detail
        event.remove(service.service.database.database.engine, "before_cursor_execute", be_slow)
        # The connections are as good as before.
        answer = api.client.get(f"/api/batch?{'&'.join(questions)}")
        assert [one["status"] for one in answer.json["answers"]] == [200] * 20


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_what_needs_no_statement_has_a_limit_as_well(migrated_uri: str) -> None:
    with api_fixture(migrated_uri, request_timeout=timedelta(microseconds=1)) as api:
        for address in ("/api/batch?q=/api/&q=/api/sizes-1h/layout", "/api/"):
            answer = api.client.get(address)
            assert answer.status_code == 422
            detail = answer.get_json(force=True)["detail"]
            assert "1e-06 seconds that a request may" in detail
        # A batch looks at the time between its parts, not at the end only.
        batch = Request("http", "localhost", "", "/api/batch", "q=/api/", "", "")
        with pytest.raises(Problem, match="1e-06 seconds that a request may"):
            api.app.extensions["statscache"].dispatcher.respond(batch)


def test_the_last_statement_of_several_has_what_is_left(migrated_uri: str) -> None:
    endless = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT (i + 1) & 1023 FROM n) "
        "SELECT count(*) FROM n"
    )
    database = Database(migrated_uri, read_only=True, statement_timeout=timedelta(hours=1))

    def take_too_long() -> None:
        with database.begin() as connection:
            limit(connection, time.monotonic() + 0.3)
            connection.execute(text("SELECT 1"))
            connection.execute(endless)

    with pytest.raises(StatementTimeout):
        take_too_long()
    with database.begin() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    database.dispose()


def test_a_download_that_takes_too_long_is_broken_off(migrated_uri: str) -> None:
    address = "/api/sizes-1h?format=csv&rows_per_page=all"
    with api_fixture(migrated_uri, request_timeout=timedelta(seconds=2)) as api:
        api.count(things(*(("a", number) for number in range(5_000))))
        for _ in range(2):
            # It makes room for the next one.
            answer = api.client.get(address, buffered=False)
            assert answer.status_code == 200
            time.sleep(2)
            with pytest.raises(RequestTimeout):
                list(answer.response)
            answer.close()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_who_expects_to_be_asked_for_a_body_and_has_none(migrated_uri: str, tmp_path: Path) -> None:
    request = "GET /api/ HTTP/1.1\nHost: localhost\nExpect: 100-continue\n{}\n"
    with Server("serve", tmp_path, migrated_uri, config={}) as server:
        with connected(server, request.format("Connection: close\n")) as connection:
            assert rest(connection).startswith(b"HTTP/1.1 200 OK")
        # Twice on one connection, and who has one is asked for it.
        with connected(server, request.format("") * 2) as connection:
            more = request.format("Content-Length: 2\nConnection: close\n").replace("\n", "\r\n")
            connection.sendall(more.encode())
            connection.sendall(b"{}")
            found = rest(connection)
        assert found.count(b"HTTP/1.1 200 OK") == 3
