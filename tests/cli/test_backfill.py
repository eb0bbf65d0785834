"""The commands for long work, as their users call them: two rebuilds are the same in each byte."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from statscache.app import create_app
from statscache.cli import statscache as command_line
from statscache.cli.idents import with_siblings
from statscache.config import URI_VARIABLE
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.database.export import export
from statscache.errors import StatscacheError
from statscache.message import Message
from statscache.plugins.installed import discovery
from tests.support.cluster import dask_address
from tests.support.commands import call
from tests.support.configuration import configure
from tests.support.databases import BACKENDS, execute, table
from tests.support.datagrepper import Datagrepper
from tests.support.distributions import DISTRIBUTION
from tests.support.hub import PROGRAMS, Hub, wait_until
from tests.support.messages import message
from tests.support.month import EPOCH, MONTH, write_month

SOME = 700
OVERLAP = 900.0
IDENTS = len(discovery.discover({}).datasets)
NOW = int(time.time())
TODAY = NOW // 86_400 * 86_400
NAIVE_EPOCH = EPOCH.replace(tzinfo=None)


def configure_for_month(folder: Path, **config: Any) -> None:
    # What is compared here is all of a month, and not what is left of it in the end.
    kept = {"statscache.retention": {"15s": None, "1m": None}}
    configure(folder, **{"statscache.consumer.epoch": NAIVE_EPOCH} | kept | config)


def start(folder: Path, uri: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(PROGRAMS / "statscache"), *arguments],
        cwd=folder,
        env=os.environ | {URI_VARIABLE: uri} | options.pop("env", {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # So that a signal for all of its processes, as a terminal sends it, is not for us.
        start_new_session=True,
        **options,
    )


def run(folder: Path, uri: str, *arguments: str, **options: Any) -> tuple[int, str, str]:
    with start(folder, uri, *arguments, **options) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def done(folder: Path, uri: str, *arguments: str, **options: Any) -> str:
    """The output of a command that must succeed."""
    code, out, err = run(folder, uri, *arguments, **options)
    assert code == 0, err
    return out


def exported(folder: Path, uri: str) -> str:
    """The manifest of an export of everything."""
    database = Database(uri, read_only=True)
    made = export(database, list(discovery.discover({}).datasets.values()), folder / "out")
    database.dispose()
    return made.manifest()


@pytest.fixture(scope="session")
def month(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What must come out of all the messages."""
    return exported_by_oracle(MONTH, migrated_file, tmp_path_factory.mktemp("month"))


@pytest.fixture(scope="session")
def some(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What must come out of some of them."""
    return exported_by_oracle(MONTH[:SOME], migrated_file, tmp_path_factory.mktemp("some"))


def exported_by_oracle(messages: list[dict[str, Any]], empty: Path, folder: Path) -> str:
    """The manifest after one pass over the messages, without any archive."""
    shutil.copy(empty, folder / "oracle.db")
    uri = f"sqlite:///{folder / 'oracle.db'}"
    installed = discovery.discover({})
    engine = Engine(Database(uri), installed)
    engine.open()
    engine.count([Message.from_fedmsg(raw) for raw in messages])
    engine.close()
    return exported(folder, uri)


def rows(uri: str, query: str) -> list[tuple[Any, ...]]:
    database = Database(uri, read_only=True)
    with database.begin() as connection:
        found = [tuple(row) for row in connection.execute(text(query))]
    database.dispose()
    return found


@pytest.mark.parametrize("workers", ["1", "4"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_two_rebuilds_are_identical(
    tmp_path: Path,
    new_database: Callable[[str], str],
    backend: str,
    workers: str,
    month: str,
) -> None:
    # Each from files of its own: another order, other duplicates.
    write_month(tmp_path / "archive", MONTH, seed=BACKENDS.index(backend) * 10 + int(workers))
    configure_for_month(tmp_path, **{"statscache.archive.files": [str(tmp_path / "archive")]})
    uri = new_database(backend)
    assert f"complete: {IDENTS} idents" in done(tmp_path, uri, "backfill", "--workers", workers)
    assert f"rows of {IDENTS} idents" in done(tmp_path, uri, "export", "--output", "out")
    assert (tmp_path / "out" / "manifest.json").read_text() == month


@pytest.mark.long
def test_what_is_rebuilt_is_identical_too(
    tmp_path: Path,
    new_database: Callable[[str], str],
    some: str,
) -> None:
    configure_for_month(tmp_path, **{"statscache.archive.files": [str(tmp_path / "archive")]})
    write_month(tmp_path / "archive", MONTH[:SOME], seed=1)
    uri = new_database("postgresql")
    done(tmp_path, uri, "backfill")
    execute(uri, "DELETE FROM volume_by_user_1m")
    execute(uri, "UPDATE volume_by_user_1h SET volume = 5")
    (tmp_path / "archive").rename(tmp_path / "old")
    write_month(tmp_path / "archive", MONTH[:SOME], seed=2)
    output = done(tmp_path, uri, "rebuild", "volume, by user", "--workers", "2")
    for ident in ("volume-by-user-15s", "volume-by-user-1m", "volume-by-user-1d"):
        assert ident in output.partition("rebuilt")[2]
    assert exported(tmp_path, uri) == some


def serve_month(folder: Path, datagrepper: Datagrepper, **config: Any) -> None:
    datagrepper.add(MONTH[:SOME])
    configure_for_month(folder, **{"statscache.datagrepper.endpoint": datagrepper.url} | config)


@pytest.mark.parametrize("ending", ["raw", pytest.param("raw/", marks=pytest.mark.long)])
def test_the_endpoint_of_2015_is_that_of_raw(
    tmp_path: Path, new_database: Callable[[str], str], datagrepper: Datagrepper, ending: str
) -> None:
    archived = recent(10)
    datagrepper.add(archived)
    endpoint = datagrepper.url + ending
    uri = new_database("sqlite")
    configure_for_month(tmp_path, **RECENT | {"statscache.datagrepper.endpoint": endpoint})
    assert call(tmp_path, "backfill", uri=uri).returncode == 0
    assert volumes(uri) == 10
    assert {request.path for request in datagrepper.requests} == {"v2/search"}
    # The links that lead from a number to its messages.
    settings = {"statscache.sqlalchemy.uri": uri, "statscache.datagrepper.endpoint": endpoint}
    answer = create_app(settings).test_client().get("/api/volume-1d/messages").json
    assert answer is not None
    assert answer["search"].startswith(datagrepper.url + "v2/search?")


def watermark(uri: str) -> float:
    found = rows(uri, "SELECT watermark FROM statscache_lane WHERE name = 'main'")
    return found[0][0] if found else 0.0


@pytest.mark.parametrize(
    ("workers", "number"),
    [("1", signal.SIGINT), pytest.param("2", signal.SIGTERM, marks=pytest.mark.long)],
)
def test_one_that_is_interrupted_goes_on_where_it_stopped(
    tmp_path: Path,
    new_database: Callable[[str], str],
    datagrepper: Datagrepper,
    workers: str,
    number: signal.Signals,
    some: str,
) -> None:
    serve_month(tmp_path, datagrepper)
    datagrepper.set(latency=0.1)
    uri = new_database("sqlite")
    with start(tmp_path, uri, "backfill", "--workers", workers) as process:
        wait_until(lambda: watermark(uri) > EPOCH.timestamp() + 86_400, "it has begun")
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "progress is committed; repeat the command to continue" in err
    assert "Traceback" not in err
    assert "idents" not in out
    interrupted = watermark(uri)
    assert EPOCH.timestamp() + 86_400 < interrupted < NOW - 86_400
    assert rows(uri, "SELECT DISTINCT leased_by FROM statscache_lane") == [(None,)]
    datagrepper.set(latency=0.0)
    before = len(datagrepper.requests)
    done(tmp_path, uri, "backfill")
    asked = min(float(request["start"]) for request in datagrepper.requests[before:])
    assert asked >= interrupted - OVERLAP
    assert exported(tmp_path, uri) == some


def test_a_second_ctrl_c_does_not_wait(
    tmp_path: Path, new_database: Callable[[str], str], datagrepper: Datagrepper
) -> None:
    serve_month(tmp_path, datagrepper)
    datagrepper.set(latency=60.0)
    uri = new_database("sqlite")
    began = time.monotonic()
    with start(tmp_path, uri, "backfill") as process:
        wait_until(lambda: watermark(uri) and datagrepper.requests, "it waits for an answer")
        assert process.stderr is not None
        os.killpg(process.pid, signal.SIGINT)
        while "press Ctrl-C again to stop at once" not in process.stderr.readline():
            pass
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 50
    assert process.returncode != 0
    assert "repeat the command to continue" in err


@pytest.mark.long
def test_a_cluster_of_dask_gives_the_same(
    tmp_path: Path,
    new_database: Callable[[str], str],
    datagrepper: Datagrepper,
    some: str,
) -> None:
    serve_month(tmp_path, datagrepper)
    uri = new_database("postgresql")
    with dask_address(2) as address:
        done(tmp_path, uri, "backfill", "--dask", address, "--concurrency", "4")
    assert exported(tmp_path, uri) == some


def test_two_at_once_do_not_disturb_each_other(
    tmp_path: Path,
    new_database: Callable[[str], str],
    datagrepper: Datagrepper,
    backend: str,
    some: str,
) -> None:
    serve_month(tmp_path, datagrepper)
    uri = new_database(backend)
    with start(tmp_path, uri, "backfill") as first:
        with start(tmp_path, uri, "backfill") as second:
            _, err = second.communicate(timeout=120)
            assert second.returncode == 0, err
        _, err = first.communicate(timeout=120)
        assert first.returncode == 0, err
    assert exported(tmp_path, uri) == some


RECENT = {
    "statscache.consumer.epoch": datetime.fromtimestamp(TODAY - 86_400, UTC).replace(tzinfo=None),
    "statscache.archive.lag": timedelta(seconds=1),
    "statscache.archive.interval": timedelta(seconds=1),
    "statscache.archive.overlap": timedelta(minutes=5),
}


def recent(count: int) -> list[Message]:
    return [message(timestamp=TODAY - 86_400 + 60 * number) for number in range(count)]


def volumes(uri: str) -> int:
    return sum(row[-1] for row in table(uri, "volume_1d"))


def test_readers_see_the_old_table_until_the_new_one_is_complete(
    tmp_path: Path, new_database: Callable[[str], str], datagrepper: Datagrepper, backend: str
) -> None:
    archived = recent(1_000)
    datagrepper.add(archived)
    configure_for_month(tmp_path, **RECENT | {"statscache.datagrepper.endpoint": datagrepper.url})
    uri = new_database(backend)
    done(tmp_path, uri, "backfill")
    assert volumes(uri) == 1_000
    execute(uri, "UPDATE volume_1d SET volume = volume + 5000")
    wrong = volumes(uri)
    datagrepper.set(latency=0.1)
    stop = threading.Event()
    live: list[Message] = []

    def count_live() -> None:
        """As the hub does, without asking the archive."""
        engine = Engine(
            Database(uri), discovery.discover({}), epoch=RECENT["statscache.consumer.epoch"],
            has_history=True,
        )  # fmt: skip
        engine.open()
        while not stop.wait(0.05):
            live.append(message(timestamp=time.time()))
            engine.count([live[-1]])
            datagrepper.add([live[-1]])
        engine.close()

    counting = threading.Thread(target=count_live)
    counting.start()
    wait_until(lambda: len(live) > 3, "messages are counted")
    with start(tmp_path, uri, "rebuild", "volume-1h", "volume-1d") as process:
        seen = []
        while process.poll() is None:
            seen.append(volumes(uri))
            if len(seen) % 10 == 0:
                time.sleep(0.02)
        _, err = process.communicate(timeout=60)
    stop.set()
    counting.join()
    assert process.returncode == 0, err
    assert len(live) > 10
    # Messages that came before it began were counted into the old table.
    old = [total for total in seen if total >= wrong]
    new = [total for total in seen if total < wrong]
    assert seen == old + new
    assert len(set(old)) <= 1 + len(live)
    assert all(1_000 <= total <= 1_000 + len(live) for total in new)
    assert volumes(uri) == 1_000 + len(live)
    assert sum(row[-1] for row in table(uri, "volume_by_topic_1h")) == 1_000 + len(live)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_while_the_hub_fills_in_history_the_command_takes_over(
    tmp_path: Path, migrated_uri: str, datagrepper: Datagrepper
) -> None:
    datagrepper.add(recent(1_000))
    datagrepper.set(latency=1.5)
    config = RECENT | {"statscache.datagrepper.endpoint": datagrepper.url}
    with Hub(tmp_path, migrated_uri, **config) as hub:
        hub.start()
        wait_until(lambda: volumes(migrated_uri) > 0, "the hub has begun", hub.log)
        owner = "SELECT leased_by FROM statscache_lane WHERE name = 'main'"
        before = rows(migrated_uri, owner)
        with start(tmp_path, migrated_uri, "backfill", "--workers", "2") as process:
            wait_until(lambda: rows(migrated_uri, owner) != before, "it takes over", hub.log)
            datagrepper.set(latency=0.0)
            hub.publish(message(timestamp=time.time()).raw)
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        assert f"complete: {IDENTS} idents" in out
        wait_until(lambda: volumes(migrated_uri) == 1_001, "all are counted", hub.log)
        hub.publish(message(timestamp=time.time()).raw)
        wait_until(lambda: volumes(migrated_uri) == 1_002, "the hub counts on", hub.log)
        hub.stop()


def test_classic_plugins_are_filled_in_and_rebuilt(
    tmp_path: Path, new_database: Callable[[str], str]
) -> None:
    uri = new_database("sqlite")
    edits = [
        Message.from_fedmsg(
            raw | {"topic": "org.fedoraproject.prod.wiki.article.edit", "msg": {"title": title}}
        ).raw
        for raw, title in zip(MONTH, "abc" * 50, strict=False)
    ]
    write_month(tmp_path / "archive", edits, seed=1)
    configure_for_month(tmp_path, **{"statscache.archive.files": [str(tmp_path / "archive")]})
    strangers = {"PYTHONPATH": str(DISTRIBUTION)}
    done(tmp_path, uri, "backfill", "wiki-edits-by-title-1d", env=strangers)
    right = [row[1:] for row in table(uri, "data_wiki_edits")]
    assert sum(row[1] for row in right) == 150
    execute(uri, "UPDATE data_wiki_edits SET edits = 7")
    output = done(tmp_path, uri, "rebuild", "Wiki edits, by title", env=strangers)
    assert "rebuilt: wiki-edits-by-title-1d." in output
    assert sorted(row[1:] for row in table(uri, "data_wiki_edits")) == sorted(right)


@pytest.mark.long
def test_while_the_hub_runs_classic_plugins_stay_with_it(
    tmp_path: Path, new_database: Callable[[str], str], datagrepper: Datagrepper
) -> None:
    topic = "org.fedoraproject.prod.wiki.article.edit"
    archived = [
        message(topic, timestamp=TODAY - 86_400 + 60 * number, msg={"title": "a"})
        for number in range(300)
    ]
    datagrepper.add(archived)
    uri = new_database("postgresql")
    config = RECENT | {"statscache.datagrepper.endpoint": datagrepper.url}

    def edits() -> list[int]:
        return sorted(row[2] for row in table(uri, "data_wiki_edits"))

    with Hub(tmp_path, uri, others=True, **config) as hub:
        hub.start()
        wait_until(lambda: edits() == [300], "history is filled in", hub.log)
        late = message(topic, timestamp=TODAY - 86_400 + 30, msg={"title": "b"})
        hub.publish(late.raw)
        wait_until(lambda: edits() == [1, 300], "live messages are counted", hub.log)
        datagrepper.add([late])
        execute(uri, "UPDATE data_wiki_edits SET edits = 7")
        strangers = {"PYTHONPATH": str(DISTRIBUTION)}
        done(tmp_path, uri, "rebuild", "wiki-edits-by-title-1d", env=strangers)
        assert edits() == [1, 300]
        hub.publish(message(topic, timestamp=time.time(), msg={"title": "c"}).raw)
        wait_until(lambda: edits() == [1, 1, 300], "the hub counts on", hub.log)
        hub.stop()


def test_errors_name_cause_and_cure(
    tmp_path: Path, new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_month(tmp_path / "archive", MONTH[:20], seed=1)
    files = {"statscache.archive.files": [str(tmp_path / "archive")]}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URI_VARIABLE, new_database("sqlite"))
    cases: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
        ({}, ("backfill",), "no archive to fill in history from: set statscache.datagrepper"),
        ({}, ("rebuild", "volume-1d"), "no archive to fill in history from"),
        (files, ("backfill", "volum-1d"), "did you mean volume-1d"),
        (files, ("rebuild", "volume by topics"), "did you mean volume-by-topic"),
        (files, ("export", "xyz"), "'statscache plugins' lists all of them"),
        (files, ("rebuild",), "Missing argument 'IDENTS...'"),
        (files, ("backfill", "--workers", "0"), "0 is not in the range"),
        (files, ("backfill", "--workers", "2", "--dask", "x"), "exclude each other"),
        (files, ("export", "--start", "2023-12", "--stop", "2023-11"), "must be earlier"),
        (files, ("backfill", "--dask", "nonsense://x"), "no scheduler of Dask answers"),
    ]
    for config, arguments, expected in cases:
        configure_for_month(tmp_path, **config)
        result = CliRunner().invoke(command_line, arguments)
        assert result.exit_code != 0
        assert isinstance(result.exception, StatscacheError | SystemExit)
        assert expected in result.output + str(result.exception), arguments


def test_when_the_archive_stays_away_it_ends_with_the_reason(
    tmp_path: Path, new_database: Callable[[str], str], datagrepper: Datagrepper
) -> None:
    config = {"statscache.datagrepper.endpoint": datagrepper.url + "elsewhere/"}
    configure_for_month(tmp_path, **config)
    uri = new_database("sqlite")
    code, _, err = run(tmp_path, uri, "backfill", "--patience", "1.5", "--workers", "2")
    assert code == 1
    assert "next try in 1 s" in err
    assert "Progress is committed: repeat the command to continue" in err.splitlines()[-1]


def test_what_would_be_too_old_to_be_kept_is_not_filled_in(
    tmp_path: Path, new_database: Callable[[str], str]
) -> None:
    uri = new_database("sqlite")
    write_month(tmp_path / "archive", MONTH, seed=1)
    files = {"statscache.archive.files": [str(tmp_path / "archive")]}
    configure_for_month(tmp_path, **{"statscache.retention": {}} | files)
    code, _, err = run(tmp_path, uri, "backfill")
    assert code == 0, err
    times = {
        name: [row[0] for row in table(uri, f"volume_{name}")] for name in ("15s", "1m", "15m")
    }
    newest = max(raw["timestamp"] for raw in MONTH)
    assert 0 <= min(times["15s"]) - (newest - 7 * 86_400) < 86_400
    assert min(times["1m"]) // 900 == min(times["15m"]) // 900
    # All of it is counted, in what is kept for ever, and nothing differs from the archive.
    assert sum(row[1] for row in table(uri, "volume_15m")) == len(MONTH)
    code, out, _ = run(tmp_path, uri, "verify")
    assert code == 0, out
    # Nor is it when the plugin is rebuilt.
    assert run(tmp_path, uri, "rebuild", "volume-15s")[0] == 0
    assert [row[0] for row in table(uri, "volume_15s")] == times["15s"]


def test_rows_that_cannot_be_written_are_told_of(
    tmp_path: Path, new_database: Callable[[str], str]
) -> None:
    uri = new_database("sqlite")
    write_month(tmp_path / "archive", MONTH[:200], seed=1)
    configure_for_month(tmp_path, **{"statscache.archive.files": [str(tmp_path / "archive")]})
    execute(uri, "ALTER TABLE volume_1m RENAME TO hidden")
    code, out, err = run(tmp_path, uri, "backfill")
    assert code == 1
    siblings = len(with_siblings(discovery.discover({}), ["volume-1m"]))
    assert f"complete: {IDENTS - siblings} idents" in out
    assert "not complete:\n" in err
    assert "volume-1d: its rows cannot be written: " in err
    assert "no such table" in err


@pytest.mark.long
def test_progress_is_drawn_on_a_terminal_and_in_lines_elsewhere(
    tmp_path: Path, new_database: Callable[[str], str]
) -> None:
    write_month(tmp_path / "archive", MONTH[:200], seed=1)
    configure_for_month(tmp_path, **{"statscache.archive.files": [str(tmp_path / "archive")]})
    _, _, err = run(tmp_path, new_database("sqlite"), "backfill")
    assert "main 2023-11-" in err.splitlines()[0]
    assert "100.0%; 200 messages, " in err.splitlines()[-1]
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "statscache", "backfill"],
        cwd=tmp_path,
        env=os.environ | {URI_VARIABLE: new_database("sqlite"), "COLUMNS": "60"},
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            seen += os.read(leader, 4096)
        except OSError:
            break
    os.close(leader)
    assert process.wait() == 0
    drawn = seen.decode().rstrip("\r\n").split("\r")[1:]
    assert "main 2023-11-" in drawn[0]
    assert "100.0%; 200 messages" in drawn[-1]
    assert max(map(len, drawn)) < 60
