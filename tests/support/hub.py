"""The real fedmsg-hub in a subprocess, on a loopback bus of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import zmq

from tests.support.configuration import configure
from tests.support.distributions import DISTRIBUTION

PROGRAMS = Path(sys.executable).parent
"""Where the command-line programs of the environment are."""


class Hub:
    """A bus and the hub that listens to it; a context manager."""

    def __init__(self, folder: Path, uri: str, *, others: bool = False, **config: Any) -> None:
        self.folder = folder
        self._context = zmq.Context()
        self._bus = self._context.socket(zmq.XPUB)
        self._bus.setsockopt(zmq.SNDHWM, 0)
        # A socket of ZeroMQ is for one thread at a time.
        self._using = threading.Lock()
        port = self._bus.bind_to_random_port("tcp://127.0.0.1")
        self.config = {
            "endpoints": {"test": [f"tcp://127.0.0.1:{port}"]},
            "environment": "dev",
            "topic_prefix": "org.fedoraproject",
            "zmq_enabled": True,
            "zmq_publish_endpoints": "",
            "validate_signatures": False,
            "statscache.consumer.enabled": True,
            "statscache.sqlalchemy.uri": uri,
        } | config
        self.environment = dict(os.environ)
        if others:
            self.environment["PYTHONPATH"] = str(DISTRIBUTION)
        self.command = [str(PROGRAMS / "fedmsg-hub")]
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "hub.log"

    def __enter__(self) -> Self:
        configure(self.folder, **self.config)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._bus.close(linger=0)
        self._context.term()

    def start(self, *, subscribes: bool = True) -> None:
        """Start the hub, and wait until it has subscribed to the bus."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if subscribes:
            self.wait_until_subscribed()

    def wait_until_subscribed(self) -> None:
        """Wait until the hub gets what is published."""
        wait_until(self._has_subscribed, "the hub subscribes", self.log)
        wait_until(lambda: "Suggesting threadpool" in self.log.read_text(), "it runs", self.log)

    def _has_subscribed(self) -> bool:
        # The goodbye of a hub that was killed (its first byte is 0) may come first.
        with self._using:
            return self._bus.poll(0) != 0 and self._bus.recv()[0] == 1

    def publish(self, raw: dict[str, Any]) -> None:
        self.send(raw["topic"].encode(), json.dumps(raw).encode())

    def send(self, *frames: bytes) -> None:
        with self._using:
            self._bus.send_multipart(frames)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Signal the hub, wait for its end, and give the seconds that it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=20)
        return time.monotonic() - began


def raw(topic: str = "org.fedoraproject.prod.git.receive", **more: Any) -> dict[str, Any]:
    """A message of now."""
    return {
        "topic": topic,
        "timestamp": time.time(),
        "msg_id": f"2026-{uuid.uuid4()}",
        "msg": {"commit": {"username": "ralph", "repo": "datanommer"}},
    } | more


def wait_until(is_true: Callable[[], Any], what: str, log: Path | None = None) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain until {what}\n{log.read_text() if log else ''}")
        time.sleep(0.02)
