"""Folding elsewhere: threads, processes and a cluster give what this process would have given."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from statscache.archive import FileArchive, Window
from statscache.catchup import executors, workers
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.catchup.workers import FoldTask
from statscache.clock import SYSTEM
from statscache.counting.engine import Engine
from statscache.counting.folding.lane_plugins import LanePlugins, Target
from statscache.database.connection import Database
from statscache.database.export import export
from statscache.errors import StatscacheError, WorkerUnsuitable
from statscache.isolation.lost_connections import LostConnections
from statscache.isolation.time_limit import TimeLimit
from statscache.plugins.aggregate import Aggregate
from statscache.plugins.installed import discovery
from tests.support.cluster import dask_address
from tests.support.month import EPOCH, MONTH, write_month

SOME = 600
"""Messages: enough for a dozen windows."""


def rebuilt(
    uri: str, archive: FileArchive, folder: Path, executor: Executor | None = None, **polling: Any
) -> str:
    """Count the month on an empty database; returns the manifest of an export."""
    installed = discovery.discover({})
    engine = Engine(Database(uri), installed, epoch=EPOCH, has_history=True)
    engine.open()
    CatchUp(engine, archive, Polling(**polling), executor=executor, config={}).run_until_complete()
    engine.close()
    database = Database(uri, read_only=True)
    made = export(database, list(installed.datasets.values()), folder)
    database.dispose()
    assert made.files
    return made.manifest()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[FileArchive]:
    folder = tmp_path / "archive"
    write_month(folder, MONTH[:SOME], seed=1)
    made = FileArchive([str(folder)])
    # So that there are many windows.
    made.slice_size = 100
    yield made
    made.close()


@contextmanager
def threads(workers: int) -> Iterator[Executor]:
    with ThreadPoolExecutor(workers) as executor:
        yield executor


@contextmanager
def cluster(workers: int) -> Iterator[Executor]:
    """A real one of Dask's, with a process for each worker."""
    with dask_address(workers) as address, executors.dask(address) as executor:
        yield executor


@pytest.mark.parametrize(
    ("where", "backend"),
    [
        pytest.param(threads, "sqlite", marks=pytest.mark.long),
        (executors.processes, "postgresql"),
        pytest.param(cluster, "sqlite", marks=pytest.mark.long),
    ],
)
def test_wherever_it_is_folded_the_tables_are_the_same(
    tmp_path: Path,
    new_database: Callable[[str], str],
    archive: FileArchive,
    where: Any,
    backend: str,
) -> None:
    expected = rebuilt(new_database("sqlite"), archive, tmp_path / "here")
    with where(2) as executor:
        got = rebuilt(new_database(backend), archive, tmp_path / "there", executor, concurrency=4)
    assert got == expected


def plugins_and_task() -> tuple[LanePlugins, FoldTask]:
    installed = discovery.discover({})
    targets = []
    for ident in ("volume-1d", "volume-1h", "release-engineering-event-logs"):
        plugin = installed.datasets[ident].plugin
        assert isinstance(plugin, Aggregate)
        table = next(table for table in plugin.tables if table.ident == ident)
        targets.append(Target(ident, table, plugin, since=EPOCH.timestamp()))
    plugins = LanePlugins(
        targets,
        [],
        "sqlite",
        time_limit=TimeLimit(None, SYSTEM),
        lost_connections=LostConnections(SYSTEM),
    )
    config = {"statscache.sqlalchemy.uri": "postgresql://a:secret@b/c", "answer": 42, "f": print}
    return plugins, FoldTask(plugins, installed, config | {"lambda": lambda: 1})


def test_a_task_travels_without_what_workers_do_not_need(archive: FileArchive) -> None:
    plugins, task = plugins_and_task()
    pickled = pickle.dumps(task)
    assert b"secret" not in pickled
    window = Window(EPOCH.timestamp(), EPOCH.timestamp() + 86_400)
    here = task(archive, window, plugins.topics)
    there = pickle.loads(pickled)(archive, window, plugins.topics)
    assert there == here
    assert here.size > 10
    assert here.partials[0]


def changed(task: FoldTask, **values: Any) -> FoldTask:
    """The task as another process gets it, from a parent that has something else installed."""
    there = pickle.loads(pickle.dumps(task))
    there._tickets[0] = replace(there._tickets[0], **values)
    return there


def test_a_worker_without_the_same_plugins_says_which(archive: FileArchive) -> None:
    _, task = plugins_and_task()
    window = Window(EPOCH.timestamp(), EPOCH.timestamp() + 60)
    cases = {
        "needs statscache 99 and has": changed(task, version="99"),
        "needs strangers .* and has none": changed(task, ident="x", distribution="strangers"),
        "which declares volume-1d differently": changed(task, definition="{}"),
    }
    other = pickle.loads(pickle.dumps(task))
    other._version = "98"
    cases["needs statscache 98 and has"] = other
    for text, unsuitable in cases.items():
        with pytest.raises(WorkerUnsuitable, match=text) as caught:
            unsuitable(archive, window, ("#",))
        assert "on all the workers" in str(caught.value)
        # It comes back from there, too.
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_worker_keeps_few_lane_plugins(
    archive: FileArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_REMEMBERED", {})
    _, task = plugins_and_task()
    window = Window(EPOCH.timestamp(), EPOCH.timestamp() + 60)
    for number in range(workers._MOST_REMEMBERED + 2):
        changed(task, since=float(number))(archive, window, ("#",))
    assert 0 < len(workers._REMEMBERED) <= workers._MOST_REMEMBERED


# Processes.


def test_workers_leave_ctrl_c_to_their_parent() -> None:
    with executors.processes(2) as executor:
        numbers = {executor.submit(os.getpid).result() for _ in range(20)}
        for number in numbers:
            os.kill(number, signal.SIGINT)
        assert executor.submit(sum, (1, 2)).result() == 3


def test_what_workers_do_is_not_waited_for_when_nobody_wants_it() -> None:
    def work() -> None:
        with executors.processes(1) as executor:
            future = executor.submit(time.sleep, 60)
            while not future.running():
                time.sleep(0.01)
            raise RuntimeError("enough")

    began = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"):
        work()
    assert time.monotonic() - began < 30


def test_a_worker_that_dies_is_told_of_with_the_cure() -> None:
    def work() -> None:
        with executors.processes(1) as executor:
            os.kill(executor.submit(os.getpid).result(), signal.SIGKILL)
            executor.submit(sum, (1, 2)).result()

    with pytest.raises(StatscacheError, match="fewer --workers"):
        work()


PARENT = """
import os, time
from statscache.catchup import executors
if __name__ == "__main__":
    with executors.processes(2) as executor:
        numbers = set()
        while len(numbers) < 2:
            futures = [executor.submit(os.getpid) for _ in range(10)]
            numbers |= {future.result() for future in futures}
        print(*numbers, flush=True)
        time.sleep(60)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    numbers = [int(word) for word in process.stdout.readline().split()]
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(numbers) == 2
    deadline = time.monotonic() + 20
    while any(is_running(number) for number in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# Clusters.


def connect(address: str) -> None:
    with executors.dask(address):
        pass


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(StatscacheError, match=r"pip install 'statscache\[dask\]'"):
        connect("tcp://127.0.0.1:1")


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_PATIENCE", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        for wrong in (address, "nonsense://x"):
            with pytest.raises(StatscacheError, match=f"no scheduler of Dask answers at '{wrong}'"):
                connect(wrong)


def test_a_cluster_without_workers_is_no_cluster() -> None:
    with dask_address(0) as address, pytest.raises(StatscacheError, match="has no workers: start"):
        connect(address)
