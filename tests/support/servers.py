"""The servers that the API runs on, in processes of their own, and a client of their events."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from statscache.config import URI_VARIABLE
from tests.support.configuration import configure
from tests.support.hub import PROGRAMS, wait_until

COMMANDS = {
    "serve": ("statscache", "serve", "--port", "0"),
    "events": ("statscache", "events", "--port", "0"),
    "gunicorn": (
        *("gunicorn", "-c", "python:statscache.gunicorn", "--preload", "--bind", "127.0.0.1:0"),
        *("--workers", "2", "statscache.wsgi:application"),
    ),
    "gunicorn sync": (
        *("gunicorn", "--worker-class", "sync", "--bind", "127.0.0.1:0"),
        "statscache.wsgi:application",
    ),
    "gunicorn asgi": (
        *("gunicorn", "--worker-class", "asgi", "--bind", "127.0.0.1:0"),
        "statscache.asgi:application",
    ),
}
"""Name to what is run."""

_ADDRESS = re.compile(r"(?:Serving on|Listening at:) http://127\.0\.0\.1:([1-9][0-9]*)")


class Server:
    """One of :data:`COMMANDS`; a context manager.

    Args:
        name: which.
        folder: where it finds its configuration.
        uri: of the database.
        arguments: more of them.
        config: keys of the configuration.
    """

    def __init__(
        self, name: str, folder: Path, uri: str, *arguments: str, config: Mapping[str, Any]
    ) -> None:
        program, *rest = COMMANDS[name]
        self._command = [str(PROGRAMS / program), *rest, *arguments]
        self._folder = folder
        self._uri = uri
        self._config = config
        self.log = folder / "server.log"
        self.port = 0

    def __enter__(self) -> Self:
        configure(self._folder, **self._config)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=os.environ | {URI_VARIABLE: self._uri, "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._listens, "the server listens", self.log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            # Its workers too.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        found = _ADDRESS.search(self.log.read_text())
        self.port = int(found[1]) if found else 0
        return bool(found)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Ask it to end, and give the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        return time.monotonic() - began

    def connect(self) -> http.client.HTTPConnection:
        """A connection, to be closed."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Got:
        """The answer to one request."""
        connection = self.connect()
        try:
            return get(connection, path, headers, method)
        finally:
            connection.close()

    @contextmanager
    def listen(self, path: str, last_event_id: str | None = None) -> Iterator[Listening]:
        """Listen to events until the end of the block."""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        with ExitStack() as closing:
            connection = self.connect()
            closing.callback(connection.close)
            connection.request("GET", path, headers=headers)
            answer = closing.enter_context(connection.getresponse())
            if answer.status != 200:
                raise Refused(Got(answer.status, answer.headers, answer.read()))
            yield Listening(answer)


@dataclass
class Got:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Refused(Exception):
    """There are no events to listen to."""

    def __init__(self, got: Got) -> None:
        super().__init__(got.status, got.body)
        self.got = got


def get(
    connection: http.client.HTTPConnection,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
) -> Got:
    """The answer to a request, on a connection that stays open."""
    connection.request(method, path, headers=dict(headers or {}))
    answer = connection.getresponse()
    return Got(answer.status, answer.headers, answer.read())


@dataclass
class Block:
    """What stands between two empty lines: an event if it has data."""

    fields: dict[str, str] = field(default_factory=dict)
    comment: str | None = None

    @property
    def data(self) -> Any:
        return json.loads(self.fields["data"])


class Listening:
    """What comes in; it remembers the newest number, as a browser does."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.headers = answer.headers
        self.last_event_id = ""
        self._answer = answer

    def block(self) -> Block:
        """The next block; waits for it.

        Raises:
            EOFError: there are no more.
        """
        block = Block()
        while line := self._answer.readline():
            text = line.decode().removesuffix("\n")
            if not text:
                self.last_event_id = block.fields.get("id", self.last_event_id)
                return block
            name, _, value = text.partition(":")
            if name:
                block.fields[name] = value.removeprefix(" ")
            else:
                block.comment = value
        raise EOFError

    def event(self) -> Any:
        """The data of the next event."""
        while True:
            block = self.block()
            if "data" in block.fields:
                return block.data
