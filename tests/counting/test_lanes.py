"""Lanes: which plugins join, which leave, and that none loses or repeats a message meanwhile."""

from __future__ import annotations

import logging
import pickle
import random
import threading
from datetime import datetime, timedelta
from typing import Any, ClassVar

import pytest

from statscache.archive import Window, read
from statscache.catchup.workers import FoldTask
from statscache.counting.batch import Batch
from statscache.counting.engine import Engine
from statscache.counting.transactions import Transactions
from statscache.errors import DatabaseUnavailable
from statscache.message import Message
from statscache.plugins import Key, ScalarModel
from tests.support.classics import CountsDays
from tests.support.databases import execute
from tests.support.hub_fixture import TODAY, Hits, HubFixture, Log, Newest, messages
from tests.support.hub_steps import lane, lanes_of, reconcile, settle
from tests.support.messages import message

DAY = 86_400
NOON = TODAY - 43_200.0


class Counting(Hits):
    name = "counting"
    resolutions = ()


class DailyModel(ScalarModel):
    __tablename__ = "lanes_daily"


class StubbornModel(ScalarModel):
    __tablename__ = "lanes_stubborn"


class Daily(CountsDays):
    name, summary, description = "daily", "daily", "For tests."
    model: Any = DailyModel


def hit(timestamp: float, place: str = "z", number: int = 1, **more: Any) -> Message:
    return message(timestamp=timestamp, msg={"place": place, "number": number}, **more)


def names(engine: Engine) -> set[str]:
    return {each.name for each in lanes_of(engine)}


def join(engine: Engine, name: str) -> list[str]:
    return engine.join(lane(engine, name).id)


# Who is where.


def test_a_number_is_never_used_again(hub_fixture: HubFixture) -> None:
    """Other processes may remember that lane: that its classic plugins have their history."""
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    settle(hub_fixture.open(Hits), archive, NOON + 7_200)
    numbers = []
    for plugins in ([Hits, Newest], [Hits, Newest, Counting]):
        engine = hub_fixture.open(*plugins)
        name = f"new {plugins[-1].name}"
        numbers.append(lane(engine, name).id)
        settle(engine, archive, NOON + 7_200)
        assert join(engine, name)
    assert len({1, *numbers}) == 3


def test_those_who_left_together_come_back_one_by_one(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    settle(hub_fixture.open(Hits, Newest, Counting), archive, NOON + 1_800)
    settle(hub_fixture.open(Hits), archive, NOON + 2_400)
    settle(hub_fixture.open(Hits, Newest), archive, NOON + 3_000)
    assert hub_fixture.state("counting") == "gone"
    engine = hub_fixture.open(Hits, Newest)
    assert join(engine, "back newest") == ["newest"]
    settle(engine, archive, NOON + 3_600)
    engine = hub_fixture.open(Hits, Newest, Counting)
    settle(engine, archive, NOON + 3_600)
    assert join(engine, hub_fixture.lane_of("counting")) == ["counting"]
    assert names(engine) == {"main"}
    assert hub_fixture.total("counting") == hub_fixture.total() == 60
    # And once more, by the same names.
    settle(hub_fixture.open(Hits), archive, NOON + 3_700)
    engine = hub_fixture.open(Hits, Newest, Counting)
    settle(engine, archive, NOON + 3_700)
    assert set(join(engine, hub_fixture.lane_of("counting"))) == {"newest", "counting"}
    assert hub_fixture.total("counting") == 60


def test_a_change_during_a_rebuild_begins_from_the_beginning(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    settle(hub_fixture.open(Hits, Counting), archive, NOON + 7_200)
    for version in (2, 3):
        monkeypatch.setattr(Counting, "version", version)
        engine = hub_fixture.open(Hits, Counting)
        reconcile(engine, archive, NOON + 1_800, names=[hub_fixture.lane_of("counting")])
        assert hub_fixture.total("counting") == 60
    settle(engine, archive, NOON + 7_200)
    assert join(engine, hub_fixture.lane_of("counting")) == ["counting"]
    assert names(engine) == {"main"}
    assert hub_fixture.total("counting") == 60


def test_nobody_sees_a_half_built_table_though_the_plugin_is_the_only_one(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    settle(hub_fixture.open(Counting), archive, NOON + 7_200)
    monkeypatch.setattr(Counting, "keys", (Key("place"), Key("number", type=int)))
    monkeypatch.setattr(Counting, "rows", lambda _, m: [(m.msg["place"], m.msg["number"], 1)])
    engine = hub_fixture.open(Counting)
    name = hub_fixture.lane_of("counting")
    settle(engine, archive, NOON + 1_800)
    assert join(engine, name) == []
    assert len(hub_fixture.rows("counting")) == 3
    settle(engine, archive, NOON + 7_200)
    assert join(engine, name) == ["counting"]
    assert len(hub_fixture.rows("counting")) == 60
    assert names(engine) == {"main"}
    # The lane has taken the place of the main one, with all that it remembers.
    engine.count(found)
    settle(engine, archive, NOON + 7_300)
    assert hub_fixture.total("counting") == 60


def test_what_waits_in_one_of_them_is_counted_before_they_join(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    settle(hub_fixture.open(Hits), archive, NOON + 7_200)
    engine = hub_fixture.open(Hits, Counting)
    reconcile(engine, archive, NOON + 1_800, names=["new counting"])
    # For the one it is late, and the other counts it at once.
    old = hit(NOON + 3_000)
    engine.count([old])
    assert (hub_fixture.total(), hub_fixture.total("counting")) == (60, 31)
    reconcile(engine, archive, NOON + 7_200)
    assert join(engine, "new counting") == []
    settle(engine, archive, NOON + 7_200)
    assert join(engine, "new counting") == ["counting"]
    engine.count([old, *found])
    settle(engine, archive, NOON + 7_200)
    assert (hub_fixture.total(), hub_fixture.total("counting")) == (61, 61)


# How far back history goes.


def test_a_plugin_that_goes_further_back_than_the_others(
    hub_fixture: HubFixture, caplog: pytest.LogCaptureFixture
) -> None:
    """The epoch was moved: what is older than the others' history is told apart for this one."""
    old = messages(60, NOON - 3 * DAY, 60)
    found = [*old, *messages(60, NOON, 60)]
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, days=2)
    settle(engine, archive, NOON + 7_200)
    engine.count(old[:10])
    assert hub_fixture.total() == 70
    with caplog.at_level(logging.WARNING):
        engine = hub_fixture.open(Hits, Counting, days=5)
    assert "statscache rebuild hits-1d" in caplog.text
    engine.count(old[:20])
    while join(engine, "new counting") == []:
        settle(engine, archive, NOON + 7_200)
        assert hub_fixture.total("counting") <= 120
        if "new counting" not in names(engine):
            break
    assert hub_fixture.total("counting") == 120
    engine.count([*found, hit(NOON - 3 * DAY + 30)])
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total("counting") == 121
    # The others got what the bus brought before it was known that there is more.
    assert hub_fixture.total() == 80
    engine.rebuild(["hits-1d", "hits-1h"])
    settle(engine, archive, NOON + 7_200)
    assert set(join(engine, hub_fixture.lane_of("hits-1d"))) == {"hits-1d", "hits-1h"}
    engine.count(found)
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total("hits_1h") == 120
    assert hub_fixture.total("counting") == 121


def test_the_epoch_moved_later_takes_nothing_away(hub_fixture: HubFixture) -> None:
    found = [*messages(60, NOON - 3 * DAY, 60), *messages(60, NOON, 60)]
    archive = hub_fixture.archive(found)
    settle(hub_fixture.open(Hits, days=5), archive, NOON + 7_200)
    engine = hub_fixture.open(Hits, Counting, days=2)
    settle(engine, archive, NOON + 7_200)
    assert join(engine, "new counting") == ["counting"]
    engine.count(found)
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 120
    assert hub_fixture.total("counting") == 60


@pytest.mark.parametrize("is_live_first", [True, False])
def test_a_plugin_with_less_history_than_the_others(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch, is_live_first: bool
) -> None:
    """What is older than its own is not counted for it, whichever way it comes."""
    monkeypatch.setattr(Counting, "backlog_delta", timedelta(days=2))
    old = messages(10, NOON - 3 * DAY, 60)
    ancient = messages(10, NOON - 30 * DAY, 60)
    archive = hub_fixture.archive([*old, *messages(60, NOON, 60)])
    engine = hub_fixture.open(Hits, Counting, days=5)
    if is_live_first:
        engine.count([*old, *ancient])
    settle(engine, archive, NOON + 7_200)
    engine.count([*old, *ancient])
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 80
    # What is older than all history is known from the bus only.
    assert hub_fixture.total("counting") == 70


def test_more_backlog_is_told_of(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    archive = hub_fixture.archive(messages(60, NOON, 60))
    monkeypatch.setattr(Counting, "backlog_delta", timedelta(days=2))
    settle(hub_fixture.open(Hits, Counting, days=5), archive, NOON + 7_200)
    with caplog.at_level(logging.WARNING):
        hub_fixture.open(Hits, Counting, days=5)
        assert "rebuild" not in caplog.text
        monkeypatch.setattr(Counting, "backlog_delta", timedelta(days=4))
        hub_fixture.open(Hits, Counting, days=5)
    assert "statscache rebuild counting" in caplog.text


# Archives that come and go.


def test_an_archive_gives_back_what_was_missed_without_one(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    engine = hub_fixture.open(Hits, Counting, Newest, has_history=False)
    engine.count(found[:10])
    execute(hub_fixture.uri, "ALTER TABLE counting RENAME TO hidden")
    engine.count(found[10:20])
    assert hub_fixture.state("counting") == "failing"
    execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO counting")
    engine.count(found[20:30])
    assert hub_fixture.state("counting") == "active"
    assert hub_fixture.total("counting") == 20
    hub_fixture.open(Hits, Counting, has_history=False).count(found[30:40])
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Counting, Newest)
    settle(engine, archive, NOON + 7_200)
    assert set(join(engine, hub_fixture.lane_of("counting"))) == {"counting", "newest"}
    assert hub_fixture.total("counting") == hub_fixture.total() == 60
    assert [row[2] for row in hub_fixture.rows("newest")] == [57, 58, 59]
    hub_fixture.open(Hits, Counting, Newest)
    assert names(engine) == {"main"}


def test_a_lane_that_rests_goes_on_when_the_archive_is_taken_away(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    settle(hub_fixture.open(Hits, Counting), hub_fixture.archive(found), NOON + 7_200)
    engine = hub_fixture.open(Hits, Counting)
    execute(hub_fixture.uri, "ALTER TABLE counting RENAME TO hidden")
    engine.count([hit(NOON + 7_300)])
    execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO counting")
    without = hub_fixture.open(Hits, Counting, has_history=False)
    without.count([hit(NOON + 7_310)])
    assert hub_fixture.total("counting") == 60
    hub_fixture.let_lanes_rest()
    without.count([hit(NOON + 7_320)])
    assert hub_fixture.total("counting") == 61
    assert hub_fixture.state("counting") == "active"


# Plugins that fail.


class Long(Hits):
    """Keys that no index of PostgreSQL can hold."""

    name = "long"
    keys = (Key("a"), Key("b"), Key("c"), Key("d"))
    resolutions: ClassVar[tuple[timedelta, ...]] = ()

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        generator = random.Random(message.msg["number"])
        text = ["".join(chr(generator.randint(0x4E00, 0x9FA5)) for _ in range(300)) for _ in "abcd"]
        return [(*text, 1)] if message.msg["place"] == "long" else []


def test_a_row_that_the_database_cannot_hold_stops_nobody_else(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits, Long, has_history=False)
    outcome = engine.count([hit(NOON, "long"), hit(NOON + 1, "a")])
    assert outcome.counted == 2
    assert hub_fixture.total() == 2


def test_a_plugin_that_fails_for_a_while(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Counting)
    settle(engine, archive, NOON + 600)
    execute(hub_fixture.uri, "ALTER TABLE counting RENAME TO hidden")
    pauses = []
    for number in range(3):
        until = NOON + 1_200 + 600 * number
        engine.count([m for m in found if until - 600 <= m.timestamp < until])
        settle(engine, archive, until)
        apart = lane(engine, "quarantine counting")
        pauses.append((apart.failures, apart.watermark))
        hub_fixture.let_lanes_rest()
    assert pauses == [(1, NOON + 600), (2, NOON + 600), (3, NOON + 600)]
    execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO counting")
    settle(engine, archive, NOON + 3_600)
    assert join(engine, "quarantine counting") == ["counting"]
    assert hub_fixture.total("counting") == hub_fixture.total() == 60
    assert hub_fixture.state("counting") == "active"


def test_folded_elsewhere_for_a_plugin_that_fails(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    settle(hub_fixture.open(Hits), archive, NOON + 7_200)
    engine = hub_fixture.open(Hits, Counting)
    execute(hub_fixture.uri, "ALTER TABLE counting RENAME TO hidden")
    one = lane(engine, "new counting")

    def folded() -> list[bool]:
        plugins = engine.plugins_of(one)
        assert plugins is not None
        task = FoldTask(plugins, engine.installed, {})
        pieces = read(archive, lane(engine, one.name).watermark or 0.0, NOON + 3_600, task=task)
        batches = (Batch.of_folded(one.id, piece) for piece in pieces)
        return [one.id in engine.commit(batch).committed for batch in batches]

    assert folded()[-1] is False
    assert (lane(engine, one.name).watermark or 0.0) <= NOON
    execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO counting")
    assert all(folded())
    settle(engine, archive, NOON + 7_200)
    assert join(engine, one.name) == ["counting"]
    assert hub_fixture.total("counting") == 60


# Classic plugins.


def test_a_classic_plugin_that_fails_gets_what_it_missed_first(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Log)
    settle(engine, archive, NOON + 1_800)

    def fail(*_: Any) -> None:
        raise RuntimeError("told to fail")

    with monkeypatch.context() as patch:
        patch.setattr(Log, "update", fail)
        engine.count(found[30:40])
        engine.count(found[40:45])
    name = hub_fixture.lane_of("log")
    hub_fixture.let_lanes_rest()
    reconcile(engine, archive, NOON + 2_000, names=[name])
    with monkeypatch.context() as patch:
        patch.setattr(Log, "update", fail)
        reconcile(engine, archive, NOON + 2_100, names=[name])
    hub_fixture.let_lanes_rest()
    # One slice succeeds, and it is not the last one.
    piece = archive.fetch(Window(NOON + 2_000, NOON + 2_100))
    engine.commit(Batch.of_slice({lane(engine, name).id}, piece))
    engine.count(found[45:50])
    reconcile(engine, archive, NOON + 3_600)
    numbers = [row[2] for row in sorted(hub_fixture.rows("catchup_log"))]
    assert numbers == [*range(60)]


def test_live_messages_that_are_held_survive_a_failure(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hub_fixture.open(Hits, Log)
    found = messages(10, NOON, 60)
    engine.count(found)

    def fail(*_: Any) -> None:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Transactions, "note_changes", fail)
        with pytest.raises(DatabaseUnavailable):
            engine.release_live()
    assert hub_fixture.rows("catchup_log") == []
    engine.release_live()
    assert [row[2] for row in hub_fixture.rows("catchup_log")] == [*range(10)]


def test_what_is_not_held_comes_from_the_archive(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = messages(20, NOON, 60)
    room = sum(len(pickle.dumps(one.raw)) for one in found[17:])
    monkeypatch.setattr("statscache.counting.classic.live_buffer.MOST_BYTES", room)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Log)
    engine.count(found)
    settle(engine, archive, NOON + 600)
    assert [row[2] for row in hub_fixture.rows("catchup_log")] == [*range(10), 17, 18, 19]
    settle(engine, archive, NOON + 1_800)
    assert sorted(row[2] for row in hub_fixture.rows("catchup_log")) == [*range(20)]
    assert hub_fixture.total() == 20


def test_a_classic_plugin_is_taken_back_behind_pruned_claims(hub_fixture: HubFixture) -> None:
    found = messages(200, NOON, 30)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Daily)
    settle(engine, archive, NOON + 6_000)
    one = lane(engine, "ordered")
    assert one.claims_pruned_until is not None
    engine.rewind(one.id)
    rewound = lane(engine, "ordered")
    assert rewound.watermark == TODAY - DAY
    engine.count([hit(NOON + 6_030), *found[:5]])
    settle(engine, archive, NOON + 6_060)
    engine.count(found)
    settle(engine, archive, NOON + 6_120)
    assert sum(row[2] for row in hub_fixture.rows("lanes_daily")) == 201
    assert hub_fixture.total() == 201


def test_only_plugins_that_were_given_something_are_made_anew(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hub_fixture.open(Hits, Log, has_history=False)
    runner = engine._membership.runners["log"]
    before = runner.plugin
    with pytest.raises(ZeroDivisionError), engine.transaction():
        1 / 0  # noqa: B018
    assert runner.plugin is before

    def fail(*_: Any) -> None:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Transactions, "note_changes", fail)
        with pytest.raises(DatabaseUnavailable):
            engine.count([hit(NOON)])
    assert runner.plugin is not before


class Stubborn(Daily):
    name = "stubborn"
    model = StubbornModel

    def latest(self, session: Any) -> Any:
        raise RuntimeError("cannot tell")

    def revert(self, when: datetime, session: Any) -> None:
        raise RuntimeError("cannot take back")


def test_a_classic_plugin_that_cannot_take_back_hurts_only_itself(hub_fixture: HubFixture) -> None:
    found = messages(200, NOON, 30)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Daily, Stubborn)
    settle(engine, archive, NOON + 6_000)
    assert sum(row[2] for row in hub_fixture.rows("lanes_stubborn")) == 200
    engine.rewind(lane(engine, "ordered").id)
    assert hub_fixture.state("stubborn-1d") == "failing"
    settle(engine, archive, NOON + 6_060)
    assert sum(row[2] for row in hub_fixture.rows("lanes_daily")) == 200
    hub_fixture.let_lanes_rest()
    settle(engine, archive, NOON + 6_120)
    assert join(engine, "quarantine stubborn-1d") == ["stubborn-1d"]
    assert sum(row[2] for row in hub_fixture.rows("lanes_stubborn")) == 200


# Several processes.


def test_a_transaction_does_not_begin_inside_another(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits)
    with engine.transaction(), pytest.raises(RuntimeError, match="inside another"):
        engine.count([hit(NOON)])
    assert engine.count([hit(NOON)]).counted == 1


def test_what_is_told_of_a_batch_for_several_lanes(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    settle(hub_fixture.open(Hits, Log), archive, NOON + 1_800)
    engine = hub_fixture.open(Hits, Log, Counting)
    # The ordered lane waits for its history, the new one is far behind, and for main some are late.
    outcome = engine.count([*found[:5], *found[25:35], *found[25:30]])
    assert (outcome.counted, outcome.duplicates, outcome.late) == (5, 10, 5)
    outcome = engine.count(found[25:35])
    assert (outcome.counted, outcome.duplicates, outcome.late) == (0, 10, 0)


@pytest.mark.parametrize("seed", range(2))
def test_two_hubs_count_the_same_stream(hub_fixture: HubFixture, seed: int) -> None:
    """While plugins join, fail, and come back, claims are pruned, and history is asked for."""
    generator = random.Random(seed)
    history = messages(120, NOON, 60)
    settle(hub_fixture.open(Hits, Fragile), hub_fixture.archive(history), NOON + 7_200)
    stream = messages(240, NOON + 7_200, 15)
    for number in range(0, 240, 7):
        raw = {key: value for key, value in stream[number].raw.items() if key != "msg_id"}
        stream[number] = Message.from_fedmsg(raw)
    archive = hub_fixture.archive([*history, *map(archived, stream)])
    engines = [hub_fixture.open(Hits, Fragile, Counting, Newest) for _ in range(2)]
    trouble: list[BaseException] = []

    def guarded(work: Any, *arguments: Any) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                trouble.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def receive(engine: Engine, shuffled: list[Message]) -> None:
        for first in range(0, len(shuffled), 12):
            engine.count(shuffled[first : first + 12])

    def catch_up(engine: Engine) -> None:
        for until in range(int(NOON) + 7_500, int(NOON) + 11_000, 500):
            settle(engine, archive, float(until))
            for each in lanes_of(engine):
                if each.joins:
                    engine.join(each.id)

    execute(hub_fixture.uri, "ALTER TABLE fragile_1d RENAME TO hidden")
    threads = []
    for engine in engines:
        shuffled = sorted(stream, key=lambda m: m.timestamp + generator.uniform(0, 900))
        threads += [guarded(receive, engine, shuffled), guarded(catch_up, engine)]
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    assert trouble == []
    execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO fragile_1d")
    engine = engines[0]
    for until in (NOON + 11_000, NOON + 12_000):
        hub_fixture.let_lanes_rest()
        settle(engine, archive, until)
        for each in lanes_of(engine):
            if each.joins:
                assert engine.join(each.id)
    assert names(engine) == {"main"}
    for name in ("hits_1h", "hits_1d", "counting", "fragile_1h", "fragile_1d"):
        assert hub_fixture.total(name) == 360, name
    assert [row[2] for row in hub_fixture.rows("newest")] == [237, 238, 239]
    assert hub_fixture.rows("statscache_rejected") == []


class Fragile(Hits):
    name = "fragile"


def archived(item: Message) -> Message:
    """As the archive has it: under an id in any case."""
    return (
        item if item.has_own_id else Message.from_fedmsg(item.raw | {"msg_id": item.digest[-36:]})
    )


def test_two_hubs_that_start_at_once(hub_fixture: HubFixture) -> None:
    both = threading.Barrier(4)
    trouble: list[BaseException] = []

    def start() -> None:
        both.wait()
        try:
            hub_fixture.open(Hits, Newest, Counting, Fragile, Daily, Log)
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert names(hub_fixture.engines[0]) == {"main", "ordered"}


def test_two_hubs_without_an_archive_that_begin_to_listen_at_once(hub_fixture: HubFixture) -> None:
    first, second, third = (hub_fixture.open(Hits, has_history=False) for _ in range(3))
    first.beat(NOON)
    second.beat(NOON + 100)
    # What the other has noted is not committed yet when this one looks.
    execute(hub_fixture.uri, f"UPDATE statscache_lane SET beat_at = {NOON}")
    third.beat(NOON + 101)
    assert [row[1:3] for row in hub_fixture.rows("statscache_gap")] == [(NOON, NOON + 101)]
