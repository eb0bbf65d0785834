"""The API in one process: what is kept, beside a view of Flask that returns the same bytes.

And what is read, from large tables and from a small one.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import flask
from sqlalchemy import insert, text
from werkzeug.test import EnvironBuilder

from benchmarks import databases
from benchmarks.table import Result, median_seconds, show
from statscache.app import create_app
from statscache.database import tables
from statscache.database.connection import Database

SIZES = (10_000, 1_000_000, 10_000_000)
REQUESTS = 500
ROUNDS = 61
ROWS = "/api/volume-by-topic-15s"
TOPIC = "org.fedoraproject.prod.topic.3"
EPOCH = 1700000000 // 15 * 15
KEYS_PER_BUCKET = 10

KEPT = {
    "first page": ROWS,
    "the same, CSV": f"{ROWS}?format=csv",
    "the last day": f"{ROWS}?start=-1d",
    "by topic": f"{ROWS}?topic={TOPIC}",
}
READ = {
    "first page": ROWS,
    "page 50": f"{ROWS}?page=50",
    "page 100": f"{ROWS}?page=100",
    "oldest first": f"{ROWS}?order=asc",
    "one topic": f"{ROWS}?topic={TOPIC}",
    "two topics": f"{ROWS}?topic={TOPIC}&topic=nothing",
    "an hour": f"{ROWS}?start={EPOCH + 3600}&stop={EPOCH + 7200}",
}

Get = Callable[[], tuple[str, dict[str, str], bytes]]
"""Answers one request: status, headers, body."""


def run() -> None:
    """Measure and print."""
    for name, opened in (("SQLite", databases.sqlite), ("PostgreSQL", databases.postgresql)):
        with ExitStack() as stack:
            uris = {size: stack.enter_context(opened()) for size in SIZES}
            for size, uri in uris.items():
                fill(uri, 0, size)
            _measure_kept(f"API, answers that are kept, {name}", uris[SIZES[0]])
            _measure_reading(name, uris)


def _measure_kept(title: str, uri: str) -> None:
    app = create_app({"statscache.sqlalchemy.uri": uri}).wsgi_app
    results = []
    for name, path in KEPT.items():
        # The first request reads the rows, the second one finds them.
        _, headers, body = getter(app, path)()
        floor = _rate(getter(memory_view(body).wsgi_app, "/"))
        for what, more in (("", {}), (", 304", {"HTTP_IF_NONE_MATCH": headers["ETag"]})):
            rate = _rate(getter(app, path, **more))
            label = f"{name}{what}, {len(body)} bytes"
            results.append(Result(label, rate, "requests/s", "memory", rate / floor))
    show(title, results)


def _measure_reading(name: str, uris: Mapping[int, str]) -> None:
    asks = {size: _asks(uri, size) for size, uri in uris.items()}
    seconds: dict[int, dict[str, list[float]]] = {size: defaultdict(list) for size in uris}
    for path in asks[SIZES[0]]:
        for _ in range(ROUNDS):
            # In turns, so that whatever else the machine does concerns all sizes alike.
            for size in uris:
                began = time.perf_counter()
                asks[size][path]()
                seconds[size][path].append(time.perf_counter() - began)
    small = {path: statistics.median(found) for path, found in seconds[SIZES[0]].items()}
    for size in uris:
        results = []
        for path, found in seconds[size].items():
            median = statistics.median(found)
            floor = f"that of {SIZES[0]:,} rows"
            results.append(Result(path, 1 / median, "requests/s", floor, small[path] / median))
        show(f"API, nothing is kept, {size:,} rows on {name}", results)


def _asks(uri: str, size: int) -> dict[str, Callable[[], None]]:
    """Functions that ask for one page each, which is read every time."""
    app = create_app({"statscache.sqlalchemy.uri": uri, "statscache.app.cache_bytes": 0})
    datasets = app.extensions["statscache"].service.datasets

    def asking(path: str) -> Callable[[], None]:
        get = getter(app.wsgi_app, path)

        def ask() -> None:
            datasets.last.rows.forget_counts()
            assert get()[0] == "200 OK"

        ask()
        return ask

    paths = READ | {"deep page, by cursor": _deep(app.wsgi_app, size)}
    return {name: asking(path) for name, path in paths.items()}


def _deep(app: Any, size: int) -> str:
    """The address of a page in the midst of the table."""
    middle = EPOCH + size // KEYS_PER_BUCKET // 2 * 15
    _, headers, _ = getter(app, f"{ROWS}?stop={middle}")()
    match = re.match(r"<http://localhost([^>]*)>", headers["Link"])
    assert match is not None
    return match[1].replace(f"stop={middle}&", "")


def memory_view(body: bytes) -> flask.Flask:
    """The floor: an application that answers from memory."""
    app = flask.Flask("floor")
    app.add_url_rule("/", view_func=lambda: flask.Response(body, content_type="application/json"))
    return app


def getter(app: Callable[..., Iterable[bytes]], path: str, **more: str) -> Get:
    """Asks ``app`` as a server does; the client of tests would cost more than the answer."""
    environ = EnvironBuilder(path).get_environ() | more

    def get() -> tuple[str, dict[str, str], bytes]:
        started: list[Any] = []
        chunks = app(dict(environ), lambda *start: started.append(start))
        try:
            body = b"".join(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        status, headers = started[0][:2]
        return status, dict(headers), body

    return get


def _rate(get: Get) -> float:
    def requests() -> None:
        for _ in range(REQUESTS):
            get()

    return REQUESTS / median_seconds(requests, 5)


def fill(uri: str, first: int, stop: int) -> None:
    """Write the rows from number ``first`` to ``stop`` in one statement: time is not measured."""
    database = Database(uri)
    select = (
        f"SELECT {EPOCH} + (n / {KEYS_PER_BUCKET}) * 15,"
        f" 'org.fedoraproject.prod.topic.' || (n % {KEYS_PER_BUCKET}), 1"
    )
    numbers = (
        f"WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL"
        f" SELECT n + 1 FROM numbers WHERE n + 1 < {stop})"
    )
    with database.begin() as connection:
        connection.execute(text(f"{numbers} INSERT INTO volume_by_topic_15s {select} FROM numbers"))
        connection.execute(
            tables.revision.delete().where(tables.revision.c.ident == "volume-by-topic-15s")
        )
        row = {"ident": "volume-by-topic-15s", "revision": stop, "changed_at": time.time()}
        connection.execute(insert(tables.revision).values(row))
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        # PostgreSQL would do it by itself, while we measure.
        tidy = "ANALYZE" if database.backend == "sqlite" else "VACUUM ANALYZE"
        connection.exec_driver_sql(f"{tidy} volume_by_topic_15s")
    database.dispose()
