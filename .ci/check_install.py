#!/usr/bin/env python3
"""Install statscache as a user does, and see that it does its main job.

Builds the wheel, installs it into an empty environment with nothing but what it requires and an
empty home, loads every entry point, runs the demonstration until rows come through the API, and
ends it with Ctrl-C. What the tests need beyond the program cannot hide what the program lacks.

Usage: check_install.py [PYTHON], from anywhere; "make check-install".
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
NOT_OURS = (".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
PATIENCE = 60.0
"""Seconds for which rows may take to come."""

LOAD_ALL = """
import importlib.metadata as metadata
for entry in metadata.distribution("statscache").entry_points:
    entry.load()
    print(f"loaded {entry.group}: {entry.name}")
"""


def main() -> None:
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    with tempfile.TemporaryDirectory(prefix="statscache-install-") as name:
        folder = Path(name)
        environment = empty_home(folder)
        wheel = build(python, folder, environment)
        programs = install(python, folder, wheel, environment)
        place = folder / "place"
        place.mkdir()
        run([programs / "python", "-m", "pip", "check"], place, environment)
        run([programs / "python", "-W", "ignore", "-c", LOAD_ALL], place, environment)
        configure(programs, place, environment)
        demonstrate(programs, place, environment)
    print("The installed program does its main job.")


def empty_home(folder: Path) -> dict[str, str]:
    """An environment that knows nothing of this user but how packages are fetched."""
    home = folder / "home"
    home.mkdir()
    kept = ("PATH", "LANG", "SSL_", "REQUESTS_", "http", "HTTP", "no_proxy", "NO_PROXY", "PIP_")
    environment = {k: v for k, v in os.environ.items() if k.startswith(kept)}
    return environment | {"HOME": str(home), "TMPDIR": str(folder)}


def build(python: str, folder: Path, environment: dict[str, str]) -> Path:
    # Of a copy: setuptools leaves its files where it builds.
    source = folder / "source"
    shutil.copytree(CHECKOUT, source, ignore=shutil.ignore_patterns(*NOT_OURS))
    wheels = folder / "wheels"
    command = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheels), str(source)]
    run(command, folder, environment)
    (wheel,) = wheels.glob("statscache-*.whl")
    print(f"built {wheel.name}")
    return wheel


def install(python: str, folder: Path, wheel: Path, environment: dict[str, str]) -> Path:
    run([python, "-m", "venv", str(folder / "venv")], folder, environment)
    programs = folder / "venv" / "bin"
    run([programs / "python", "-m", "pip", "install", "--quiet", str(wheel)], folder, environment)
    return programs


def configure(programs: Path, place: Path, environment: dict[str, str]) -> None:
    """What an operator does first."""
    run([programs / "statscache", "config"], place, environment)
    for name in ("fedmsg.d/base.py", "fedmsg.d/statscache.py", "statscache.wsgi"):
        if (place / name).read_bytes() != (CHECKOUT / name).read_bytes():
            fail(f"statscache config has written another {name} than the checkout has")
    run([programs / "statscache", "db", "upgrade"], place, environment)
    run([programs / "statscache", "status"], place, environment)


def demonstrate(programs: Path, place: Path, environment: dict[str, str]) -> None:
    """Run the demonstration until the API has rows, and end it as a person does."""
    port = free_port()
    process = subprocess.Popen(
        [str(programs / "statscache"), "demo", "--port", str(port)],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for_rows(process, f"http://127.0.0.1:{port}/api/volume-1d")
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    print(printed)
    if process.returncode != 0 or not re.search(r"Stopped\. \d+ messages", printed):
        fail(f"the demonstration ended with status {process.returncode}")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            fail("something still answers where the demonstration served")
    left = list(place.parent.glob("statscache-demo-*"))
    if left:
        fail(f"the demonstration has left {left}")


def wait_for_rows(process: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stdout is not None
            fail(f"the demonstration has ended:\n{process.stdout.read()}")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if rows := json.load(answer):
                    print(f"rows came through the API: {rows}")
                    return
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.2)
    fail(f"no rows came in {PATIENCE:.0f} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str | Path], folder: Path, environment: dict[str, str]) -> None:
    words = [str(part) for part in command]
    status = subprocess.run(words, cwd=folder, env=environment, check=False).returncode
    if status != 0:
        fail(f"{' '.join(words)} ended with status {status}")


def fail(text: str) -> None:
    raise SystemExit(f"check-install: {text}")


if __name__ == "__main__":
    main()
