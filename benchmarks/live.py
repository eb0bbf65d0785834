"""Live: through the real fedmsg-hub on loopback, beside a consumer that does nothing."""

from __future__ import annotations

import os
import pprint
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zmq
from sqlalchemy import select

from benchmarks import databases, noop
from benchmarks.messages import texts
from benchmarks.table import Result, show
from statscache.database import tables
from statscache.database.connection import Database

ROOT = Path(__file__).parent.parent
PATIENCE = 120.0
"""Seconds after which a hub has not got all the messages."""


def run(count: int = 50_000) -> None:
    """Measure and print."""
    messages = texts(count)
    floor = _noop(messages)
    results = [Result("a consumer that does nothing (the floor)", floor, "messages/s")]
    for name, opened in (("SQLite", databases.sqlite), ("PostgreSQL", databases.postgresql)):
        with opened() as uri:
            rate = _statscache(messages, uri)
        results.append(
            Result(f"statscache into {name}", rate, "messages/s", "the floor", rate / floor)
        )
    show(f"Live, {count:,} messages through fedmsg-hub (the goal is half of the floor)", results)


def _noop(messages: list[bytes]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        environment = {noop.EXPECTED: str(len(messages)), noop.RESULT: str(result)}
        return _publish(
            messages,
            Path(folder),
            {"statscache.bench.noop": True},
            environment,
            lambda: float(result.read_text() or 0) if result.exists() else None,
        )


def _statscache(messages: list[bytes], uri: str) -> float:
    database = Database(uri)

    def finished() -> float | None:
        with database.begin() as connection:
            query = select(tables.lane.c.messages, tables.lane.c.committed_at)
            row = connection.execute(query).one_or_none()
        return row.committed_at if row and row.messages >= len(messages) else None

    config = {"statscache.consumer.enabled": True, "statscache.sqlalchemy.uri": uri}
    with tempfile.TemporaryDirectory() as folder:
        rate = _publish(messages, Path(folder), config, {}, finished)
    database.dispose()
    return rate


def _publish(
    messages: list[bytes],
    folder: Path,
    config: dict[str, object],
    environment: dict[str, str],
    finished: Callable[[], float | None],
) -> float:
    context = zmq.Context()
    bus = context.socket(zmq.XPUB)
    bus.setsockopt(zmq.SNDHWM, 0)
    port = bus.bind_to_random_port("tcp://127.0.0.1")
    config = {
        "endpoints": {"bench": [f"tcp://127.0.0.1:{port}"]},
        "environment": "dev",
        "topic_prefix": "org.fedoraproject",
        "zmq_enabled": True,
        "zmq_publish_endpoints": "",
        "validate_signatures": False,
    } | config
    (folder / "fedmsg.d").mkdir()
    (folder / "fedmsg.d" / "bench.py").write_text(f"config = {pprint.pformat(config)}\n")
    arguments = [str(Path(sys.executable).parent / "fedmsg-hub")]
    if environment:
        arguments += ["--with-consumers", "benchmarks.noop:NoopConsumer"]
    hub = subprocess.Popen(
        arguments,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        bus.recv()
        time.sleep(1)
        began = time.time()
        for message in messages:
            bus.send_multipart([b"org.fedoraproject.prod", message])
        while (ended := finished()) is None:
            if time.time() - began > PATIENCE or hub.poll() is not None:
                raise RuntimeError("the hub did not get all the messages")
            time.sleep(0.05)
        return len(messages) / (ended - began)
    finally:
        hub.terminate()
        hub.wait()
        bus.close(linger=0)
        context.term()
