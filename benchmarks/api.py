"""The API: requests per second in one process, beside a Flask view with the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import flask
from sqlalchemy import insert, text

from benchmarks import databases
from benchmarks.table import Result, median_seconds, show
from statscache import tables
from statscache.app import create_app
from statscache.database import Database

SIZES = (10_000, 1_000_000)
REQUESTS = 50
PATHS = {
    "first page": "/api/volume-by-topic-15s",
    "page 50": "/api/volume-by-topic-15s?page=50",
    "first page, CSV": "/api/volume-by-topic-15s?format=csv",
    "a day of it": "/api/volume-by-topic-15s?start=1700003600&stop=1700090000",
}
KEYS_PER_BUCKET = 10


def run() -> None:
    """Measure and print."""
    for name, opened in (("SQLite", databases.sqlite), ("PostgreSQL", databases.postgresql)):
        with opened() as uri:
            filled = 0
            for size in SIZES:
                fill(uri, filled, size)
                filled = size
                _measure(f"API, {size:,} rows on {name}", uri)


def _measure(title: str, uri: str) -> None:
    client = create_app({"statscache.sqlalchemy.uri": uri}).test_client()
    results = []
    for name, path in PATHS.items():
        body = client.get(path).data
        floor = _rate(_memory_view(body), "/")
        rate = _rate(client.get, path)
        results.append(
            Result(f"{name}, {len(body)} bytes", rate, "requests/s", "memory", rate / floor)
        )
    show(title, results)


def _memory_view(body: bytes) -> Callable[[str], Any]:
    app = flask.Flask("floor")
    app.add_url_rule("/", view_func=lambda: flask.Response(body, content_type="application/json"))
    return app.test_client().get


def _rate(get: Callable[[str], Any], path: str) -> float:
    def requests() -> None:
        for _ in range(REQUESTS):
            assert get(path).status_code == 200

    return REQUESTS / median_seconds(requests, 3)


def fill(uri: str, first: int, stop: int) -> None:
    """Write the rows from number ``first`` to ``stop`` in one statement: time is not measured."""
    database = Database(uri)
    select = (
        f"SELECT 1700000000 / 15 * 15 + (n / {KEYS_PER_BUCKET}) * 15,"
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
        connection.exec_driver_sql("ANALYZE volume_by_topic_15s")
    database.dispose()
