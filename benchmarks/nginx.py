"""The API behind a real server, beside nginx that has the same bytes in a file, and beside Flask.

One client asks one question after the other, on a connection that stays: what differs is what the
servers do. gunicorn has one worker, with one thread, for us as for the view that answers from
memory. nginx is not measured where it is not installed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import flask

from benchmarks import databases
from benchmarks.api import EPOCH, fill, memory_view
from benchmarks.table import Result, median_seconds, show
from statscache.config import URI_VARIABLE

REQUESTS = 2_000
ROWS = 100_000
PATHS = {
    "first page": "/api/volume-by-topic-15s",
    "one row": "/api/volume-by-topic-15s?rows_per_page=1",
    "series": f"/api/volume-by-topic-15s/series?start={EPOCH}&stop={EPOCH + 14_400}&resolution=15m",
}
OURS = ("-c", "python:statscache.gunicorn", "statscache.wsgi:application")
FLOOR = ("--worker-class", "gthread", "benchmarks.nginx:view()")
BODY = "STATSCACHE_BENCHMARK_BODY"
"""The environment variable that names the file of what the view answers."""

_NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    types {{ application/json json; }}
    client_body_temp_path {folder}/1;
    proxy_temp_path {folder}/2;
    fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4;
    scgi_temp_path {folder}/5;
    server {{
        listen 127.0.0.1:{port};
        root {folder};
        gzip off;
        etag on;
    }}
}}
"""


def run() -> None:
    """Measure and print."""
    has_nginx = shutil.which("nginx") is not None
    for name, opened in (("SQLite", databases.sqlite), ("PostgreSQL", databases.postgresql)):
        with opened() as uri, tempfile.TemporaryDirectory() as folder:
            fill(uri, 0, ROWS)
            for what, path in PATHS.items():
                _measure(f"{what}, {name}", uri, path, Path(folder), has_nginx=has_nginx)
    if not has_nginx:
        print("\nnginx is not installed: nothing is compared with it")


def _measure(title: str, uri: str, path: str, folder: Path, *, has_nginx: bool) -> None:
    """What one address returns, from which servers, and how fast each is."""
    with ExitStack() as stack:
        ours = stack.enter_context(_gunicorn(folder, *OURS, **{URI_VARIABLE: uri}))
        connection = stack.enter_context(Connection(ours))
        head, body = connection.ask(path)
        etag = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"etag: "))
        kept = connection.rate(path)
        unchanged = connection.rate(path, b"If-None-Match: " + etag[6:] + b"\r\n")
        (folder / "answer.json").write_bytes(body)
        port = stack.enter_context(_gunicorn(folder, *FLOOR, **{BODY: str(folder / "answer.json")}))
        floor = stack.enter_context(Connection(port)).rate("/")
        results = [
            Result("a view of Flask, from memory", floor, "requests/s"),
            Result("ours, kept", kept, "requests/s", "that", kept / floor),
            Result("ours, 304", unchanged, "requests/s", "that", unchanged / floor),
        ]
        if has_nginx:
            port = stack.enter_context(_nginx(folder))
            best = stack.enter_context(Connection(port)).rate("/answer.json")
            results.insert(0, Result("nginx, a file", best, "requests/s"))
            for label, rate in (("kept", kept), ("304", unchanged)):
                ratio = rate / best
                results.append(Result(f"ours, {label}", rate, "requests/s", "nginx", ratio))
    show(f"{title}, {len(body)} bytes, over HTTP", results)


def view() -> flask.Flask:
    """The floor, for gunicorn."""
    return memory_view(Path(os.environ[BODY]).read_bytes())


class Connection:
    """Asks one thing after the other, with as little work as can be."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def rate(self, path: str, header: bytes = b"") -> float:
        """Requests per second."""

        def requests() -> None:
            for _ in range(REQUESTS):
                self.ask(path, header)

        return REQUESTS / median_seconds(requests, 5)

    def ask(self, path: str, header: bytes = b"") -> tuple[bytes, bytes]:
        """The head and the body of one answer."""
        request = b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (path.encode(), header)
        self._socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 304")), head
        _, _, rest = head.lower().partition(b"\r\ncontent-length: ")
        size = int(rest.partition(b"\r\n")[0] or 0) if b" 200" in head[:13] else 0
        while len(body) < size:
            body += self._receive()
        return head, body

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 20)
        if not received:
            sys.exit("the server has ended the connection")
        return received


@contextmanager
def _gunicorn(folder: Path, *arguments: str, **environment: str) -> Iterator[int]:
    port = _free_port()
    settings = ("--workers", "1", "--threads", "1", "--keep-alive", "60", "--log-level", "error")
    bind = ("--bind", f"127.0.0.1:{port}")
    command = [sys.executable, "-m", "gunicorn", *settings, *bind, *arguments]
    found = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    with _running(command, folder, environment | {"PYTHONPATH": found}):
        _wait_for(port)
        yield port


@contextmanager
def _nginx(folder: Path) -> Iterator[int]:
    port = _free_port()
    settings = folder / "nginx.conf"
    settings.write_text(_NGINX.format(folder=folder, port=port))
    # Where it runs as root, its worker does not.
    folder.chmod(0o755)
    command = ["nginx", "-c", str(settings), "-e", str(folder / "error.log")]
    with _running(command, folder, {}):
        _wait_for(port)
        yield port


@contextmanager
def _running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=folder, env=os.environ | environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"nobody listens on port {port}")
            time.sleep(0.05)
        else:
            return
