"""The application on a server of ASGI says the same, to the letter, as on one of WSGI."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from statscache.app.live.asgi import environ_of
from statscache.cli import statscache as command_line
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.errors import StatscacheError
from statscache.plugins.installed import discovery
from tests.support.messages import NOON, message
from tests.support.servers import Got, Server, get

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

IDENT = "volume-1m"


@pytest.fixture
def servers(migrated_uri: str, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """One of WSGI and one of ASGI."""
    engine = Engine(Database(migrated_uri), discovery.discover({}))
    engine.open()
    engine.count([message(timestamp=NOON + 60 * n) for n in range(3000)])
    engine.close()
    folders = [tmp_path / "wsgi", tmp_path / "asgi"]
    for folder in folders:
        folder.mkdir()
    with (
        Server("serve", folders[0], migrated_uri, config={}) as wsgi,
        Server("events", folders[1], migrated_uri, config={}) as asgi,
    ):
        yield wsgi, asgi


def said(got: Got, port: int) -> tuple[Any, ...]:
    """What does not depend on the server."""
    headers = {name.lower(): text for name, text in got.headers.items()}
    for name in ("date", "server", "transfer-encoding", "via", "connection"):
        headers.pop(name, None)
    if got.status == 304 or not got.body:
        headers.pop("content-length", None)
    if "allow" in headers:
        # Flask writes a set.
        headers["allow"] = ", ".join(sorted(headers["allow"].split(", ")))
    link = headers.pop("link", "").replace(f":{port}/", ":0/")
    return got.status, headers, link, got.body


@on_sqlite
def test_both_say_the_same(servers: tuple[Server, Server]) -> None:
    wsgi, asgi = servers
    etag = {"If-None-Match": wsgi.get(f"/api/{IDENT}").headers["ETag"]}
    requests: list[tuple[str, dict[str, str], str]] = [
        ("/api/", {}, "GET"),
        ("/api/", {}, "HEAD"),
        ("/api/", {}, "OPTIONS"),
        ("/api/", {}, "POST"),
        (f"/api/{IDENT}", {}, "GET"),
        (f"/api/{IDENT}", {}, "HEAD"),
        (f"/api/{IDENT}", etag, "GET"),
        (f"/api/{IDENT}?page=2&rows_per_page=7", {}, "GET"),
        (f"/api/{IDENT}", {"Accept": "text/csv"}, "GET"),
        (f"/api/{IDENT}", {"Accept-Encoding": "gzip"}, "GET"),
        (f"/api/{IDENT}", {"Accept": "image/png"}, "GET"),
        (f"/api/{IDENT}?callback=a.b", {}, "GET"),
        (f"/api/{IDENT}?start=nonsense", {}, "GET"),
        ("/api/no-such-ident", {}, "GET"),
        ("/api/%C3%A9v%C3%A9nement%20%22%3C", {}, "GET"),
        ("/api/%FF%FE", {}, "GET"),
        (f"/api/{IDENT}?category=%00", {}, "GET"),
        (f"/api/{IDENT}/layout", {}, "GET"),
    ]
    with closing(wsgi.connect()) as one, closing(asgi.connect()) as other:
        for _ in range(2):
            # The second time from the cache.
            for path, headers, method in requests:
                expected = said(get(one, path, headers, method), wsgi.port)
                assert said(get(other, path, headers, method), asgi.port) == expected, path


def test_an_environment_has_what_the_request_has() -> None:
    environ = environ_of(
        {
            "type": "http",
            "method": "GET",
            "http_version": "1.1",
            "scheme": "https",
            "root_path": "/stats",
            "path": "/stats/api/é",
            "query_string": b"a=%C3%A9",
            "server": ("example.org", 443),
            "client": ("192.0.2.1", 1234),
            "headers": [
                (b"host", b"example.org"),
                (b"accept", b"text/csv"),
                (b"accept", b"text/html"),
                (b"last-event-id", b"7"),
                (b"if_none_match", b"smuggled"),
                (b"content-type", b"text/plain"),
            ],
        }
    )
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/stats",
        "PATH_INFO": "/api/é".encode().decode("latin-1"),
        "QUERY_STRING": "a=%C3%A9",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "example.org",
        "HTTP_ACCEPT": "text/csv,text/html",
        "HTTP_LAST_EVENT_ID": "7",
        "CONTENT_TYPE": "text/plain",
        "wsgi.url_scheme": "https",
        "wsgi.multithread": True,
    }
    assert {name: environ[name] for name in expected} == expected
    assert "HTTP_IF_NONE_MATCH" not in environ


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = CliRunner().invoke(command_line, ["events"])
    assert isinstance(done.exception, StatscacheError)
    assert "pip install 'statscache[events]'" in str(done.exception)


@on_sqlite
def test_says_when_the_port_is_taken(
    servers: tuple[Server, Server], migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATSCACHE_SQLALCHEMY_URI", migrated_uri)
    done = CliRunner().invoke(command_line, ["events", "--port", str(servers[0].port)])
    assert isinstance(done.exception, StatscacheError)
    assert "choose another port" in str(done.exception)
