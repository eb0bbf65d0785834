"""The demonstration is the main job: bus, hub, tables and API, and all of it stops again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from statscache.demo import sample_messages
from tests.support.hub import PROGRAMS, wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(PROGRAMS / "statscache"), "demo", *arguments],
        cwd=tempfile.gettempdir(),
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def test_the_demonstration_serves_what_it_publishes_and_stops(tmp_path: Path) -> None:
    port = free_port()
    process = start("--port", str(port), "--rate", "100", TMPDIR=str(tmp_path))
    assert process.stdout is not None
    printed = ""
    while "Logs and database" not in printed:
        line = process.stdout.readline()
        assert line, printed
        printed += line
    for url in re.findall(rf"http://127\.0\.0\.1:{port}/\S*", printed):
        is_json = "/api/" in url and "topic" not in url
        get(url) if is_json else urllib.request.urlopen(url).close()

    def volume() -> int:
        return sum(row["volume"] for row in get(f"http://127.0.0.1:{port}/api/volume-1d"))

    wait_until(lambda: volume() > 100, "the API has a hundred messages")
    newest = get(f"http://127.0.0.1:{port}/api/volume-15s")[0]["timestamp"]
    assert abs(time.time() - newest) < 60
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert re.search(r"Stopped. \d+ messages were published", rest)
    assert list(tmp_path.iterdir()) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.long
def test_a_termination_leaves_nothing_running(tmp_path: Path) -> None:
    port = free_port()
    process = start("--port", str(port), TMPDIR=str(tmp_path))
    assert process.stdout is not None
    while "Logs and database" not in process.stdout.readline():
        assert process.poll() is None
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start("--port", str(taken.getsockname()[1]))
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "is taken" in printed
    assert "--port" in printed


def test_the_sample_is_of_the_production_bus() -> None:
    samples = sample_messages()
    assert len(samples) > 100
    assert all(".prod." in sample["topic"] for sample in samples)
