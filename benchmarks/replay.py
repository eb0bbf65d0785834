"""Replay: decode, fold into every bundled plugin, commit; against what the parts cost alone."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks import databases
from benchmarks.messages import texts
from benchmarks.table import Result, median_seconds, show
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.hub.intake import count_texts
from statscache.plugins.installed import discovery

BATCH = 10_000
GOAL = {"SQLite": 50_000, "PostgreSQL": 25_000}
"""Messages per second that the design asks for, on one core."""


def run(count: int = 100_000) -> None:
    """Measure and print."""
    messages = texts(count)
    decoded = count / median_seconds(lambda: _decode(messages), 3)
    upserted = _plain_upserts()
    results = [
        Result("orjson.loads alone (a floor)", decoded, "messages/s"),
        Result("plain upserts into SQLite (a floor)", upserted, "rows/s"),
    ]
    for name, opened in (("SQLite", databases.sqlite), ("PostgreSQL", databases.postgresql)):
        with opened() as uri:
            wall, cpu = _replay(uri, messages)
        results += [
            Result(
                f"replay into {name}",
                count / wall,
                "messages/s",
                "orjson.loads alone",
                count / wall / decoded,
            ),
            Result(
                "  per second of our processor time",
                count / cpu,
                "messages/s",
                f"the goal of {GOAL[name]:,}",
                count / cpu / GOAL[name],
            ),
        ]
    show(f"Replay of {count:,} messages of {sum(map(len, messages)) // count} bytes", results)


def _decode(messages: list[bytes]) -> None:
    for text in messages:
        orjson.loads(text)


def _replay(uri: str, messages: list[bytes]) -> tuple[float, float]:
    engine = Engine(Database(uri), discovery.discover({}))
    engine.open()
    wall, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(messages), BATCH):
        outcome = count_texts(engine, messages[first : first + BATCH])
        assert not outcome.duplicates
        assert not outcome.failing
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    engine.close()
    return wall, cpu


def _plain_upserts(rows: int = 200_000) -> float:
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(
            "CREATE TABLE floor (time INT, key TEXT, value INT, PRIMARY KEY (time, key))"
            " WITHOUT ROWID"
        )
        values = [(number // 10, f"key {number % 10}", 1) for number in range(rows)]

        def upsert() -> None:
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO floor VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET value = value + excluded.value",
                values,
            )
            connection.execute("COMMIT")

        rate = rows / median_seconds(upsert, 3)
        connection.close()
    return rate
