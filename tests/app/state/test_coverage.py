"""Coverage: whether a missing row means zero, or unknown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from statscache.app.state import coverage, revisions
from statscache.app.state.coverage import Coverage
from statscache.app.state.revisions import Snapshot
from statscache.app.state.steps import Every
from statscache.catchup.loop import CatchUp
from statscache.counting.engine import Engine
from statscache.database import tables
from statscache.database.connection import Database
from statscache.hub.intake import Intake
from statscache.plugins import Aggregate, BaseModel, BasePlugin, Value
from tests.support.databases import execute, table
from tests.support.hub import Hub, wait_until
from tests.support.hub_fixture import POLLING, TODAY, HubFixture
from tests.support.messages import message

DAY = 86_400


class Hits(Aggregate):
    name, summary, description = "hits", "hits", "For tests."
    values = (Value("hits", "add"),)
    resolutions = (timedelta(hours=1), timedelta(days=1))

    def rows(self, message: Any) -> list[tuple[Any, ...]]:
        return [(1,)]


class HitsAgain(Hits):
    version = 2


class Others(Hits):
    name = "others"


class Quarters(Hits):
    name = "quarters"
    retention = {timedelta(hours=1): timedelta(days=1)}  # noqa: RUF012


class Rows(BaseModel):
    __tablename__ = "coverage_rows"


class Classic(BasePlugin):
    name, summary, description = "classic", "classic", "For tests."
    model = Rows


class CoverageFixture(HubFixture):
    """A database, and the engines that work on it one after the other."""

    def __init__(self, uri: str, path: Path) -> None:
        super().__init__(uri, path)
        self.now = time.time()
        self.newest = self.now - 70
        # Up to the newest it has shown everything.
        self.history = [message(timestamp=moment) for moment in (TODAY - DAY, self.newest)]

    def open(self, *classes: type, **more: Any) -> Engine:
        self.close()
        return super().open(*classes, **more)

    def catch_up(self, engine: Engine) -> None:
        CatchUp(engine, self.archive(self.history), POLLING).run_until_complete()

    def read(self, ident: str) -> Coverage:
        with Database(self.uri, read_only=True).begin() as connection:
            return coverage.measure(Snapshot(connection), ident)


@pytest.fixture
def covered(migrated_uri: str, tmp_path: Path) -> Iterator[CoverageFixture]:
    made = CoverageFixture(migrated_uri, tmp_path / "archive.jsonl")
    yield made
    made.close()


def test_what_the_hub_has_not_seen_covers_nothing(covered: CoverageFixture) -> None:
    found = covered.read("hits-1d")
    assert found == Coverage()
    assert found.state == coverage.INSTALLED
    assert not found.covers(0, 1)
    assert not found.is_live(covered.now)
    assert found.lag(covered.now) is None


def test_without_an_archive_it_covers_what_the_hub_heard(covered: CoverageFixture) -> None:
    engine = covered.open(Hits, has_history=False)
    assert covered.read("hits-1d").since is None
    engine.beat(1000.0)
    engine.beat(1010.0)
    found = covered.read("hits-1d")
    assert (found.state, found.since, found.until) == ("active", 1000.0, 1010.0)
    assert found.reconciled_until is None
    assert found.covers(1000, 1010)
    assert not found.covers(999, 1010)
    assert not found.covers(1000, 1011)
    assert found.is_live(1070.0)
    assert not found.is_live(1071.0)
    assert found.lag(1015.0) == 5


def test_without_an_archive_a_pause_of_the_hub_is_a_gap(covered: CoverageFixture) -> None:
    covered.open(Hits, has_history=False).beat(1000.0)
    engine = covered.open(Hits, Others, has_history=False)
    engine.beat(2000.0)
    engine.beat(3000.0)
    found = covered.read("hits-1d")
    assert (found.since, found.until, found.gaps) == (1000.0, 3000.0, ((1000.0, 2000.0),))
    assert not found.covers(1000, 1001)
    assert not found.covers(1999, 2001)
    assert found.covers(2000, 3000)
    # It was not asked to listen then.
    other = covered.read("others-1d")
    assert (other.since, other.until, other.gaps) == (2000.0, 3000.0, ())


def test_without_an_archive_one_that_is_gone_counts_nothing(covered: CoverageFixture) -> None:
    covered.open(Hits, Others, has_history=False).beat(1000.0)
    covered.open(Others, has_history=False).beat(2000.0)
    found = covered.read("hits-1d")
    assert (found.state, found.since, found.until) == ("gone", None, None)
    covered.open(Hits, Others, has_history=False).beat(3000.0)
    found = covered.read("hits-1d")
    assert (found.state, found.since, found.until) == ("active", 3000.0, 3000.0)


def test_without_an_archive_another_definition_counts_nothing(covered: CoverageFixture) -> None:
    covered.open(Hits, has_history=False).beat(1000.0)
    covered.open(HitsAgain, has_history=False).beat(2000.0)
    found = covered.read("hits-1d")
    assert (found.state, found.until) == ("failing", None)
    assert "its definition changed" in (found.error or "")


def test_with_an_archive_it_covers_its_history(covered: CoverageFixture) -> None:
    engine = covered.open(Hits)
    start = TODAY - 2 * DAY
    found = covered.read("hits-1d")
    assert (found.since, found.until, found.reconciled_until) == (start, start, start)
    covered.catch_up(engine)
    found = covered.read("hits-1d")
    assert found.since == start
    assert found.until == found.reconciled_until
    assert covered.now - 120 < (found.until or 0) < time.time()
    assert found.newest == covered.newest
    assert found.covers(start, TODAY - DAY)
    assert not found.is_live(time.time())


def test_with_an_archive_what_is_heard_counts_beyond_the_watermark(
    covered: CoverageFixture,
) -> None:
    engine = covered.open(Hits)
    covered.catch_up(engine)
    watermark = covered.read("hits-1d").reconciled_until
    assert watermark is not None
    # It began to listen before it was reconciled up to there.
    engine.beat(watermark - 10)
    engine.beat(watermark + 10)
    found = covered.read("hits-1d")
    assert (found.until, found.reconciled_until, found.gaps) == (watermark + 10, watermark, ())
    # Killed, and back after an hour: that hour is filled in later.
    engine = covered.open(Hits)
    engine.beat(watermark + 3600)
    engine.beat(watermark + 3610)
    found = covered.read("hits-1d")
    assert found.until == watermark + 3610
    assert found.gaps == ((watermark, watermark + 3600),)
    assert found.covers(watermark - 10, watermark)
    assert found.covers(watermark + 3600, watermark + 3610)
    assert not found.covers(watermark - 10, watermark + 10)


def test_what_the_archive_did_not_give_is_a_gap(covered: CoverageFixture) -> None:
    engine = covered.open(Hits)
    covered.catch_up(engine)
    start = TODAY - DAY
    for begin, stop in ((0, 10), (100, 110), (105, 120), (-3 * DAY, -3 * DAY + 1)):
        gap = {"lane": 1, "missing": 5, "noticed_at": covered.now}
        execute(
            covered.uri,
            insert(tables.gap).values(gap | {"start": start + begin, "stop": start + stop}),
        )
    found = covered.read("hits-1h")
    assert found.gaps == ((start, start + 10), (start + 100, start + 120))
    assert not found.covers(start, start + 1)
    assert found.covers(start + 10, start + 100)
    assert not found.covers(start + 10, start + 101)
    assert found.covers(start - 100, start)


def test_before_very_many_gaps_nothing_is_covered(
    covered: CoverageFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage, "MOST_GAPS", 3)
    monkeypatch.setattr(revisions, "MOST_GAPS", 3)
    engine = covered.open(Hits)
    covered.catch_up(engine)
    start = TODAY - DAY
    rows = [{"lane": 1, "start": start + 10 * i, "stop": start + 10 * i + 1} for i in range(10)]
    more = {"missing": 1, "noticed_at": 0}
    execute(covered.uri, insert(tables.gap).values([row | more for row in rows]))
    assert [(a - start, b - start) for a, b in covered.read("hits-1h").gaps] == [
        (-DAY, 71),
        (80, 81),
        (90, 91),
    ]


def test_what_was_pruned_is_not_covered(covered: CoverageFixture) -> None:
    engine = covered.open(Quarters)
    covered.catch_up(engine)
    engine.count([message(timestamp=covered.now)])
    engine.prune()
    fine, coarse = covered.read("quarters-1h"), covered.read("quarters-1d")
    assert fine.since == fine.pruned_until
    assert covered.now - DAY - 2 < (fine.since or 0) <= time.time() - DAY
    assert coarse.since == TODAY - 2 * DAY


def test_a_plugin_that_fills_in_its_history_says_how_far_it_is(covered: CoverageFixture) -> None:
    covered.catch_up(covered.open(Hits))
    engine = covered.open(Hits, Others)
    engine.beat(covered.now)
    engine.beat(covered.now + 10)
    found = covered.read("others-1d")
    start = TODAY - 2 * DAY
    assert found.state == "filling"
    assert (found.since, found.reconciled_until) == (start, start)
    assert found.gaps == ((start, covered.now),)
    assert found.covers(covered.now, covered.now + 10)
    covered.catch_up(engine)
    found = covered.read("others-1d")
    assert found.state == "active"
    assert found.gaps == () or found.gaps[0][0] > covered.now - 120


def test_what_is_counted_anew_is_covered_as_far_as_it_was_served(covered: CoverageFixture) -> None:
    covered.catch_up(covered.open(Hits, Others))
    before = covered.read("hits-1d").reconciled_until
    engine = covered.open(HitsAgain, Others)
    engine.beat(covered.now + 1000)
    found = covered.read("hits-1d")
    assert found.state == "filling"
    assert (found.until, found.reconciled_until) == (before, before)
    assert not found.is_live(covered.now + 1000)
    covered.catch_up(engine)
    found = covered.read("hits-1d")
    assert found.state == "active"
    assert (found.reconciled_until or 0) >= (before or 0)
    assert found.is_live(covered.now + 1000)


def test_a_classic_plugin_listens_only_when_its_history_is_there(covered: CoverageFixture) -> None:
    engine = covered.open(Classic)
    engine.beat(covered.now)
    assert covered.read("classic").listens_until is None
    covered.catch_up(engine)
    engine.beat(covered.now + 10)
    assert covered.read("classic").listens_until == covered.now + 10


def test_a_lane_that_rests_after_a_failure_does_not_listen(covered: CoverageFixture) -> None:
    engine = covered.open(Hits)
    covered.catch_up(engine)
    engine.beat(covered.now)
    execute(covered.uri, update(tables.lane).values(retry_at=covered.now + 1000))
    engine.beat(covered.now + 10)
    assert covered.read("hits-1d").listens_until == covered.now
    execute(covered.uri, update(tables.lane).values(retry_at=None))
    engine.beat(covered.now + 20)
    found = covered.read("hits-1d")
    assert found.listens_until == covered.now + 20
    assert not found.covers(covered.now, covered.now + 1)


def test_the_intake_says_that_it_listens_though_nothing_comes(covered: CoverageFixture) -> None:
    engine = covered.open(Hits, has_history=False)
    intake = Intake(engine, batch_size=10, buffer_size=100)
    before = time.time()
    intake.flush()
    first = covered.read("hits-1d").until or 0
    assert before <= first <= time.time()
    # Not again at once, but when it stops.
    intake.flush()
    assert covered.read("hits-1d").until == first
    intake.close()
    assert (covered.read("hits-1d").until or 0) > first


def test_what_answers_tell_changes_once_per_step(covered: CoverageFixture) -> None:
    engine = covered.open(Hits, has_history=False)
    hours = Every(3600)
    engine.beat(7000.0)
    engine.beat(7100.0)
    assert covered.read("hits-1h").floored(hours).covers(7000, 7000)
    first = covered.read("hits-1h").floored(hours)
    engine.beat(7110.0)
    assert covered.read("hits-1h").floored(hours) == first
    engine.beat(10_800.0)
    later = covered.read("hits-1h").floored(hours)
    assert (later.since, later.until) == (7000.0, 10_800.0)
    assert later.covers(7200, 10_800)
    # A pause in the hour that is still open is told when it has ended.
    covered.open(Hits, has_history=False).beat(12_000.0)
    assert covered.read("hits-1h").gaps == ((10_800.0, 12_000.0),)
    assert covered.read("hits-1h").floored(hours).gaps == ()
    assert covered.read("hits-1h").to_json() == {
        "state": "active",
        "since": 7000,
        "until": 12_000,
        "reconciled_until": None,
        "gaps": [[10_800, 12_000]],
    }


def test_the_hub_listens_on_a_silent_bus(tmp_path: Path, migrated_uri: str) -> None:
    def beat_at() -> Any:
        with Database(migrated_uri).begin() as connection:
            return connection.scalar(select(tables.lane.c.beat_at).where(tables.lane.c.id == 1))

    before = time.time()
    with Hub(tmp_path, migrated_uri) as hub:
        hub.start()
        wait_until(beat_at, "the hub says that it listens", hub.log)
        with Database(migrated_uri, read_only=True).begin() as connection:
            found = coverage.measure(Snapshot(connection), "volume-1d")
        assert before <= (found.since or 0) <= (found.until or 0) <= time.time()
        assert found.until is not None
        assert found.is_live(found.until + 10)
        hub.stop()
    assert beat_at() > found.until
    assert table(migrated_uri, "volume_1d") == []
