"""datagrepper's two routes, re-created for tests: a process of its own, that behaves as badly.

    python -m tests.support.datagrepper --store FILE [--port 0] [--set lag=5] [--set share_502=0.1]

It prints its port. Messages and settings are in a SQLite file, so that other processes can add
messages, and change what it does, while it runs. From a program::

    with Datagrepper(tmp_path / "archive.db", lag=5) as archive:
        archive.add(messages)
        archive.set(share_502=0.1)
        requests.get(archive.url + "raw")

What it does as the real one: without a time it answers for the last hour; ``start=0`` switches the
window off; both ends are inclusive; rows are ordered by whole seconds, and within a second in an
order that differs from request to request; pages are OFFSETs, with a COUNT for each; unknown
parameters are ignored; the content type echoes what was accepted; errors are pages of HTML;
a message without id gets one that is invented; ``(msg_id, timestamp)`` is unique; the values of one
parameter (``user``, ``package``, ``category``, ``topic``) are alternatives, and ``not_`` leaves
messages out. Whom a message is about the real one knows by an index of its own; here we say it.

What is random comes from the seed, and from how many requests have come before.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import math
import os
import random
import select
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self

import flask
import orjson
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadGateway, BadRequest, HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from statscache.message import Message
from tests.support.paths import ROOT

DEFAULT_DELTA = 3600.0
"""Seconds before now that are answered for when no time is given."""

DEFAULT_ROWS_PER_PAGE = 25
MOST_ROWS_PER_PAGE = 100
LONGEST_HANG = 120.0
NO_ANSWER = 999
"""In place of a status: the connection ended instead, or will."""

FILTERS = [
    not_ + name for not_ in ("", "not_") for name in ("user", "package", "category", "topic")
]

SETTINGS: dict[str, Any] = {
    # Seconds after its timestamp, and after it was added, before which a message does not appear.
    "lag": 0.0,
    "lag_after_adding": 0.0,
    # Seconds that every answer takes.
    "latency": 0.0,
    # Shares of the requests, 0 to 1, that end badly.
    "share_500": 0.0,
    "share_502": 0.0,
    "share_broken": 0.0,  # JSON that ends too early
    "share_truncated": 0.0,  # a body that is shorter than was announced
    "share_429": 0.0,
    "share_reset": 0.0,  # the connection is reset
    "share_hang": 0.0,  # no answer until the client gives up
    # The header that goes with 429 and with 503; None: none.
    "retry_after": "1",
    # There is no /v2/search.
    "is_old": False,
    # Everything is 503. What is added meanwhile appears when it is over, in the course of
    # so many seconds.
    "outage": False,
    "recovery": 0.0,
    # Windows of more rows end as 502, after so many seconds; None: none is too large.
    "most_rows": None,
    "too_slow_after": 0.0,
    # The share of the requests in which the rows of a second have another order than usual.
    "unstable": 1.0,
    # Ids of messages that are counted, and on no page.
    "withheld": [],
    # "name:password", without which everything is 401.
    "credentials": None,
}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    number INTEGER PRIMARY KEY,
    msg_id TEXT NOT NULL,
    timestamp REAL NOT NULL,
    topic TEXT NOT NULL,
    category TEXT NOT NULL,
    content BLOB NOT NULL,
    added REAL,
    UNIQUE (msg_id, timestamp)
);
CREATE INDEX IF NOT EXISTS by_time ON message (timestamp);
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS request (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, path TEXT, arguments TEXT, status INTEGER
);
"""

_AT_ONCE = 10_000


@dataclass(frozen=True)
class Request:
    """What was asked, and what came of it.

    Attributes:
        at: when it came, UNIX seconds.
        path: ``raw`` or ``v2/search``.
        arguments: names and values, in their order.
        status: of the answer, or :data:`NO_ANSWER`.
    """

    at: float
    path: str
    arguments: list[tuple[str, str]]
    status: int

    def __getitem__(self, name: str) -> str:
        """The first value of an argument."""
        return dict(reversed(self.arguments))[name]

    def all(self, name: str) -> list[str]:
        """All values of an argument."""
        return [value for key, value in self.arguments if key == name]


class Store:
    """The SQLite file; any number of processes may use it at a time."""

    def __init__(self, path: Path, seed: int = 0) -> None:
        self.path = path
        self.seed = seed
        self._local = threading.local()
        # executescript() does not wait for a lock, execute() does.
        connection = self.connection()
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)

    def connection(self) -> sqlite3.Connection:
        """One for each thread and process, that commits at once."""
        if getattr(self._local, "pid", None) != os.getpid():
            made = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("PRAGMA synchronous = OFF")
            made.create_function("is_about", 3, _is_about, deterministic=True)
            self._local.made, self._local.pid = made, os.getpid()
        found: sqlite3.Connection = self._local.made
        return found

    def close(self) -> None:
        """Close the connection of this thread."""
        made = getattr(self._local, "made", None)
        if made is not None:
            made.close()
        self._local = threading.local()

    def set(self, **settings: Any) -> None:
        """Change what the server does, from its next request on; see :data:`SETTINGS`."""
        for name in settings:
            if name not in SETTINGS:
                raise ValueError(f"no setting {name!r}; there are {', '.join(SETTINGS)}")
        before = self.settings()
        connection = self.connection()
        for name, value in settings.items():
            connection.execute(
                "INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, json.dumps(value))
            )
        if before["outage"] and not self.settings()["outage"]:
            connection.execute(
                "UPDATE message SET added = ? + ? * (abs(random()) % 1000) / 1000.0"
                " WHERE added IS NULL",
                (time.time(), self.settings()["recovery"]),
            )

    def settings(self) -> dict[str, Any]:
        """All of them."""
        rows = self.connection().execute("SELECT name, value FROM setting")
        return SETTINGS | {name: json.loads(value) for name, value in rows}

    def add(self, messages: Iterable[Message | dict[str, Any]]) -> int:
        """Store messages (fedmsg's dicts), and give how many were new."""
        added = None if self.settings()["outage"] else time.time()
        connection = self.connection()
        count = 0
        remaining = iter(messages)
        while some := list(islice(remaining, _AT_ONCE)):
            connection.execute("BEGIN IMMEDIATE")
            try:
                (number,) = connection.execute("SELECT max(number) FROM message").fetchone()
                rows = self._rows(some, number or 0, added)
                count += connection.executemany(
                    "INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?, ?)", rows
                ).rowcount
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        return count

    def _rows(
        self, messages: Iterable[Message | dict[str, Any]], number: int, added: float | None
    ) -> Iterator[tuple[Any, ...]]:
        for number, message in enumerate(messages, number + 1):  # noqa: B020
            raw = message.raw if isinstance(message, Message) else message
            when = round(float(raw["timestamp"]), 6)
            ident = raw.get("msg_id") or (raw.get("headers") or {}).get("message-id")
            if not ident:
                bits = random.Random(f"{self.seed}:{number}").getrandbits(128)
                year = datetime.fromtimestamp(when, UTC).year
                ident = f"{year}-{uuid.UUID(int=bits, version=4)}"
            content = orjson.dumps(raw, option=orjson.OPT_NON_STR_KEYS)
            yield (number, ident, when, raw["topic"], category_of(raw["topic"]), content, added)

    def clear(self) -> None:
        """Forget messages, settings and requests."""
        for table in ("message", "setting", "request"):
            self.connection().execute(f"DELETE FROM {table}")

    def note(self, path: str, arguments: Iterable[tuple[str, str]]) -> int:
        """Remember a request that has come; returns its number."""
        made = self.connection().execute(
            "INSERT INTO request (at, path, arguments, status) VALUES (?, ?, ?, ?)",
            (time.time(), path, json.dumps(list(arguments)), NO_ANSWER),
        )
        return int(made.lastrowid or 0)

    def place(self, number: int) -> int:
        """How many requests have come before this one."""
        (first,) = self.connection().execute("SELECT min(number) FROM request").fetchone()
        return number - int(first or number)

    def note_answer(self, number: int, status: int) -> None:
        """Remember how a request was answered."""
        self.connection().execute(
            "UPDATE request SET status = ? WHERE number = ?", (status, number)
        )

    def requests(self) -> list[Request]:
        """All that were asked."""
        rows = self.connection().execute(
            "SELECT at, path, arguments, status FROM request ORDER BY number"
        )
        return [
            Request(at, path, [(name, value) for name, value in json.loads(arguments)], status)
            for at, path, arguments, status in rows
        ]

    def count(self, query: Query, settings: dict[str, Any]) -> int:
        """How many rows there are for a query, now."""
        where, values = query.where(settings)
        found = self.connection().execute(f"SELECT count(*) FROM message WHERE {where}", values)
        return int(found.fetchone()[0])

    def page(
        self, query: Query, settings: dict[str, Any], generator: random.Random
    ) -> list[tuple[Any, ...]]:
        """The rows of a page: id, time, topic, category, content."""
        where, values = query.where(settings)
        withheld = settings["withheld"]
        where += f" AND msg_id NOT IN ({', '.join('?' * len(withheld))})"
        # Some permutation of the rows, without storing one.
        factor = 2_654_435
        if generator.random() < settings["unstable"]:
            factor = generator.randrange(1_000_003, 2_147_483_629)
        limit = query.rows_per_page or -1
        ordered = f"second {query.order}, tie"
        return (
            self.connection()
            .execute(
                "SELECT msg_id, timestamp, topic, category, content FROM ("
                " SELECT number, CAST(timestamp AS INTEGER) AS second,"
                f" (number * {factor}) % 2147483629 AS tie"
                f" FROM message WHERE {where} ORDER BY {ordered} LIMIT ? OFFSET ?"
                f") JOIN message USING (number) ORDER BY {ordered}",
                (*values, *withheld, limit, (query.page - 1) * query.rows_per_page),
            )
            .fetchall()
        )


@dataclass(frozen=True)
class Query:
    """What a request asks for."""

    start: float
    end: float
    delta: float
    order: str
    page: int
    rows_per_page: int
    filters: dict[str, list[str]]

    @classmethod
    def of(cls, arguments: MultiDict[str, str]) -> Self:
        """Understand the parameters, as the real one does."""
        start, end, delta = (_time(arguments.get(name)) for name in ("start", "end", "delta"))
        if delta is None:
            delta = DEFAULT_DELTA
        if end is None:
            end = time.time() if start is None else start + delta
        if start is None:
            start = end - delta
        order = arguments.get("order", "desc")
        if order not in ("asc", "desc"):
            raise BadRequest("order must be either 'desc' or 'asc'")
        page = _whole(arguments, "page", 1)
        if page < 1:
            raise BadRequest("page must be > 0")
        rows_per_page = _whole(arguments, "rows_per_page", DEFAULT_ROWS_PER_PAGE)
        if not 0 <= rows_per_page <= MOST_ROWS_PER_PAGE:
            raise BadRequest(f"rows_per_page must be <= {MOST_ROWS_PER_PAGE}")
        return cls(
            start,
            end,
            end - start,
            order,
            page,
            rows_per_page,
            {name: arguments.getlist(name) for name in FILTERS},
        )

    def where(self, settings: dict[str, Any]) -> tuple[str, list[Any]]:
        """An SQL condition and its values."""
        now = time.time()
        conditions = ["added <= ?"]
        values: list[Any] = [now - settings["lag_after_adding"]]
        newest = now - settings["lag"] if settings["lag"] else math.inf
        if self.start:
            conditions.append("timestamp BETWEEN ? AND ?")
            values += [round(self.start, 6), min(round(self.end, 6), newest)]
        elif settings["lag"]:
            conditions.append("timestamp <= ?")
            values.append(newest)
        for name, wanted in self.filters.items():
            column = name.removeprefix("not_")
            condition = f"{column} IN (SELECT value FROM json_each(?))"
            if column in ("user", "package"):
                condition = f"is_about('{column}', content, ?)"
            if wanted:
                conditions.append(f"{'NOT ' if name != column else ''}{condition}")
                values.append(json.dumps(wanted))
        return " AND ".join(conditions), values


def _is_about(column: str, content: bytes, names: str) -> bool:
    message = Message.from_fedmsg(orjson.loads(content))
    about = message.usernames if column == "user" else message.packages
    return not about.isdisjoint(json.loads(names))


def _time(text: str | None) -> float | None:
    """Seconds, or a date of ISO 8601, of which the offset is lost where its plus was a space."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.partition(" ")[0])
    except ValueError:
        raise BadRequest(f"not a time: {text}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _whole(arguments: MultiDict[str, str], name: str, default: int) -> int:
    try:
        return int(arguments.get(name, default))
    except ValueError:
        raise BadRequest(f"{name} must be a whole number") from None


def category_of(topic: str) -> str:
    """What the archive takes for the category of a topic."""
    tokens = topic.split(".")
    place = 2 if "VirtualTopic" in topic else 3
    return tokens[place] if len(tokens) > place else "Unclassified"


def as_fedmsg(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row of ``/raw``."""
    ident, timestamp, topic, category, content = row
    raw = orjson.loads(content)
    return {
        "category": category,
        "certificate": raw.get("certificate"),
        "crypto": raw.get("crypto"),
        "headers": raw.get("headers"),
        "i": raw.get("i", 0),
        "msg": raw.get("msg", {}),
        "msg_id": ident,
        "signature": raw.get("signature"),
        "source_name": "datanommer",
        "source_version": "1.0",
        "timestamp": timestamp,
        "topic": topic,
        "username": raw.get("username"),
    }


def as_fedora_messaging(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row of ``/v2/search``."""
    ident, timestamp, topic, _, content = row
    raw = orjson.loads(content)
    return {
        "id": ident,
        "topic": topic,
        "body": raw.get("msg", {}),
        "headers": raw.get("headers") or {},
        "sent_at": datetime.fromtimestamp(timestamp, UTC).isoformat(),
    }


def create_app(store: Store) -> flask.Flask:
    """The two routes over ``store``."""
    app = flask.Flask(__name__)

    @app.before_request
    def misbehave() -> flask.Response | None:
        path = flask.request.path.strip("/")
        flask.g.number = store.note(path, flask.request.args.items(multi=True))
        flask.g.random = random.Random(f"{store.seed}:{store.place(flask.g.number)}")
        settings = flask.g.settings = store.settings()
        time.sleep(settings["latency"])
        _check_credentials(settings["credentials"])
        if settings["outage"]:
            return _error(503, "Service Unavailable", settings["retry_after"])
        chance = flask.g.random.random()
        for kind, spoil in _FAULTS.items():
            chance -= settings[f"share_{kind}"]
            if chance < 0:
                spoiled: flask.Response | None = spoil(settings)
                return spoiled
        return None

    @app.get("/raw")
    @app.get("/raw/")
    def raw() -> flask.Response:
        return _answer(store, as_fedmsg)

    @app.get("/v2/search")
    @app.get("/v2/search/")
    def search() -> flask.Response:
        if flask.g.settings["is_old"]:
            flask.abort(404)
        return _answer(store, as_fedora_messaging)

    @app.after_request
    def finish(response: flask.Response) -> flask.Response:
        store.note_answer(flask.g.number, response.status_code)
        if flask.g.get("is_broken") and response.status_code == 200:
            whole = response.get_data()
            response.set_data(whole[: len(whole) // 2])
            if flask.g.is_broken == "truncated":
                response.headers["Content-Length"] = str(len(whole))
        return response

    @app.errorhandler(HTTPException)
    def as_html(error: HTTPException) -> flask.Response:
        return flask.Response(error.get_body(), error.code, mimetype="text/html")

    return app


def _answer(store: Store, shape: Any) -> flask.Response:
    settings = flask.g.settings
    query = Query.of(flask.request.args)
    total = store.count(query, settings)
    if settings["most_rows"] is not None and total > settings["most_rows"]:
        time.sleep(settings["too_slow_after"])
        raise BadGateway("The proxy server received an invalid response from an upstream server.")
    rows = [shape(row) for row in store.page(query, settings, flask.g.random)]
    content = {
        "arguments": {
            "categories": query.filters["category"],
            "contains": [],
            "delta": query.delta,
            "end": query.end,
            "meta": [],
            "order": query.order,
            "page": query.page,
            "rows_per_page": query.rows_per_page,
            "start": query.start,
            "packages": query.filters["package"],
            "topics": query.filters["topic"],
            "users": query.filters["user"],
        },
        "count": len(rows),
        "pages": math.ceil(total / query.rows_per_page) if query.rows_per_page else 1,
        "raw_messages": rows,
        "total": total,
    }
    accepted = flask.request.headers.get("Accept", "*/*")
    if flask.request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return flask.Response(f"<html><body>{len(rows)} messages</body></html>")
    mimetype = "application/json" if accepted == "*/*" else accepted
    return flask.Response(orjson.dumps(content), mimetype=mimetype)


def _check_credentials(credentials: str | None) -> None:
    if credentials is None:
        return
    given = flask.request.headers.get("Authorization", "")
    wanted = "Basic " + base64.b64encode(credentials.encode()).decode()
    if not hmac.compare_digest(given, wanted):
        flask.abort(401)


def _error(status: int, title: str, retry_after: str | None = None) -> flask.Response:
    page = f"<!DOCTYPE html><html><head><title>{status} {title}</title></head><h1>{title}</h1>"
    response = flask.Response(page, status, mimetype="text/html")
    if retry_after is not None:
        response.headers["Retry-After"] = retry_after
    return response


def _break(kind: str) -> None:
    flask.g.is_broken = kind


class _NoAnswer(flask.Response):
    """The connection ends instead."""

    def __call__(self, *_: Any) -> Any:
        raise ConnectionResetError


def _reset(_: dict[str, Any]) -> flask.Response:
    connection: socket.socket = flask.request.environ["werkzeug.socket"]
    # To linger for no time is to reset.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    return _NoAnswer(status=NO_ANSWER)


def _hang(_: dict[str, Any]) -> flask.Response:
    connection: socket.socket = flask.request.environ["werkzeug.socket"]
    # Readable is what has been closed at the other end: nobody sends a second request before.
    select.select([connection], [], [], LONGEST_HANG)
    return _NoAnswer(status=NO_ANSWER)


_FAULTS: dict[str, Any] = {
    "500": lambda _: _error(500, "Internal Server Error"),
    "502": lambda _: _error(502, "Proxy Error"),
    "broken": lambda _: _break("broken"),
    "truncated": lambda _: _break("truncated"),
    "429": lambda settings: _error(429, "Too Many Requests", settings["retry_after"]),
    "reset": _reset,
    "hang": _hang,
}


class Datagrepper:
    """The server in a process of its own; a context manager.

    Args:
        path: of the SQLite file; a temporary one when absent.
        port: on loopback; any free one for 0.
        seed: of everything that is random, invented ids too.
        settings: see :data:`SETTINGS`.
    """

    def __init__(
        self, path: Path | None = None, *, port: int = 0, seed: int = 0, **settings: Any
    ) -> None:
        self._folder = tempfile.TemporaryDirectory() if path is None else None
        self.path = Path(self._folder.name) / "archive.db" if self._folder else Path(str(path))
        self.port = port
        self.store = Store(self.path, seed)
        self.store.set(**settings)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.store.close()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def url(self) -> str:
        """Its address, which ends with a slash."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def requests(self) -> list[Request]:
        """All that were asked."""
        return self.store.requests()

    def start(self) -> None:
        """Start it, and wait until it listens; again on the same port."""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.datagrepper"),
                *("--store", str(self.path)),
                *("--port", str(self.port)),
                *("--seed", str(self.store.seed)),
                "--until-stdin-ends",
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server did not start: see its errors above")
        self.port = int(line)

    def stop(self) -> None:
        """End it at once; what it has stays in the file."""
        if self._process is not None:
            with self._process as process:
                process.kill()
            self._process = None

    def add(self, messages: Iterable[Message | dict[str, Any]]) -> int:
        """Store messages (fedmsg's dicts), and give how many were new."""
        return self.store.add(messages)

    def set(self, **settings: Any) -> None:
        """Change what it does, from its next request on; see :data:`SETTINGS`."""
        self.store.set(**settings)

    def clear(self) -> None:
        """Forget messages, settings and requests."""
        self.store.clear()


class _Quiet(WSGIRequestHandler):
    def handle(self) -> None:
        """A connection that was reset is nothing to talk about."""
        with suppress(OSError):
            super().handle()

    def log(self, *_: Any) -> None:
        """Requests are in the store."""

    def connection_dropped(self, *_: Any) -> None:
        """Clients may give up, and connections be reset."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.datagrepper")
    parser.add_argument("--store", type=Path, required=True, help="SQLite file, made if absent")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", type=Path, help="a file of messages, JSON lines")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON")
    parser.add_argument("--until-stdin-ends", action="store_true", help="end with the parent")
    options = parser.parse_args()
    store = Store(options.store, options.seed)
    for setting in options.set:
        name, _, value = setting.partition("=")
        store.set(**{name: json.loads(value)})
    if options.add:
        with options.add.open("rb") as binary:
            store.add(orjson.loads(line) for line in binary)
    server = make_server(
        "127.0.0.1", options.port, create_app(store), threaded=True, request_handler=_Quiet
    )
    print(server.port, flush=True)
    if options.until_stdin_ends:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
        # Requests may hang.
        os._exit(0)
    with closing(server.socket):
        server.serve_forever()


if __name__ == "__main__":
    main()
