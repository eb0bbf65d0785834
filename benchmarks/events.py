"""Live events: what hundreds of listeners cost those who only ask, and how soon they hear."""

from __future__ import annotations

import http.client
import os
import re
import resource
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import databases
from benchmarks.messages import texts
from benchmarks.table import Result, show
from statscache.config import URI_VARIABLE
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.message import Message, decode
from statscache.plugins.installed import discovery

LISTENERS = 300
SECONDS = 6.0
COMMIT_EVERY = 0.5
PATH = "/api/volume-1m"
SETUPS = {
    "statscache serve, a thread each": ("serve", "--threads", str(2 * LISTENERS)),
    "statscache events": ("events",),
}
_ADDRESS = re.compile(r"Serving on http://127\.0\.0\.1:([0-9]+)/")


def run(listeners: int = LISTENERS) -> None:
    """Measure and print."""
    for name, opened in (("SQLite", databases.sqlite), ("PostgreSQL", databases.postgresql)):
        with opened() as uri:
            engine = Engine(Database(uri), discovery.discover({}))
            engine.open()
            messages = iter([decode(text) for text in texts(20_000)])
            engine.count([next(messages)])
            results = []
            for setup, arguments in SETUPS.items():
                with _server(uri, *arguments) as (port, process):
                    before, _ = _measure(port, port, 0, engine, messages)
                    unused = _memory(process)
                    asked, delays = _measure(port, port, listeners, engine, messages)
                    memory = (_peak_memory(process) - unused) / listeners
                results += _results(setup, before, asked, delays)
                results.append(Result("  memory of a listener", memory / 1024, "KB"))
            with (
                _server(uri, "serve") as (port, _),
                _server(uri, "events") as (event_port, _),
            ):
                before, _ = _measure(port, event_port, 0, engine, messages)
                asked, delays = _measure(port, event_port, listeners, engine, messages)
            results += _results("serve, with events beside it", before, asked, delays)
            engine.close()
        show(f"{listeners} listeners, a commit every {COMMIT_EVERY} s into {name}", results)


class Asked(NamedTuple):
    """Requests per second, and the seconds that all but one of a hundred took at most."""

    rate: float
    slow: float


def _results(setup: str, before: Asked, asked: Asked, delays: list[float]) -> list[Result]:
    return [
        Result(f"{setup}: who asks, nobody listens", before.rate, "requests/s"),
        Result(
            "  who asks, while all listen",
            asked.rate,
            "requests/s",
            "that",
            asked.rate / before.rate,
        ),
        Result("  99 of 100 take no more than", 1000 * before.slow, "ms"),
        Result("  and while all listen", 1000 * asked.slow, "ms"),
        Result("  from the commit to the middle one", 1000 * statistics.median(delays), "ms"),
        Result("  from the commit to the last one", 1000 * max(delays), "ms"),
    ]


def _measure(
    port: int, event_port: int, listeners: int, engine: Engine, messages: Iterator[Message]
) -> tuple[Asked, list[float]]:
    """What became of who asks, and the seconds from each commit until each listener heard of it."""
    commits: list[float] = []
    heard: list[float] = []
    ended = threading.Event()
    listening = threading.Thread(target=_listen, args=(event_port, listeners, heard, ended))
    listening.start()
    time.sleep(1 + listeners / 100)
    heard.clear()
    asked: list[float] = []
    asking = threading.Thread(target=_ask, args=(port, asked, ended))
    began = time.monotonic()
    asking.start()
    while time.monotonic() < began + SECONDS:
        # An event may come before the call that committed it returns.
        commits.append(time.monotonic())
        engine.count([next(messages)])
        time.sleep(COMMIT_EVERY)
    took = time.monotonic() - began
    ended.set()
    asking.join()
    listening.join()
    # An event is told to the last commit before it.
    delays = [
        moment - max((commit for commit in commits if commit <= moment), default=moment)
        for moment in heard
    ]
    expected = listeners * len(commits)
    if len(heard) < 0.95 * expected:
        sys.exit(f"of {expected} events only {len(heard)} came")
    return Asked(len(asked) / took, statistics.quantiles(asked, n=100)[98]), delays or [0.0]


def _ask(port: int, asked: list[float], ended: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not ended.is_set():
        began = time.monotonic()
        connection.request("GET", PATH)
        connection.getresponse().read()
        asked.append(time.monotonic() - began)
    connection.close()


def _listen(port: int, count: int, heard: list[float], ended: threading.Event) -> None:
    selector = selectors.DefaultSelector()
    connections = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"GET %b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % PATH.encode())
        selector.register(connection, selectors.EVENT_READ)
        connections.append(connection)
    while not ended.is_set():
        for key, _ in selector.select(0.1):
            assert isinstance(key.fileobj, socket.socket)
            received = key.fileobj.recv(65536)
            heard += [time.monotonic()] * received.count(b"data: ")
    for connection in connections:
        connection.close()


@contextmanager
def _server(uri: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """The port and the number of the process."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "statscache"), *arguments, "--port", "0"],
            cwd=folder,
            env=os.environ | {URI_VARIABLE: uri, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        match = _ADDRESS.search(process.stdout.readline())
        assert match is not None
        try:
            yield int(match[1]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _memory(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _peak_memory(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    match = re.search(r"VmHWM:\s+([0-9]+) kB", status)
    assert match is not None
    return 1024 * int(match[1])
