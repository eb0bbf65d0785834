"""Lanes and the archive: everything is counted once, whichever way and whenever it comes."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from statscache.archive import Archive, Slice, Window
from statscache.catchup.loop import CatchUp, Pace
from statscache.counting import late
from statscache.counting.engine import Engine
from statscache.message import Message
from statscache.plugins import Aggregate, Key, Value
from tests.conftest import message
from tests.support.hub_fixture import NOW, PACE, TODAY, Hits, Log, Newest, World, execute, messages


def complete(engine: Engine, archive: Archive, **more: Any) -> None:
    CatchUp(engine, archive, PACE, **more).run_until_complete()


def test_history_is_filled_in_from_the_epoch(world: World) -> None:
    found = messages(1000, NOW - 86_400, 80)
    engine = world.open(Hits, Newest)
    complete(engine, world.archive([*messages(5, TODAY - 3 * 86_400), *found]))
    assert world.total() == 1000
    assert world.total("hits_1h") == 1000
    assert [row[2] for row in world.rows("newest")] == [997, 998, 999]


def test_what_lanes_do_is_said_once_per_change(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "statscache.catchup.lane_log")
    engine = world.open(Hits, Log)
    complete(engine, world.archive(messages(1000, NOW - 86_400, 80)))
    said = [record.getMessage() for record in caplog.records]
    for name, more in (
        ("main", ": hits-1d, hits-1h"),
        ("ordered", "; live messages wait for it: log"),
    ):
        mine = [line for line in said if line.startswith(f"{name} ")]
        assert len(mine) == 2
        assert mine[0].startswith(f"{name} fills in its history from ")
        assert mine[0].endswith(more)
        assert mine[1].startswith(f"{name} has been compared with the archive up to ")


def test_what_the_bus_brought_is_not_counted_again(world: World) -> None:
    found = messages(500, NOW - 40_000, 79)
    engine = world.open(Hits)
    engine.count(found[::2])
    archive = world.archive(found * 2)
    complete(engine, archive)
    complete(engine, archive)
    engine.count(found[-20:])
    assert world.total() == 500


def test_a_restart_goes_on_where_it_stopped(world: World) -> None:
    found = messages(300, NOW - 40_000, 79)
    engine = world.open(Hits)
    complete(engine, world.archive(found[:200]))
    # The archive stood still: the rest came hours late, with its old times.
    again = world.open(Hits)
    later = [*found, *messages(7, time.time() - 600, 30)]
    complete(again, world.archive(later))
    assert world.total() == 307


def test_what_the_archive_had_late_is_found_after_a_while_away(world: World) -> None:
    now = time.time()
    found = messages(60, now - 4000, 60)
    (late_row,) = messages(1, now - 305)
    engine = world.open(Hits)
    CatchUp(engine, world.archive(found), Pace(300, 10, 1)).run_until_complete()
    # Now the watermark is farther behind than the overlap is long.
    again = world.open(Hits)
    archive = world.archive([*found, late_row])
    CatchUp(again, archive, Pace(30, 10, 1)).run_until_complete()
    assert world.total() == 61


def test_claims_are_pruned_and_what_comes_later_still_counts_once(world: World) -> None:
    found = messages(600, NOW - 80_000, 120)
    engine = world.open(Hits)
    archive = world.archive(found)
    complete(engine, archive)
    assert len(world.rows("statscache_claim")) < 30
    # Claims are gone, the sums remember: copies of the bus are duplicates, as often as they come.
    outcome = engine.count([*found[:50], *found[:50]])
    assert (outcome.counted, outcome.late) == (0, 100)
    late.resolve(engine, archive)
    assert world.rows("statscache_late") == []
    assert world.total() == 600
    # And one that neither the bus nor the archive had brought is counted, once.
    old = message(timestamp=NOW - 70_000, msg={"place": "z", "number": 1})
    for _ in range(3):
        engine.count([old])
        late.resolve(engine, archive)
        assert [row[-1] for row in world.rows("hits_1d") if row[1] == "z"] == [1]
    assert world.total() == 601


def test_late_messages_wait_while_the_archive_is_away(world: World) -> None:
    found = messages(100, NOW - 80_000, 120)
    engine = world.open(Hits)
    complete(engine, world.archive(found))
    engine.count([message(timestamp=NOW - 75_000, msg={"place": "z", "number": 1})])
    assert len(world.rows("statscache_late")) == 1
    again = world.open(Hits)
    complete(again, world.archive(found))
    assert world.total() == 101


def test_a_message_without_id_is_counted_once_whoever_is_first(world: World) -> None:
    bare = messages(4, NOW - 3000, 60, msg_id=None)
    invented = [
        Message.from_fedmsg(item.raw | {"msg_id": f"2026-{number}-invented"})
        for number, item in enumerate(bare)
    ]
    engine = world.open(Hits)
    archive = world.archive(invented)
    engine.count(bare[:2])  # the bus first
    complete(engine, archive)  # then the archive, under ids of its own
    complete(engine, archive)
    assert world.total() == 4
    engine.count(bare)  # and replayed, after the archive
    late.resolve(engine, archive)
    assert world.rows("statscache_late") == []
    assert world.total() == 4
    # One that the archive never had counts.
    engine.count(messages(1, NOW - 3033, msg_id=None))
    late.resolve(engine, archive)
    assert world.total() == 5


def test_times_that_bridges_restamp_do_not_matter(world: World) -> None:
    found = messages(200, NOW - 20_000, 90)
    restamped = [
        Message.from_fedmsg(
            item.raw
            | {
                "timestamp": item.timestamp + random.Random(item.id).uniform(-1, 1),
                "msg_id": item.identity,
            }
        )
        for item in found
    ]
    engine = world.open(Hits)
    engine.count(found[::3])
    archive = world.archive(restamped)
    complete(engine, archive)
    engine.count(found)
    late.resolve(engine, archive)
    assert world.total() == 200


def test_a_new_plugin_fills_in_its_history_in_a_lane_of_its_own(world: World) -> None:
    found = messages(300, NOW - 40_000, 79)
    archive = world.archive(found)
    complete(world.open(Hits), archive)
    live = messages(30, NOW - 50, 1)
    engine = world.open(Hits, Newest)
    assert world.lane_of("newest") == "new newest"
    assert world.state("newest") == "filling"
    engine.count(live)
    assert world.total() == len([m for m in found if m.timestamp < NOW - 60]) + 30
    complete(engine, world.archive([*found, *live]))
    assert world.lane_of("newest") == "main"
    assert world.state("newest") == "active"
    assert [row[2] for row in world.rows("newest")] == [27, 28, 29]
    assert len(world.rows("statscache_lane")) == 1


def test_a_new_resolution_is_filled_in_while_the_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = messages(300, NOW - 40_000, 79)
    archive = world.archive(found)
    complete(world.open(Hits), archive)
    monkeypatch.setattr(Hits, "resolutions", (timedelta(minutes=1), *Hits.resolutions))
    engine = world.open(Hits)
    assert world.lane_of("hits-1m") == "new hits-1m"
    assert world.lane_of("hits-1d") == "main"
    complete(engine, archive)
    assert world.lane_of("hits-1m") == "main"
    assert world.total("hits_1m") == world.total("hits_1d")


class Counted(Aggregate):
    name, summary, description = "counted", "counted", "For tests."
    keys: ClassVar[tuple[Key, ...]] = (Key("place"),)
    values = (Value("hits", "add"),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(*(message.msg[key.name] for key in self.keys), 1)]


def test_a_changed_plugin_is_rebuilt_beside_and_swapped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = messages(90, NOW - 40_000, 79)
    archive = world.archive(found)
    complete(world.open(Counted, Hits), archive)
    before = world.rows("counted")
    assert [row[2] for row in before] == [30, 30, 30]
    monkeypatch.setattr(Counted, "keys", (Key("place"), Key("number", type=int)))
    engine = world.open(Counted, Hits)
    # Readers see the old table until the new one is complete.
    live = messages(3, NOW - 300, 1)
    engine.count(live)
    assert world.rows("counted") == before
    archive = world.archive([*found, *live])
    complete(engine, archive)
    assert len(world.rows("counted")[0]) == 4
    assert sum(row[-1] for row in world.rows("counted")) == 93
    assert world.lane_of("counted") == "main"
    tables = sa.inspect(sa.create_engine(world.uri)).get_table_names()
    assert not [name for name in tables if "shadow" in name]
    # And a second change works as the first.
    monkeypatch.setattr(Counted, "keys", (Key("number", type=int),))
    complete(world.open(Counted, Hits), archive)
    assert len(world.rows("counted")[0]) == 3


def test_without_an_archive_a_changed_plugin_says_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = world.open(Counted, Hits, has_history=False)
    engine.count(messages(3, NOW - 30, 1))
    monkeypatch.setattr(Counted, "keys", (Key("number", type=int),))
    engine = world.open(Counted, Hits, has_history=False)
    engine.count(messages(3, NOW - 20, 1))
    assert world.state("counted") == "failing"
    assert world.total("hits_1d") == 6
    assert "statscache.datagrepper.endpoint" in str(world.rows("statscache_plugin"))


class Fragile(Hits):
    name = "fragile"


def test_a_plugin_whose_writes_fail_goes_on_alone_and_comes_back(world: World) -> None:
    found = messages(60, NOW - 40_000, 79)
    archive = world.archive(found)
    engine = world.open(Hits, Fragile)
    complete(engine, archive)
    execute(world.uri, "ALTER TABLE fragile_1h RENAME TO hidden")
    live = messages(10, NOW - 50, 1)
    outcome = engine.count(live)
    assert set(outcome.failing) == {"fragile-1h", "fragile-1d"}
    assert world.lane_of("fragile-1d") == "apart fragile-1h"
    assert world.total("hits_1d") == 70
    assert world.total("fragile_1d") == 60
    engine.count(messages(5, NOW - 20, 1))
    execute(world.uri, "ALTER TABLE hidden RENAME TO fragile_1h")
    execute(world.uri, "UPDATE statscache_lane SET retry_at = 0 WHERE id > 1")
    archive = world.archive([*found, *live])
    engine = world.open(Hits, Fragile)
    CatchUp(engine, archive, Pace(lag=1, overlap=900, interval=60)).turn()
    assert world.total("fragile_1d") == 70
    # Five were seen by the others and are not in the archive: it stays apart until they are.
    assert world.lane_of("fragile-1d") == "apart fragile-1h"


def test_a_plugin_that_was_away_gets_what_it_missed(world: World) -> None:
    found = messages(60, NOW - 40_000, 79)
    archive = world.archive(found)
    complete(world.open(Hits, Newest), archive)
    without = world.open(Hits)
    assert world.state("newest") == "gone"
    live = messages(10, NOW - 300, 1)
    without.count(live)
    both = world.open(Hits, Newest)
    assert world.state("newest") == "filling"
    complete(both, world.archive([*found, *live]))
    assert world.lane_of("newest") == "main"
    assert [row[2] for row in world.rows("newest")] == [7, 8, 9]


def test_classic_plugins_get_history_in_order_before_live_messages(world: World) -> None:
    found = messages(300, NOW - 40_000, 79)
    live = messages(20, NOW - 40, 1)
    engine = world.open(Hits, Log)
    engine.count(live)
    assert world.rows("catchup_log") == []
    complete(engine, world.archive([*found, *live]))
    engine.count(messages(5, NOW - 5, 1))
    rows = world.rows("catchup_log")
    expected = len([m for m in found if m.timestamp < NOW - 60])
    assert len(rows) == expected + 25
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    # After a restart too.
    engine = world.open(Hits, Log)
    engine.count(messages(2, NOW - 1, 1))
    assert len(world.rows("catchup_log")) == expected + 25
    complete(engine, world.archive([*found, *live]))
    assert len(world.rows("catchup_log")) == expected + 27


def test_what_was_held_for_classic_plugins_is_not_given_again_by_the_archive(world: World) -> None:
    held = messages(6, NOW - 600, 10)
    bare = messages(3, NOW - 500, 10, msg_id=None)
    invented = [
        Message.from_fedmsg(item.raw | {"msg_id": f"2026-{number}-invented"})
        for number, item in enumerate(bare)
    ]
    engine = world.open(Hits, Log)
    engine.count([*held, *bare])
    with engine.transaction() as connection:
        lanes = engine.lanes.all(connection)
    window = Window(float(TODAY - 2 * 86_400), NOW - 60.0)
    piece = Slice(window, [*held, *invented])
    engine.count_slice([lane.id for lane in lanes], piece, is_last=True)
    assert world.total() == 9
    assert [row[2] for row in world.rows("catchup_log")] == [0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_a_classic_plugin_that_has_rows_goes_on_behind_them(world: World) -> None:
    found = messages(300, NOW - 40_000, 79)
    archive = world.archive(found)
    engine = world.open(Log, has_history=False)
    engine.count(found[:100])
    execute(world.uri, "DELETE FROM statscache_plugin")
    execute(world.uri, "DELETE FROM statscache_claim")
    execute(world.uri, "DELETE FROM statscache_lane")
    engine = world.open(Log)
    complete(engine, archive)
    expected = len([m for m in found if m.timestamp < NOW - 60])
    assert [row[2] for row in world.rows("catchup_log")] == list(range(expected))


def test_when_the_archive_is_away_classic_plugins_do_not_wait_for_ever(world: World) -> None:
    found = messages(300, NOW - 40_000, 79)
    engine = world.open(Log)
    live = messages(5, NOW - 50, 1)
    engine.count(live)
    engine.flow()
    assert len(world.rows("catchup_log")) == 5
    archive = world.archive([*found, *live])
    catch_up = CatchUp(engine, archive, PACE)
    lane = next(row[0] for row in world.rows("statscache_lane") if row[1] == "ordered")
    catch_up._forced = {lane}
    catch_up.run_until_complete()
    engine.count(live)
    numbers = [row[2] for row in world.rows("catchup_log")]
    expected = len([m for m in found if m.timestamp < NOW - 60])
    assert numbers == [*range(expected), *range(5)]
