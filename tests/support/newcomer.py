"""How long live messages take to the tables while a new plugin fills in its history.

    python -m tests.support.newcomer [--messages 20000] [--rate 50] [--database sqlite|postgresql]
        [--frequency 0.5] [--classic]

The system has counted its history; then one more plugin is installed, the hub is started again,
and live messages flow. Prints the seconds from publishing a message to the commit that makes it
visible; the exit code is 1 when the slowest took a second or more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from statscache.archive import FileArchive
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database import tables
from statscache.database.connection import Database
from statscache.plugins.installed import discovery
from tests.support.databases import upgrade
from tests.support.datagrepper import Datagrepper
from tests.support.distributions import CHANGING, DISTRIBUTION, importing, python_path
from tests.support.hub import Hub
from tests.support.oracle import Oracle
from tests.support.postgresql import Server
from tests.support.stream import Stream

_LAG = 3.0
_PATIENCE = 300.0
"""Seconds that the history may take."""


@dataclass
class Result:
    """What was measured; seconds.

    Attributes:
        lags: of the messages that were published while the history was filled in.
        filling: how long that took.
        differences: of all the tables in the end from what they must hold.
    """

    lags: list[float] = field(default_factory=list)
    filling: float = 0.0
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        quantiles = statistics.quantiles(self.lags, n=100)
        return (
            f"{len(self.lags)} live messages in {self.filling:.1f} s: "
            f"median {quantiles[49]:.3f} s, 99 % within {quantiles[98]:.3f} s, "
            f"the slowest {max(self.lags):.3f} s"
        )


class _Publisher(threading.Thread):
    """Publishes at a steady rate, remembers when, and lets the archive have it later."""

    def __init__(self, hub: Hub, archive: Datagrepper, rate: float) -> None:
        super().__init__(name="publisher")
        self._hub = hub
        self._archive = archive
        self._pause = 1 / rate
        self._stream = Stream(2)
        self._ending = threading.Event()
        self.raws: list[dict[str, Any]] = []
        self.moments: list[float] = []

    def run(self) -> None:
        """Go on until :meth:`end`."""
        while not self._ending.wait(self._pause):
            raw = self._stream.message(time.time())
            self.raws.append(raw)
            self.moments.append(time.monotonic())
            self._hub.publish(raw)
        self._archive.store.close()

    def end(self) -> None:
        """Nothing more is published."""
        self._ending.set()
        self.join()


class _Watcher(threading.Thread):
    """Notes when how many messages were visible in a table."""

    def __init__(self, uri: str) -> None:
        super().__init__(name="watcher")
        self._database = Database(uri, read_only=True)
        self._ending = threading.Event()
        self.base = self._count()
        self.seen: list[tuple[float, int]] = []

    def _count(self) -> int:
        volume = discovery.discover({}).datasets["volume-1d"].model.__table__
        with self._database.begin() as connection:
            return int(connection.scalar(select(func.sum(volume.c.volume))) or 0)

    def run(self) -> None:
        """Go on until :meth:`end`."""
        while not self._ending.wait(0.01):
            count = self._count() - self.base
            if not self.seen or count > self.seen[-1][1]:
                self.seen.append((time.monotonic(), count))
        self._database.dispose()

    def end(self) -> None:
        """It has seen enough."""
        self._ending.set()
        self.join()

    def lags(self, moments: list[float]) -> list[float]:
        """Of the messages that were published at these times, in their order."""
        found = []
        seen = iter(self.seen)
        moment, count = next(seen)
        for number, published in enumerate(moments, 1):
            while count < number:
                moment, count = next(seen)
            found.append(moment - published)
        return found


def measure(
    folder: Path,
    backend: str,
    messages: int = 20_000,
    rate: float = 50.0,
    frequency: float = 0.5,
    *,
    is_classic: bool = False,
) -> Result:
    """Install one more plugin on a running system, and see how the others fare."""
    result = Result()
    with ExitStack() as stack:
        uri = f"sqlite:///{folder / 'statscache.db'}"
        if backend == "postgresql":
            uri = stack.enter_context(Server()).uri
        upgrade(uri)
        archive = stack.enter_context(Datagrepper(folder / "archive.db", lag=1.0))
        stream = Stream(1)
        now = time.time()
        days = 5.0
        raws = [stream.message(now - days * 86_400 * (1 - n / messages)) for n in range(messages)]
        archive.add(raws)
        epoch = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days)
        config = {
            "statscache.producer.frequency": timedelta(seconds=frequency),
            "statscache.consumer.epoch": epoch.replace(microsecond=0),
            "statscache.archive.lag": timedelta(seconds=_LAG),
            "statscache.archive.interval": timedelta(seconds=2),
            "statscache.archive.overlap": timedelta(seconds=30),
            "statscache.datagrepper.endpoint": archive.url,
        }
        hub = stack.enter_context(Hub(folder, uri, **config))
        _count_history(hub.config, folder, raws)
        distribution = DISTRIBUTION if is_classic else CHANGING
        hub.environment["PYTHONPATH"] = python_path([distribution])
        hub.start()
        publisher, watcher = _Publisher(hub, archive, rate), _Watcher(uri)
        for thread in (watcher, publisher):
            thread.start()
            stack.callback(thread.end)
        began = time.monotonic()
        archived = 0
        while not _is_complete(uri, now):
            if time.monotonic() - began > _PATIENCE:
                raise AssertionError(f"still filling in\n{hub.log.read_text()}")
            time.sleep(0.1)
            some = publisher.raws[archived:]
            archive.add(some)
            archived += len(some)
        result.filling = time.monotonic() - began
        publisher.end()
        archive.add(publisher.raws[archived:])
        deadline = time.monotonic() + 30
        while watcher.seen[-1][1] < len(publisher.raws) and time.monotonic() < deadline:
            time.sleep(0.05)
        watcher.end()
        result.lags = watcher.lags(publisher.moments)
        with importing([distribution]):
            oracle = Oracle(folder / "oracle.db", raws + publisher.raws, discovery.discover({}))
            deadline = time.monotonic() + 30
            while (found := oracle.differences(uri)) and time.monotonic() < deadline:
                time.sleep(0.5)
        result.differences = found
        hub.stop()
    return result


def _count_history(config: dict[str, Any], folder: Path, raws: list[dict[str, Any]]) -> None:
    """What the system did until now."""
    path = folder / "history.jsonl"
    path.write_text("".join(json.dumps(raw) + "\n" for raw in raws))
    settings = Settings.from_config(config)
    engine = Engine.from_settings(settings, discovery.discover({}))
    engine.open()
    archive = FileArchive([str(path)])
    CatchUp(engine, archive, Polling.from_settings(settings)).run_until_complete()
    archive.close()
    engine.close()


def _is_complete(uri: str, moment: float) -> bool:
    """Whether all the plugins are where they belong, with everything up to a time."""
    database = Database(uri, read_only=True)
    with database.begin() as connection:
        states = connection.scalars(select(tables.plugin.c.state)).all()
        until = connection.scalar(select(func.min(tables.lane.c.watermark)))
    database.dispose()
    return set(states) == {"active"} and until > moment


def main() -> None:
    """Run it as a script."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.newcomer", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="of history")
    parser.add_argument("--rate", type=float, default=50.0, help="live messages per second")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--frequency", type=float, default=0.5, help="seconds between two commits")
    parser.add_argument("--classic", action="store_true", help="classic plugins are installed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="statscache-newcomer-") as folder:
        result = measure(
            Path(folder),
            options.database,
            options.messages,
            options.rate,
            options.frequency,
            is_classic=options.classic,
        )
    print(result)
    for line in result.differences:
        print(line[:1000])
    sys.exit(bool(result.differences) or max(result.lags) >= 1.0)


if __name__ == "__main__":
    main()
