"""Reading: distinct counts beside the bare SQL of them, and one key of a large table of totals."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import flask
from sqlalchemy import insert, text

from benchmarks import databases
from benchmarks.api import getter, memory_view
from benchmarks.table import Result, median_seconds, show
from statscache.app.application import build_app
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database import tables
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins import Aggregate, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed, Source
from statscache.times import DAY

ROWS = 100_000
"""Of presence: who was there on which day of a year."""

PEOPLE = 3_000
TOTALS = 1_000_000
START = 1672531200
"""The beginning of 2023."""

MONDAY = 345_600
RANGE = f"start={START}&stop={START + 365 * DAY}"
COUNTS = {
    "people a week": "series?resolution=week",
    "people a month in Tokyo": "series?resolution=month&tz=Asia/Tokyo",
    "people an hour of the week": "series?resolution=hour-of-week",
    "people of the year": "summary?",
}
BARE = f"SELECT (timestamp - {MONDAY}) / {7 * DAY}, count(DISTINCT user) FROM %s GROUP BY 1"
REQUESTS = 200


class Presence(Aggregate):
    """Who was there; in hours, so that Tokyo and the hours of a week can be had."""

    name = "presence"
    summary = "who was there"
    description = "For the benchmark."
    keys = (Key("user", role="user"),)
    values = (Value("volume"),)
    resolutions = (timedelta(hours=1),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        """Return a row of each person."""
        return [(user, 1) for user in message.usernames]


class Totals(Presence):
    """How much each person has done."""

    name = "totals"
    resolutions = ()


def run() -> None:
    """Measure and print."""
    for name, opened in (("SQLite", databases.sqlite), ("PostgreSQL", databases.postgresql)):
        with opened() as uri:
            installed = _fill(uri)
            _measure_counts(name, uri, installed)
            _measure_lookup(name, uri, installed)


def _app(uri: str, installed: Installed, cache_bytes: int) -> flask.Flask:
    config = {"statscache.sqlalchemy.uri": uri, "statscache.app.cache_bytes": cache_bytes}
    return build_app(Settings.from_config(config), installed)


def _measure_counts(name: str, uri: str, installed: Installed) -> None:
    database = Database(uri, read_only=True)
    bare = text(BARE.replace("user", '"user"') % "presence_1h")
    with database.begin() as connection:
        floor = median_seconds(lambda: connection.execute(bare).all(), 9)
    database.dispose()
    results = [Result("the bare SQL by the week", floor * 1e3, "ms")]
    app = _app(uri, installed, 0).wsgi_app
    for label, path in COUNTS.items():
        seconds = median_seconds(_asking(app, f"/api/presence-1h/{path}&{RANGE}&count=user"), 9)
        results.append(Result(label, seconds * 1e3, "ms", "the bare SQL", seconds / floor))
    show(f"Distinct counts, {ROWS:,} rows, nothing is kept, {name}", results)


def _measure_lookup(name: str, uri: str, installed: Installed) -> None:
    results = []
    path = "/api/totals?user="
    kept = _app(uri, installed, 2**24).wsgi_app
    _, _, body = getter(kept, f"{path}user7")()
    floor = median_seconds(_repeated(_asking(memory_view(body).wsgi_app, "/")), 5)
    same = median_seconds(_repeated(_asking(kept, f"{path}user7")), 5)
    results.append(_microseconds("kept", same, floor))
    numbers = iter(range(10**9))
    cold = _app(uri, installed, 2**24).wsgi_app

    def another() -> None:
        getter(cold, f"{path}user{next(numbers) * 31 % TOTALS}")()

    results.append(
        _microseconds("another one each time", median_seconds(_repeated(another), 5), floor)
    )
    show(f"One key of a table of {TOTALS:,} totals, {name}", results)


def _microseconds(label: str, seconds: float, floor: float) -> Result:
    return Result(label, seconds / REQUESTS * 1e6, "microseconds", "memory", seconds / floor)


def _repeated(ask: Callable[[], object]) -> Callable[[], None]:
    def requests() -> None:
        for _ in range(REQUESTS):
            ask()

    return requests


def _asking(app: Any, path: str) -> Callable[[], None]:
    get = getter(app, path)

    def ask() -> None:
        status, _, body = get()
        assert status == "200 OK", body

    return ask


def _fill(uri: str) -> Installed:
    """Make the tables, as the hub does, and fill them."""
    classes = (Presence, Totals)
    installed = discovery.load([(Source("b", "b", "1"), lambda: classes)], {})
    database = Database(uri)
    engine = Engine(database, installed)
    engine.open()
    engine.close()
    database = Database(uri)
    with database.begin() as connection:
        for ident, rows in (("presence-1h", _presence()), ("totals", _totals())):
            table = installed.datasets[ident].model.__table__
            for first in range(0, len(rows), 50_000):
                connection.execute(insert(table), rows[first : first + 50_000])
            row = {"ident": ident, "revision": 1, "changed_at": time.time()}
            connection.execute(tables.revision.delete().where(tables.revision.c.ident == ident))
            connection.execute(insert(tables.revision).values(row))
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("ANALYZE" if database.backend == "sqlite" else "VACUUM ANALYZE")
    database.dispose()
    return installed


def _presence() -> list[Mapping[str, Any]]:
    generator = random.Random(1)
    found: set[tuple[int, str]] = set()
    while len(found) < ROWS:
        hour = START + generator.randrange(365 * 24) * 3600
        found.add((hour, f"user{int(generator.paretovariate(0.6)) % PEOPLE}"))
    return [{"timestamp": hour, "user": user, "volume": 1} for hour, user in sorted(found)]


def _totals() -> list[Mapping[str, Any]]:
    return [
        {"timestamp": START + number % (365 * DAY), "user": f"user{number}", "volume": number % 97}
        for number in range(TOTALS)
    ]
