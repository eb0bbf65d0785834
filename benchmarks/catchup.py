"""Catching up: through an archive over HTTP and from files, and what it costs when all is quiet.

``python -m benchmarks.catchup 1000000`` catches up with a million messages and prints the rate and
the memory on the way.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import zstandard

from benchmarks import databases
from benchmarks.messages import PER_SECOND, texts
from benchmarks.table import Result, show
from statscache.archive import Archive, DatagrepperArchive, FileArchive, read
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.catchup.progress import Progress
from statscache.clock import SYSTEM, Clock
from statscache.counting.engine import Engine
from statscache.counting.lanes.lane import read_lanes
from statscache.database.connection import Database
from statscache.plugins.installed import discovery
from tests.support.clocks import AheadClock
from tests.support.datagrepper import Datagrepper

OVERLAP = 900.0
LATENCY = 0.02
"""Seconds that the local archive takes to answer, besides its work; a real one takes more."""


def run(count: int = 20_000) -> None:
    """Measure and print."""
    messages = _recent(count)
    results = [*_over_http(messages), *_from_files(messages)]
    show(f"Catching up with {count:,} messages into SQLite", results)
    show("In steady state", _steady_state())


def _over_http(messages: list[bytes]) -> list[Result]:
    count = len(messages)
    with Datagrepper(latency=LATENCY) as server:
        server.add(json.loads(text) for text in messages)
        archive = DatagrepperArchive(server.url)
        start = float(int(_time(messages[0])))
        began = time.perf_counter()
        fetched = sum(piece.size for piece in read(archive, start, time.time()))
        floor = fetched / (time.perf_counter() - began)
        assert fetched == count
        archive.close()
        results = [Result("fetching alone, over HTTP (a floor)", floor, "messages/s")]
        for concurrency in (1, 4):
            archive = DatagrepperArchive(server.url)
            with databases.sqlite() as uri:
                seconds = _catch_up(uri, archive, count, concurrency=concurrency)
            name = f"through HTTP, {concurrency} at a time"
            rate = count / seconds
            results.append(Result(name, rate, "messages/s", "fetching alone", rate / floor))
            if concurrency == 1:
                share = archive.waited / seconds
                results.append(
                    Result("  time spent waiting for the archive", 100 * share, "percent")
                )
            archive.close()
    return results


def _from_files(messages: list[bytes]) -> list[Result]:
    count = len(messages)
    results = []
    first = 0.0
    with _file(messages) as path:
        for workers in (0, 1, 2):
            archive = FileArchive([str(path)])
            archive.bounds()
            with databases.sqlite() as uri, _processes(workers) as executor:
                seconds = _catch_up(uri, archive, count, executor=executor)
            archive.close()
            rate = count / seconds
            first = first or rate
            name = f"from files, {workers} processes" if workers else "from files, in this process"
            results.append(Result(name, rate, "messages/s", "this process alone", rate / first))
    return results


def _steady_state() -> list[Result]:
    """One look at the archive a minute, while live messages flow at the rate of a busy hour."""
    minutes = 5
    messages = _recent(int((OVERLAP + 60 * minutes) * PER_SECOND))
    with Datagrepper(latency=LATENCY) as server, databases.sqlite() as uri:
        server.add(json.loads(text) for text in messages)
        archive = DatagrepperArchive(server.url)
        clock = AheadClock()
        engine = _engine(uri, _time(messages[0]), clock)
        catch_up = CatchUp(engine, archive, Polling(lag=1.0, overlap=OVERLAP))
        _until_near(catch_up, engine)
        asked, waited = archive.requests, archive.waited
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(minutes):
            clock.advance(60.0)
            catch_up.advance()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        found = [
            Result("the archive, questions a minute", (archive.requests - asked) / minutes, ""),
            Result("  waiting for it, ms a minute", 1e3 * (archive.waited - waited) / minutes, ""),
            Result("our own processor, ms a minute", 1e3 * cpu / minutes, ""),
            Result("  share of a processor", 100 * cpu / minutes / 60, "percent"),
        ]
        engine.close()
        archive.close()
    return found


def _catch_up(
    uri: str,
    archive: Archive,
    count: int,
    *,
    concurrency: int = 1,
    executor: Executor | None = None,
) -> float:
    """The seconds that it takes to count ``count`` messages."""
    engine = _engine(uri, time.time() - count / PER_SECOND - 86_400)
    progress: list[Progress] = []
    catch_up = CatchUp(
        engine,
        archive,
        Polling(lag=1.0, overlap=OVERLAP, concurrency=2 if executor else concurrency),
        executor=executor,
        report=progress.append,
    )
    began = time.perf_counter()
    _until_near(catch_up, engine)
    seconds = time.perf_counter() - began
    with engine.transaction() as connection:
        lanes = connection.exec_driver_sql("SELECT messages FROM statscache_lane WHERE id = 1")
        assert lanes.scalar() == count
    engine.close()
    return seconds


def _until_near(catch_up: CatchUp, engine: Engine) -> None:
    while True:
        if catch_up.advance() == 0.0:
            continue  # a lane is filled in still
        with engine.transaction() as connection:
            watermarks = [lane.watermark or 0.0 for lane in read_lanes(connection)]
        if min(watermarks) > time.time() - 100:
            return


def _engine(uri: str, since: float, clock: Clock = SYSTEM) -> Engine:
    epoch = datetime.fromtimestamp(since, UTC)
    engine = Engine(
        Database(uri), discovery.discover({}), epoch=epoch, has_history=True, clock=clock
    )
    engine.open()
    return engine


def _recent(count: int) -> list[bytes]:
    """Messages that end a little before now."""
    shift = time.time() - 10 - count / PER_SECOND
    found = []
    for number, text in enumerate(texts(count)):
        raw = json.loads(text)
        raw["timestamp"] = shift + number / PER_SECOND
        found.append(json.dumps(raw).encode())
    return found


def _time(text: bytes) -> float:
    return float(json.loads(text)["timestamp"])


@contextmanager
def _file(messages: list[bytes]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.jsonl.zst"
        with path.open("wb") as binary, zstandard.ZstdCompressor().stream_writer(binary) as writer:
            for text in messages:
                writer.write(text + b"\n")
        yield path


@contextmanager
def _processes(workers: int) -> Iterator[Executor | None]:
    if not workers:
        yield None
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield executor


def million(count: int) -> None:
    """Catch up with very many messages, and print the memory on the way."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.jsonl.zst"
        # Written by parts, so that the memory shown is that of catching up.
        with path.open("wb") as binary, zstandard.ZstdCompressor().stream_writer(binary) as writer:
            part = texts(10_000)
            shift = time.time() - 10 - count / PER_SECOND
            for number in range(count):
                raw = json.loads(part[number % len(part)])
                raw |= {"timestamp": shift + number / PER_SECOND, "msg_id": f"2026-{number}"}
                writer.write(json.dumps(raw).encode() + b"\n")
        archive = FileArchive([str(path)])
        archive.bounds()
        with databases.sqlite() as uri:
            engine = _engine(uri, shift)
            began = time.perf_counter()
            shown = 0

            def report(progress: Progress) -> None:
                nonlocal shown
                if progress.messages >= shown:
                    seconds = time.perf_counter() - began
                    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                    print(
                        f"  {progress.messages:12,} messages, {progress.messages / seconds:9,.0f} "
                        f"a second, at most {peak:,.0f} MB of memory",
                        flush=True,
                    )
                    shown += count // 10

            catch_up = CatchUp(engine, archive, Polling(lag=1.0, overlap=OVERLAP), report=report)
            _until_near(catch_up, engine)
            engine.close()
        archive.close()


if __name__ == "__main__":
    million(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
