"""What is deleted because of its age: rows, and claims. Neither changes what is counted later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from statscache.archive import FileArchive
from statscache.counting import late
from statscache.counting.engine import Engine
from statscache.counting.lanes.checksums import CHECKSUM_WIDTH
from statscache.database import tables
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from tests.support.databases import table
from tests.support.hub_fixture import Hits, Newest, write
from tests.support.hub_steps import OVERLAP, lane, reconcile, settle
from tests.support.messages import NOON, message

DAY = 86_400
MIDNIGHT = NOON - DAY / 2
EPOCH = datetime.fromtimestamp(MIDNIGHT - 10 * DAY, UTC)


class Minutely(Hits):
    name = "minutely"
    topics = ("org.fedoraproject.prod.git.#",)
    resolutions = (timedelta(minutes=1), timedelta(hours=1), timedelta(days=1))
    retention = {timedelta(minutes=1): timedelta(days=30)}  # noqa: RUF012


class Steady:
    """A database, and an archive of times long past."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self._path = folder / "archive.jsonl"
        self._engines: list[Engine] = []

    def open(
        self,
        *classes: type,
        has_history: bool = True,
        retention: dict[str, timedelta] | None = None,
        epoch: datetime = EPOCH,
    ) -> Engine:
        installed = discovery.load([(Source("t", "t", "1"), lambda: classes)], {})
        assert not installed.broken
        engine = Engine(
            Database(self.uri), installed, retention, epoch=epoch, has_history=has_history
        )
        engine.open()
        self._engines.append(engine)
        return engine

    def archive(self, found: list[Message]) -> FileArchive:
        write(self._path, found)
        return FileArchive([str(self._path)])

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        return table(self.uri, name)

    def number_of(self, name: str) -> int:
        database = Database(self.uri)
        with database.begin() as connection:
            query = select(func.count()).select_from(tables.metadata.tables[f"statscache_{name}"])
            count = connection.scalar(query)
        database.dispose()
        return int(count or 0)

    def close(self) -> None:
        for engine in self._engines:
            engine.close()


@pytest.fixture
def steady(migrated_uri: str, tmp_path: Path) -> Iterator[Steady]:
    made = Steady(migrated_uri, tmp_path)
    yield made
    made.close()


def hit(timestamp: float, **more: Any) -> Message:
    return message(timestamp=timestamp, msg={"place": "a", "number": 1}, **more)


def age(engine: Engine) -> None:
    """Let everything grow old: what has happened since is told by a message of now."""
    engine.count([message("org.fedoraproject.prod.wiki.article.edit", timestamp=time.time())])
    engine.prune()


def test_a_late_message_adds_one_to_its_day_and_brings_no_minute_back(steady: Steady) -> None:
    found = [hit(NOON + second) for second in range(0, 3_600, 10)]
    archive = steady.archive(found)
    engine = steady.open(Minutely)
    settle(engine, archive, NOON + 7_200)
    engine.prune()
    assert len(steady.rows("minutely_1m")) == 60
    age(engine)
    assert steady.rows("minutely_1m") == []
    old = hit(NOON + 77)
    for _ in range(3):
        engine.count([old, *found[:5]])
        settle(engine, archive, NOON + 7_200)
        assert steady.rows("minutely_1m") == []
        assert steady.rows("minutely_1h") == [(int(NOON), "a", 361)]
        assert steady.rows("minutely_1d") == [(int(MIDNIGHT), "a", 361)]
    # After a restart, from another process, and from the archive as well.
    again = steady.open(Minutely)
    again.count([hit(NOON + 78)])
    archive = steady.archive([*found, hit(NOON + 7_100)])
    settle(again, archive, NOON + 7_300)
    assert steady.rows("minutely_1m") == []
    assert steady.rows("minutely_1d") == [(int(MIDNIGHT), "a", 363)]


def test_rows_are_deleted_in_portions_and_readers_are_told(
    steady: Steady, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statscache.counting.membership.retention._ROWS_AT_ONCE", 7)
    engine = steady.open(Minutely, has_history=False)
    engine.count([hit(NOON + second) for second in range(0, 3_600, 10)])
    before = {row[0]: row[1] for row in steady.rows("statscache_revision")}
    age(engine)
    assert steady.rows("minutely_1m") == []
    after = {row[0]: row[1] for row in steady.rows("statscache_revision")}
    assert after["minutely-1m"] > before["minutely-1m"]
    assert after["minutely-1d"] == before["minutely-1d"]
    engine.prune()
    assert after == {row[0]: row[1] for row in steady.rows("statscache_revision")}


def test_rows_are_deleted_while_another_process_counts(steady: Steady) -> None:
    """It must not write a part of a row that is deleted, though it began before."""
    engine, other = (steady.open(Minutely, has_history=False) for _ in range(2))
    other.count([hit(NOON)])
    age(engine)
    other.count([hit(NOON + 1)])
    assert steady.rows("minutely_1m") == []
    assert steady.rows("minutely_1d") == [(int(MIDNIGHT), "a", 2)]


def test_a_shadow_gets_no_part_of_a_row_either(
    steady: Steady, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [hit(NOON + second) for second in range(0, 3_600, 10)]
    archive = steady.archive(found)
    engine = steady.open(Minutely, Newest)
    settle(engine, archive, NOON + 7_200)
    monkeypatch.setattr(Minutely, "version", 2)
    engine = steady.open(Minutely, Newest)
    name = "new minutely-1d"
    reconcile(engine, archive, NOON + 1_800, names=[name])
    age(engine)
    reconcile(engine, archive, NOON + 7_260)
    engine.count([hit(NOON + 7)])
    settle(engine, archive, NOON + 8_000)
    assert engine.join(lane(engine, name).id)
    assert steady.rows("minutely_1m") == []
    assert steady.rows("minutely_1d") == [(int(MIDNIGHT), "a", 361)]


def test_a_longer_retention_does_not_bring_parts_of_rows_back(steady: Steady) -> None:
    engine = steady.open(Minutely, has_history=False)
    engine.count([hit(NOON)])
    age(engine)
    longer = {"1m": timedelta(days=100_000)}
    engine = steady.open(Minutely, has_history=False, retention=longer)
    engine.prune()
    engine.count([hit(NOON + 1)])
    assert steady.rows("minutely_1m") == []


def test_claims_are_bounded_by_the_overlap(steady: Steady) -> None:
    """Days of traffic by both ways, half of it without ids, some of it late."""
    found = [hit(MIDNIGHT - 2 * DAY + 120 * number + 0.25) for number in range(2 * DAY // 120)]
    bare = [Message.from_fedmsg({k: v for k, v in m.raw.items() if k != "msg_id"}) for m in found]
    live = [
        one if number % 2 else other
        for number, (one, other) in enumerate(zip(found, bare, strict=True))
    ]
    archive = steady.archive(found)
    engine = steady.open(Hits)
    step = 60
    most = 0
    for first in range(0, len(found), step):
        batch = live[first : first + step]
        engine.count([*batch[:-5], *live[max(0, first - 200) : first : 23]])
        until = found[first].timestamp + step * 120 - 1
        settle(engine, archive, until)
        most = max(most, steady.number_of("claim"))
    assert sum(row[-1] for row in steady.rows("hits_1d")) == len(found)
    # What is newer than the pruned ones, at one message in two minutes.
    assert most <= (OVERLAP + 60) / 120 + 2
    assert steady.number_of("claim_checksum") <= 2 * DAY / CHECKSUM_WIDTH
    assert steady.number_of("late") == 0
    assert steady.rows("statscache_rejected") == []


def test_claims_are_pruned_in_portions(steady: Steady, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statscache.counting.lanes.checksums._PRUNED_AT_ONCE", 7)
    found = [hit(NOON + second // 3) for second in range(300)]
    archive = steady.archive(found)
    engine = steady.open(Hits)
    settle(engine, archive, NOON + 7_200)
    assert steady.number_of("claim") == 0
    engine.count(found)
    settle(engine, archive, NOON + 7_200)
    assert steady.rows("hits_1d") == [(int(MIDNIGHT), "a", 300)]


def test_without_an_archive_all_claims_stay(steady: Steady) -> None:
    """Nothing else could tell, when a file is replayed again, what of it was counted."""
    engine = steady.open(Hits, has_history=False)
    found = [hit(NOON + 600 * number) for number in range(50)]
    engine.count(found)
    engine.prune_claims(OVERLAP)
    engine.prune()
    assert steady.number_of("claim") == 50
    assert engine.count(found).duplicates == 50
    # With one, they are pruned as everywhere, as far as it has the messages.
    engine = steady.open(Hits)
    archive = steady.archive(found[5:])
    settle(engine, archive, NOON + 3 * DAY)
    assert steady.number_of("claim") == 5
    engine.count(found)
    settle(engine, archive, NOON + 3 * DAY)
    assert sum(row[-1] for row in steady.rows("hits_1d")) == 50


def test_when_the_archive_is_taken_away_what_is_late_waits(steady: Steady) -> None:
    found = [hit(NOON + second) for second in range(0, 600, 10)]
    archive = steady.archive(found)
    settle(steady.open(Hits), archive, NOON + 7_200)
    engine = steady.open(Hits, has_history=False)
    assert engine.count([*found, hit(NOON + 5), hit(NOON + 9_000)]).late == 61
    assert steady.rows("hits_1d") == [(int(MIDNIGHT), "a", 61)]
    engine = steady.open(Hits)
    while late.resolve(engine, archive):
        pass
    assert steady.rows("hits_1d") == [(int(MIDNIGHT), "a", 62)]
