"""The main job: publish on a real bus, through the real hub, and read through the real API."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from statscache.app import create_app
from statscache.database.migrations import HEAD
from tests.support.databases import counted, on_postgresql, on_sqlite, table
from tests.support.hub import Hub, raw, wait_until

TODAY = 86_400

# A hub takes seconds to start. What databases do differently is tested with the engine alone.


def test_from_the_bus_to_json(tmp_path: Path, migrated_uri: str) -> None:
    with Hub(tmp_path, migrated_uri) as hub:
        hub.start()
        message = raw()
        for item in (message, message, raw("org.fedoraproject.prod.bodhi.update.comment", msg={})):
            hub.publish(item)
        client = create_app(hub.config).test_client()
        wait_until(lambda: counted(migrated_uri) == 2, "two are counted", hub.log)
        rows = client.get("/api/volume-by-category-1d").json
        assert {(row["category"], row["volume"]) for row in rows} == {("git", 1), ("bodhi", 1)}
        assert all(row["timestamp"] % TODAY == 0 for row in rows)
        assert client.get("/api/volume-by-user-1d").json[0]["user"] == "ralph"
        assert hub.stop() < 10
        # The API answers without the hub.
        assert client.get("/api/volume-1d").json[0]["volume"] == 2


@pytest.mark.parametrize(
    ("number", "backend"),
    [(signal.SIGINT, "sqlite"), (signal.SIGTERM, "postgresql")],
    indirect=["backend"],
)
def test_a_stop_commits_what_is_in_hand(
    tmp_path: Path, migrated_uri: str, number: signal.Signals
) -> None:
    # Flushed so rarely that only the stop can have done it.
    frequency = {"statscache.producer.frequency": timedelta(seconds=30)}
    with Hub(tmp_path, migrated_uri, **frequency) as hub:
        hub.start()
        for _ in range(500):
            hub.publish(raw())
        time.sleep(1)
        assert counted(migrated_uri) == 0
        assert hub.stop(number) < 10
        assert hub.process is not None
        assert hub.process.returncode == 0
        assert counted(migrated_uri) == 500


@pytest.mark.long
@on_postgresql
def test_a_kill_loses_no_more_than_the_open_batch_and_doubles_nothing(
    tmp_path: Path, migrated_uri: str
) -> None:
    messages = [raw() for _ in range(3000)]
    with Hub(tmp_path, migrated_uri) as hub:
        hub.start()
        for item in messages:
            hub.publish(item)
        wait_until(lambda: counted(migrated_uri) > 0, "a batch is committed", hub.log)
        hub.stop(signal.SIGKILL)
        before = counted(migrated_uri)
        assert sum(row[-1] for row in table(migrated_uri, "volume_1d")) == before
        hub.start()
        for item in messages:
            hub.publish(item)
        wait_until(lambda: counted(migrated_uri) == 3000, "all are counted", hub.log)
        assert sum(row[-1] for row in table(migrated_uri, "volume_1d")) == 3000


@on_sqlite
def test_nonsense_on_the_bus_is_recorded_and_stops_nothing(
    tmp_path: Path, migrated_uri: str
) -> None:
    # A pool that is too small for moksha's own threads, as some configurations have it.
    with Hub(tmp_path, migrated_uri, **{"moksha.threadpool_size": 1}) as hub:
        hub.start()
        hub.send(b"org.x.dev.bad.json", b"{not json")
        hub.send(b"org.x.dev.bad.encoding", b'{"topic": "\xff\xfe"}')
        hub.send(b"org.x.dev.bad.topic \xff", b"{}")
        hub.send(b"org.x.dev.bad.frames", b"1", b"2")
        hub.send(b"org.x.dev.bad.\x1b[2J", b'"\x1b]0;title"')
        hub.send(b"org.x.dev.bad.time", b'{"topic": "org.x.dev.bad.time", "timestamp": NaN}')
        hub.publish(raw())
        wait_until(lambda: counted(migrated_uri) == 1, "the good one is counted", hub.log)
        wait_until(lambda: len(table(migrated_uri, "statscache_rejected")) == 6, "kept", hub.log)
        log = hub.log.read_text()
        assert "raised to the 3 needed" in log
        assert "\x1b" not in log


@on_sqlite
def test_the_log_says_what_the_hub_works_with(tmp_path: Path, migrated_uri: str) -> None:
    config = {
        "statscache.datagrepper.endpoint": "http://name:secret@127.0.0.1:1/",
        "statscache.plugins.disabled": ["volume-by-user-*", "volume-by-topic-*"],
    }
    with Hub(tmp_path, migrated_uri, others=True, **config) as hub:
        hub.start()

        def says(text: str) -> Callable[[], bool]:
            return lambda: text in hub.log.read_text()

        # At once, though it is asked again for a minute before it is given up.
        wait_until(says("datagrepper at http://127.0.0.1:1/ cannot be reached"), "so", hub.log)
        log = hub.log.read_text()
        assert f"with the database sqlite:///{tmp_path / 'statscache.db'}" in log
        assert f"the schema of the database is {HEAD}" in log
        assert "volume-by-category-1d, volume-by-category-1h" in log
        assert "turned off: volume, by topic; volume, by user\n" in log
        assert "cannot be used: missing = stranger_statistics_that_is_not_there" in log
        assert f"the bus: {hub.config['endpoints']['test'][0]}; signatures are not checked" in log
        assert "comes from datagrepper at http://127.0.0.1:1/, asked every 60 s" in log
        assert "secret" not in log


@on_postgresql
def test_other_peoples_classic_plugins_run_in_the_hub(tmp_path: Path, migrated_uri: str) -> None:
    edit = "org.fedoraproject.prod.wiki.article.edit"
    start = 1_700_000_000 // 3600 * 3600
    with Hub(tmp_path, migrated_uri, others=True) as hub:
        hub.start()
        for number in range(5):
            hub.publish(raw(edit, timestamp=start + number * 30, msg={"title": "Flock"}))
        wait_until(lambda: counted(migrated_uri) == 5, "five are counted", hub.log)
        hub.stop(signal.SIGKILL)
        hub.start()
        hub.publish(raw(edit, timestamp=start + 31, msg={"title": "Flock"}))
        wait_until(lambda: counted(migrated_uri) == 6, "six are counted", hub.log)
        edits = table(migrated_uri, "data_wiki_edits")
        assert [(row[2], row[3]) for row in edits] == [(6, "Flock")]
        assert [row[2] for row in table(migrated_uri, "data_messages_1h")] == [6]
        assert sorted(row[2] for row in table(migrated_uri, "data_messages_1m")) == [1, 2, 3]
        log = hub.log.read_text()
        assert "created the table data_wiki_edits" in log
        assert "has a slash" in log
        assert "stranger_statistics_that_is_not_there" in log


@on_sqlite
def test_a_hub_that_meets_another_schema_says_so_and_ends(
    tmp_path: Path, database_uri: str
) -> None:
    with Hub(tmp_path, database_uri) as hub:
        hub.start(subscribes=False)
        assert hub.process is not None
        assert hub.process.wait(timeout=20) == 1
        assert "run 'statscache db upgrade'" in hub.log.read_text()
