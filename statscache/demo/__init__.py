"""A complete system on one machine: a loopback bus, the real fedmsg-hub, and the API.

The messages are real ones; ``messages.rst`` says where they come from.
"""

from __future__ import annotations

import itertools
import json
import os
import pprint
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from statscache.config import Settings
from statscache.database import migrations
from statscache.database.connection import Database
from statscache.errors import StatscacheError

START_TIMEOUT = 30.0
"""Seconds that the hub and the API may take to start."""

STOP_TIMEOUT = 15.0
"""Seconds that they may take to stop before they are killed."""


class Demo:
    """The processes of the demonstration; a context manager that starts and stops them.

    Args:
        port: of the API, on loopback.
        folder: of the configuration, the database and the logs; default: a temporary one.
    """

    def __init__(self, port: int = 8080, folder: Path | None = None) -> None:
        self.port = port
        self.published = 0
        self._is_temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="statscache-demo-"))
        self._context = zmq.Context()
        self._publisher = self._context.socket(zmq.XPUB)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        # However the demonstration is ended, it stops its processes.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def introduction(self) -> str:
        """What to try, as text for the terminal."""
        paths = (
            ("/", "in a browser: all statistics, with examples"),
            ("/api/", "the idents"),
            ("/api/volume-1m", "all messages, by minute"),
            ("/api/volume-by-category-1m?rows_per_page=20", "by service"),
            ("/api/volume-by-user-1d", "by user, by day"),
            ("/api/release-engineering-event-logs", "what release engineering does"),
            ("/api/release-engineering-event-logs/layout", "how a dashboard may draw it"),
        )
        width = max(len(path) for path, _ in paths)
        lines = [f"  {self.url}{path:{width}}  {what}" for path, what in paths]
        csv = f"  curl -H 'Accept: text/csv' {self.url}/api/volume-by-topic-1h"
        logs = f"Logs and database: {self.folder}"
        return "\n".join(["The hub listens, the API serves. Try:", *lines, csv, logs])

    def publish(
        self,
        rate: float,
        seconds: float | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """Publish the messages over and over, with present timestamps, at ``rate`` per second.

        Raises:
            StatscacheError: the hub or the API has ended.
        """
        started = time.monotonic()
        reported = started
        for number, sample in enumerate(itertools.cycle(sample_messages())):
            now = time.monotonic()
            if seconds is not None and now - started >= seconds:
                return
            self._check_processes()
            self._send(sample)
            if report and now - reported >= 10:
                report(f"{self.published} messages published ...")
                reported = now
            time.sleep(max(0.0, started + (number + 1) / rate - time.monotonic()))

    def _start(self) -> None:
        _check_port(self.port)
        self.folder.mkdir(parents=True, exist_ok=True)
        endpoint = self._publisher.bind_to_random_port("tcp://127.0.0.1")
        config = {
            "endpoints": {"demo": [f"tcp://127.0.0.1:{endpoint}"]},
            "environment": "dev",
            "topic_prefix": "org.fedoraproject",
            "zmq_enabled": True,
            "zmq_publish_endpoints": "",
            "validate_signatures": False,
            "sign_messages": False,
            "statscache.consumer.enabled": True,
            "statscache.sqlalchemy.uri": f"sqlite:///{self.folder.absolute() / 'statscache.db'}",
        }
        settings = Settings.from_config(config)
        configuration = self.folder / "fedmsg.d" / "demo.py"
        configuration.parent.mkdir(exist_ok=True)
        configuration.write_text(f"config = {pprint.pformat(config)}\n")
        database = Database(settings.uri)
        with database.begin() as connection:
            migrations.upgrade(connection)
        database.dispose()

        self._run("hub", "statscache", "hub")
        self._run("api", "statscache", "serve", "--port", str(self.port))
        self._wait_until("the hub subscribes to the bus", self._hub_has_subscribed)
        self._wait_until("the API answers", self._api_answers)

    def _run(self, name: str, program: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [str(Path(sys.executable).parent / program), *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                # Ctrl-C of the terminal reaches this process only, which stops them in order.
                start_new_session=True,
            )

    def _hub_has_subscribed(self) -> bool:
        return self._publisher.poll(0) != 0 and self._publisher.recv()[0] == 1

    def _api_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/", timeout=1):  # noqa: S310
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _wait_until(self, what: str, is_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not is_true():
            self._check_processes()
            if time.monotonic() > deadline:
                self._is_temporary = False
                raise StatscacheError(
                    f"waited {START_TIMEOUT:.0f} s until {what}; the logs are in {self.folder}"
                )
            time.sleep(0.05)

    def _check_processes(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                self._is_temporary = False
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                raise StatscacheError(
                    f"the {name} has ended {_ending(process.returncode)}; its files are in "
                    f"{self.folder}, and its log ends with:\n" + "\n".join(log.splitlines()[-20:])
                )

    def _send(self, sample: dict[str, Any]) -> None:
        now = time.time()
        message = sample | {
            "timestamp": now,
            "msg_id": f"{time.gmtime(now).tm_year}-{uuid.uuid4()}",
            "i": self.published + 1,
        }
        self._publisher.send_multipart([sample["topic"].encode(), json.dumps(message).encode()])
        self.published += 1

    def _stop(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        for process in self._processes.values():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._publisher.close(linger=0)
        self._context.term()
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


def sample_messages() -> list[dict[str, Any]]:
    """The real messages that come with statscache, as fedmsg dicts."""
    text = files("statscache.demo").joinpath("messages.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _ending(status: int) -> str:
    if status >= 0:
        return f"with status {status}"
    return f"by signal {-status} ({signal.Signals(-status).name})"


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StatscacheError(
                f"the port {port} is taken ({error.strerror}); choose another one with --port"
            ) from error
