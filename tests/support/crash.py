"""Kill the real hub at random moments, many times, and compare every table with the oracle.

    python -m tests.support.crash --kills 300 [--seed N] [--seconds 1200]
                                  [--database sqlite|postgresql]

The bus drops a share of the messages, brings others twice, late, with or without a year before
their ids, a second off, or without id; the archive lags, and fails now and then; hours of history
are filled in; plugins come, go and change; rows are pruned; files are replayed, or a second hub
runs, meanwhile. In the end everything is left in peace until it has caught up, and each row of each
table must be there.

What is random comes from the seed; the moments depend on the machine as well.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from statscache.archive import Window
from statscache.archive.datagrepper import DatagrepperArchive
from statscache.database import schema, tables
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins.installed import discovery
from tests.support.datagrepper import Datagrepper
from tests.support.distributions import (
    CHANGING,
    DISTRIBUTION,
    RELEASE,
    importing,
    python_path,
)
from tests.support.hub import PROGRAMS, Hub
from tests.support.oracle import Oracle
from tests.support.postgresql import Server, administer
from tests.support.stream import Stream

LAG = 3.0
OVERLAP = 12.0
"""Seconds; what the archive has late must be there before both have passed."""

_EXACT = ("bodhi", "buildsys", "compose", "fedimg")
"""The categories whose messages leave their exact times in tables."""

_PATIENCE = 300.0
"""Seconds that the hub has in the end to catch up."""


class Traffic(threading.Thread):
    """What happens: messages that are published and archived, well or badly.

    Args:
        hub: whose bus is used.
        archive: of the bus.
        seed: of what is random.
        rate: new messages per second.
        history: hours before now that the archive has messages of.
    """

    def __init__(
        self, hub: Hub, archive: Datagrepper, seed: int, rate: float, history: float
    ) -> None:
        super().__init__(name="traffic")
        self._hub = hub
        self._archive = archive
        self._random = random.Random(seed)
        self._stream = Stream(seed, without_id=0.1)
        self._rate = rate
        self._ending = threading.Event()
        self._due: list[tuple[float, int, str, dict[str, Any]]] = []
        self._number = 0
        now = time.time()
        self.raws = [
            self._stream.message(now - self._random.random() * history * 3600)
            for _ in range(int(history * 600))
        ]
        self._archive.add(self.raws)

    def run(self) -> None:
        """Go on until :meth:`end`."""
        last = time.time()
        while not self._ending.wait(0.05):
            now = time.time()
            count = self._rate * (now - last)
            for _ in range(int(count) + (self._random.random() < count % 1)):
                self._happen(now - self._random.random() * (now - last), now)
            last = now
            self._deliver(now)
        self._deliver(None)
        self._archive.store.close()

    def end(self) -> None:
        """Nothing new happens; what is under way arrives."""
        self._ending.set()
        self.join()

    def _happen(self, timestamp: float, now: float) -> None:
        chance = self._random.random
        raw = self._stream.message(timestamp)
        self.raws.append(raw)
        late = chance() * 8 if chance() < 0.2 else 0.0
        has_id = "msg_id" in raw
        self._later(now + late, "archive", raw if has_id else self._restamped(raw))
        if has_id and chance() < 0.05:
            self._later(now + late + chance(), "archive", self._copy(raw))
        if chance() < 0.8:
            self._later(now + (chance() * 5 if chance() < 0.1 else 0.0), "bus", raw)
        if chance() < 0.1:
            self._later(now + self._random.choice((0, 1, 10, 60, 120)), "bus", self._copy(raw))
        if chance() < 0.02:
            self._later(now, "bus", self._copy(self._random.choice(self.raws)))

    def _copy(self, raw: dict[str, Any]) -> dict[str, Any]:
        """As it comes over a bridge."""
        if "msg_id" not in raw:
            return raw
        if self._random.random() < 0.5:
            raw = raw | {"msg_id": Message.from_fedmsg(raw).identity}
        return self._restamped(raw)

    def _restamped(self, raw: dict[str, Any]) -> dict[str, Any]:
        """With another time, by up to a second, but in the same quarter of a minute."""
        category = Message.from_fedmsg(raw).category
        if category in _EXACT or not 2 < raw["timestamp"] % 15 < 13:
            return raw
        return raw | {"timestamp": round(raw["timestamp"] + self._random.uniform(-1, 1), 6)}

    def _later(self, moment: float, where: str, raw: dict[str, Any]) -> None:
        self._number += 1
        heapq.heappush(self._due, (moment, self._number, where, raw))

    def _deliver(self, now: float | None) -> None:
        """Let arrive what is due, or, without ``now``, everything."""
        archived = []
        while self._due and (now is None or self._due[0][0] <= now):
            _, _, where, raw = heapq.heappop(self._due)
            if where == "archive":
                archived.append(raw)
            else:
                self._hub.publish(raw)
        if archived:
            self._archive.add(archived)


class Crash:
    """The system that is killed over and over.

    Args:
        folder: for everything.
        uri: of a database that may be dropped.
        seed: of everything that is random.
        rate: new messages per second.
        history: hours of it.
    """

    def __init__(
        self,
        folder: Path,
        uri: str,
        archive: Datagrepper,
        seed: int,
        rate: float = 40.0,
        history: float = 6.0,
    ) -> None:
        self.folder = folder
        self.uri = uri
        self.moments: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._archive = archive
        yesterday = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=history, minutes=1)
        self.hub = Hub(
            folder,
            uri,
            **{
                "statscache.producer.frequency": timedelta(seconds=0.1),
                "statscache.consumer.batch_size": 200,
                "statscache.consumer.epoch": yesterday.replace(microsecond=0),
                "statscache.datagrepper.endpoint": archive.url,
                "statscache.archive.lag": timedelta(seconds=LAG),
                "statscache.archive.overlap": timedelta(seconds=OVERLAP),
                "statscache.archive.interval": timedelta(seconds=1),
                "statscache.retention": {"15s": timedelta(hours=history / 2)},
            },
        )
        self.traffic = Traffic(self.hub, archive, seed, rate, history)
        self._release = 1
        self._distributions: list[Path] = []

    def migrate(self, kills: int) -> None:
        """Make the schema, killed on the way so many times."""
        began = time.monotonic()
        self._run("statscache", "db", "upgrade").wait(timeout=60)
        usual = time.monotonic() - began
        for _ in range(kills):
            if self._has_schema() and self._random.random() < 0.7:
                drop(self.uri)
            upgrade = self._run("statscache", "db", "upgrade")
            time.sleep(usual * self._random.uniform(0.4, 1.0))
            self._note("no migration" if upgrade.poll() is not None else "a migration")
            kill(upgrade)
        upgrade = self._run("statscache", "db", "upgrade")
        if upgrade.wait(timeout=60):
            raise AssertionError(f"the migration failed\n{self._tail()}")

    def one_kill(self, progress: float) -> None:
        """Start the hub, with some plugins or others, and kill it.

        ``progress``, 0 to 1, is how far the whole is: the others come after a third.
        """
        chance = self._random.random
        self._distributions = []
        if progress > 0.3 and chance() < 0.9:
            self._distributions.append(DISTRIBUTION)
        if progress > 0.15 and chance() < 0.9:
            self._distributions.append(CHANGING)
        if chance() < 0.06:
            self._release += 1
        is_bad = chance() < 0.2
        self._archive.set(
            share_500=0.2 * is_bad,
            share_broken=0.1 * is_bad,
            share_reset=0.1 * is_bad,
            outage=chance() < 0.05,
        )
        self._start()
        others = []
        if chance() < 0.15:
            others.append(self._replay())
        if chance() < 0.1:
            others.append(self._run("fedmsg-hub"))
        if chance() < 0.25:
            time.sleep(chance() * 2.5)
        else:
            self._wait_until_it_runs()
            time.sleep(self._random.choice((0.3, 1.5, 4.0, 4.0, 20.0)) * chance())
        for other in others:
            kill(other)
        assert self.hub.process is not None
        if self.hub.process.poll() is not None:
            raise AssertionError(f"the hub has ended by itself\n{self._tail()}")
        if chance() < 0.05:
            self.hub.stop(signal.SIGTERM)
            self._note("a stop")
        else:
            kill(self.hub.process)
            self._note(self._state())
        # Now and then for longer than what the archive is asked for again.
        time.sleep(OVERLAP + 2 if chance() < 0.08 else self._random.choice((0.0, 0.3, 1.0)))

    def finish(self) -> list[str]:
        """Let everything arrive and be counted; returns what differs from the oracle."""
        self.traffic.end()
        self._archive.set(share_500=0, share_broken=0, share_reset=0, outage=False)
        self._distributions = [DISTRIBUTION, CHANGING]
        self._start()
        deadline = time.monotonic() + _PATIENCE
        end = time.time()
        while (missing := self._unfinished(end)) and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(2)
        os.environ[RELEASE] = str(self._release)
        with importing(self._distributions):
            messages = _distinct(self.traffic.raws)
            oracle = Oracle(self.folder / "oracle.db", messages, discovery.discover({}))
            found = oracle.differences(self.uri)
        del os.environ[RELEASE]
        if missing:
            found.insert(0, f"after {_PATIENCE:.0f} s it is not complete: {missing}")
        assert self.hub.process is not None
        if self.hub.process.poll() is not None:
            found.insert(0, f"the hub has ended by itself\n{self._tail()}")
        else:
            self.hub.stop()
        return found

    def _start(self) -> None:
        self.hub.environment["PYTHONPATH"] = python_path(self._distributions)
        self.hub.environment[RELEASE] = str(self._release)
        self._log_size = self.hub.log.stat().st_size if self.hub.log.exists() else 0
        self.hub.start(subscribes=False)

    def _wait_until_it_runs(self) -> None:
        deadline = time.monotonic() + 30
        assert self.hub.process is not None
        while b"Running the MokshaHub reactor" not in self._new_log():
            if self.hub.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the hub does not start\n{self._tail()}")
            time.sleep(0.02)
        if b"Failed to init" in self._new_log():
            raise AssertionError(f"the hub runs without statscache\n{self._tail()}")

    def _replay(self) -> subprocess.Popen[bytes]:
        """Count some of the messages at the same time from a file."""
        path = self.folder / "replayed.jsonl"
        raws = [self._random.choice(self.traffic.raws) for _ in range(300)]
        path.write_text("".join(json.dumps(raw) + "\n" for raw in raws))
        return self._run("statscache", "replay", "--batch-size", "20", str(path))

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "commands.log").open("ab") as log:
            return subprocess.Popen(
                [str(PROGRAMS / program), *arguments],
                cwd=self.folder,
                env=os.environ
                | {"PYTHONPATH": python_path(self._distributions), RELEASE: str(self._release)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _has_schema(self) -> bool:
        url = make_url(self.uri)
        if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
            return False
        database = Database(self.uri, read_only=True)
        try:
            schema.check(database)
        except Exception:
            return False
        else:
            return True
        finally:
            database.dispose()

    def _state(self) -> str:
        """What the hub was at when it was killed."""
        database = Database(self.uri, read_only=True)
        try:
            with database.begin() as connection:
                lanes = connection.execute(select(tables.lane)).all()
                shadows = connection.scalar(
                    select(func.count(tables.plugin.c.shadow)).select_from(tables.plugin)
                )
        finally:
            database.dispose()
        if b"Running the MokshaHub reactor" not in self._new_log():
            return "a start"
        if shadows:
            return "a rebuild"
        if any(lane.joins and not lane.name.startswith("gone") for lane in lanes):
            return "a backfill"
        if any(time.time() - lane.watermark > 3 * OVERLAP for lane in lanes if not lane.joins):
            return "catching up"
        return "live"

    def _unfinished(self, end: float) -> str:
        """What is still to be done before everything up to ``end`` has been counted."""
        database = Database(self.uri, read_only=True)
        with database.begin() as connection:
            lanes = connection.execute(select(tables.lane)).all()
            plugins = connection.execute(select(tables.plugin)).all()
            late = connection.scalar(select(func.count()).select_from(tables.late))
        database.dispose()
        states = {row.ident: row.state for row in plugins if row.state != "active"}
        names = sorted(lane.name for lane in lanes)
        # No further than the archive has shown, of which it has all when its lag is over.
        shown = DatagrepperArchive(self._archive.url).newest_of(Window(end - 86_400, end + 86_400))
        target = math.inf if shown is None or time.time() < end + 2 * LAG else int(shown) + 1
        behind = [lane.name for lane in lanes if lane.watermark < target]
        if states or names != ["main", "ordered"] or behind or late:
            return f"plugins {states}, lanes {names}, behind {behind}, {late} late"
        return ""

    def _new_log(self) -> bytes:
        with self.hub.log.open("rb") as log:
            log.seek(self._log_size)
            return log.read()

    def _tail(self) -> str:
        texts = [
            path.read_text(errors="replace")[-4000:]
            for path in (self.hub.log, self.folder / "commands.log")
            if path.exists()
        ]
        return "\n".join(texts)

    def _note(self, moment: str) -> None:
        self.moments[moment] += 1


def _distinct(raws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each message once, as it was first sent."""
    chosen: dict[str, dict[str, Any]] = {}
    for raw in raws:
        chosen.setdefault(Message.from_fedmsg(raw).identity, raw)
    return list(chosen.values())


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it, and its children, at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def drop(uri: str) -> None:
    """Empty the database."""
    url = make_url(uri)
    if url.get_backend_name() == "sqlite":
        for suffix in ("", "-wal", "-shm"):
            Path(f"{url.database}{suffix}").unlink(missing_ok=True)
        return
    administer(
        url.set(database="postgres").render_as_string(hide_password=False),
        f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)",
        f"CREATE DATABASE {url.database}",
    )


def run(
    kills: int,
    seed: int,
    backend: str = "sqlite",
    seconds: float = 3600.0,
    folder: Path | None = None,
    report: Any = print,
    **more: float,
) -> list[str]:
    """Kill so many times, or for so long; returns what differs from the oracle in the end."""
    began = time.monotonic()
    with ExitStack() as stack:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="statscache-crash-"))
        uri = f"sqlite:///{folder / 'statscache.db'}"
        if backend == "postgresql":
            server = stack.enter_context(Server())
            uri = make_url(server.uri).set(database="crashes").render_as_string()
            drop(uri)
        archive = stack.enter_context(Datagrepper(folder / "archive.db", seed=seed, lag=1.0))
        crash = Crash(folder, uri, archive, seed, **more)
        hub = stack.enter_context(crash.hub)
        migrations = max(1, kills // 20)
        crash.migrate(migrations)
        crash.traffic.start()
        stack.callback(crash.traffic.end)
        for number in range(migrations, kills):
            if time.monotonic() - began > seconds:
                report(f"{seconds:.0f} s have passed: {number} kills are all")
                break
            crash.one_kill(number / kills)
            if number % 10 == 9:
                passed = time.monotonic() - began
                report(f"{passed:.0f} s: {number + 1} kills, {len(crash.traffic.raws)} messages")
        moments = ", ".join(f"{times} {name}" for name, times in crash.moments.most_common())
        report(f"{time.monotonic() - began:.0f} s: killed in {moments}")
        found = crash.finish()
        assert hub.process is not None
        kill(hub.process)
        report(f"{time.monotonic() - began:.0f} s: {len(crash.traffic.raws)} messages")
        return found


def main() -> None:
    """Run it as a script; the exit code is 1 when a row is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to repeat it")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop killing after these")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="statscache-crash-"))
    print(f"seed {seed}, {options.kills} kills, {options.database}, in {folder}", flush=True)

    # Whatever ends us, the processes that we have started end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def report(line: str) -> None:
        print(line, flush=True)

    found = run(options.kills, seed, options.database, options.seconds, folder, report)
    for line in found:
        print(line[:1000])
    if found:
        sys.exit(f"seed {seed}: {len(found)} differences; logs and databases are in {folder}")
    print(f"seed {seed}: every row is right")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
