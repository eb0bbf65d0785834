"""Lanes and the archive: everything is counted once, whichever way and whenever it comes."""

from __future__ import annotations

import random
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from statscache.archive import FileArchive, Slice, Window
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.counting import late
from statscache.counting.batch import Batch
from statscache.errors import ArchiveUnavailable
from statscache.message import Message
from statscache.plugins import Key
from statscache.topics import EVERYTHING
from tests.support.databases import execute
from tests.support.hub_fixture import (
    NOW,
    POLLING,
    TODAY,
    Counted,
    Hits,
    HubFixture,
    Log,
    Newest,
    complete,
    messages,
)
from tests.support.messages import message


def test_history_is_filled_in_from_the_epoch(hub_fixture: HubFixture) -> None:
    found = messages(1000, NOW - 86_400, 80)
    engine = hub_fixture.open(Hits, Newest)
    complete(engine, hub_fixture.archive([*messages(5, TODAY - 3 * 86_400), *found]))
    assert hub_fixture.total() == 1000
    assert hub_fixture.total("hits_1h") == 1000
    assert [row[2] for row in hub_fixture.rows("newest")] == [997, 998, 999]


def test_what_lanes_do_is_said_once_per_change(
    hub_fixture: HubFixture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "statscache.catchup.lane_log")
    engine = hub_fixture.open(Hits, Log)
    complete(engine, hub_fixture.archive(messages(1000, NOW - 86_400, 80)))
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


def test_what_the_bus_brought_is_not_counted_again(hub_fixture: HubFixture) -> None:
    found = messages(500, NOW - 40_000, 79)
    engine = hub_fixture.open(Hits)
    engine.count(found[::2])
    archive = hub_fixture.archive(found * 2)
    complete(engine, archive)
    complete(engine, archive)
    engine.count(found[-20:])
    assert hub_fixture.total() == 500


def test_a_restart_goes_on_where_it_stopped(hub_fixture: HubFixture) -> None:
    found = messages(300, NOW - 40_000, 79)
    engine = hub_fixture.open(Hits)
    complete(engine, hub_fixture.archive(found[:200]))
    # The archive stood still: the rest came hours late, with its old times.
    again = hub_fixture.open(Hits)
    later = [*found, *messages(7, time.time() - 600, 30)]
    complete(again, hub_fixture.archive(later))
    assert hub_fixture.total() == 307


def test_what_the_archive_had_late_is_found_after_a_while_away(hub_fixture: HubFixture) -> None:
    now = time.time()
    found = messages(60, now - 4000, 60)
    (late_row,) = messages(1, now - 305)
    engine = hub_fixture.open(Hits)
    CatchUp(engine, hub_fixture.archive(found), Polling(300, 10, 1)).run_until_complete()
    # Now the watermark is farther behind than the overlap is long.
    again = hub_fixture.open(Hits)
    archive = hub_fixture.archive([*found, late_row])
    CatchUp(again, archive, Polling(30, 10, 1)).run_until_complete()
    assert hub_fixture.total() == 61


def test_claims_are_pruned_and_what_comes_later_still_counts_once(hub_fixture: HubFixture) -> None:
    found = messages(600, NOW - 80_000, 120)
    engine = hub_fixture.open(Hits)
    archive = hub_fixture.archive(found)
    complete(engine, archive)
    assert len(hub_fixture.rows("statscache_claim")) < 30
    # Claims are gone, the sums remember: copies of the bus are duplicates, as often as they come.
    outcome = engine.count([*found[:50], *found[:50]])
    assert (outcome.counted, outcome.late) == (0, 100)
    late.resolve(engine, archive)
    assert hub_fixture.rows("statscache_late") == []
    assert hub_fixture.total() == 600
    # And one that neither the bus nor the archive had brought is counted, once.
    old = message(timestamp=NOW - 70_000, msg={"place": "z", "number": 1})
    for _ in range(3):
        engine.count([old])
        late.resolve(engine, archive)
        assert [row[-1] for row in hub_fixture.rows("hits_1d") if row[1] == "z"] == [1]
    assert hub_fixture.total() == 601


def test_late_messages_wait_while_the_archive_is_away(hub_fixture: HubFixture) -> None:
    found = messages(100, NOW - 80_000, 120)
    engine = hub_fixture.open(Hits)
    complete(engine, hub_fixture.archive(found))
    engine.count([message(timestamp=NOW - 75_000, msg={"place": "z", "number": 1})])
    assert len(hub_fixture.rows("statscache_late")) == 1
    again = hub_fixture.open(Hits)
    complete(again, hub_fixture.archive(found))
    assert hub_fixture.total() == 101


def test_a_message_without_id_is_counted_once_whoever_is_first(hub_fixture: HubFixture) -> None:
    bare = messages(4, NOW - 3000, 60, msg_id=None)
    invented = [
        Message.from_fedmsg(item.raw | {"msg_id": f"2026-{number}-invented"})
        for number, item in enumerate(bare)
    ]
    engine = hub_fixture.open(Hits)
    archive = hub_fixture.archive(invented)
    engine.count(bare[:2])  # the bus first
    complete(engine, archive)  # then the archive, under ids of its own
    complete(engine, archive)
    assert hub_fixture.total() == 4
    engine.count(bare)  # and replayed, after the archive
    late.resolve(engine, archive)
    assert hub_fixture.rows("statscache_late") == []
    assert hub_fixture.total() == 4
    # One that the archive never had counts.
    engine.count(messages(1, NOW - 3033, msg_id=None))
    late.resolve(engine, archive)
    assert hub_fixture.total() == 5


def test_times_that_bridges_restamp_do_not_matter(hub_fixture: HubFixture) -> None:
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
    engine = hub_fixture.open(Hits)
    engine.count(found[::3])
    archive = hub_fixture.archive(restamped)
    complete(engine, archive)
    engine.count(found)
    late.resolve(engine, archive)
    assert hub_fixture.total() == 200


def test_a_new_plugin_fills_in_its_history_in_a_lane_of_its_own(hub_fixture: HubFixture) -> None:
    found = messages(300, NOW - 40_000, 79)
    archive = hub_fixture.archive(found)
    complete(hub_fixture.open(Hits), archive)
    live = messages(30, NOW - 50, 1)
    engine = hub_fixture.open(Hits, Newest)
    assert hub_fixture.lane_of("newest") == "new newest"
    assert hub_fixture.state("newest") == "filling"
    engine.count(live)
    assert hub_fixture.total() == len([m for m in found if m.timestamp < NOW - 60]) + 30
    complete(engine, hub_fixture.archive([*found, *live]))
    assert hub_fixture.lane_of("newest") == "main"
    assert hub_fixture.state("newest") == "active"
    assert [row[2] for row in hub_fixture.rows("newest")] == [27, 28, 29]
    assert len(hub_fixture.rows("statscache_lane")) == 1


def test_a_new_resolution_is_filled_in_while_the_others_go_on(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = messages(300, NOW - 40_000, 79)
    archive = hub_fixture.archive(found)
    complete(hub_fixture.open(Hits), archive)
    monkeypatch.setattr(Hits, "resolutions", (timedelta(minutes=1), *Hits.resolutions))
    engine = hub_fixture.open(Hits)
    assert hub_fixture.lane_of("hits-1m") == "new hits-1m"
    assert hub_fixture.lane_of("hits-1d") == "main"
    complete(engine, archive)
    assert hub_fixture.lane_of("hits-1m") == "main"
    assert hub_fixture.total("hits_1m") == hub_fixture.total("hits_1d")


def test_a_changed_plugin_is_rebuilt_beside_and_swapped(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = messages(90, NOW - 40_000, 79)
    archive = hub_fixture.archive(found)
    complete(hub_fixture.open(Counted, Hits), archive)
    before = hub_fixture.rows("counted")
    assert [row[2] for row in before] == [30, 30, 30]
    monkeypatch.setattr(Counted, "keys", (Key("place"), Key("number", type=int)))
    engine = hub_fixture.open(Counted, Hits)
    # Readers see the old table until the new one is complete.
    live = messages(3, NOW - 300, 1)
    engine.count(live)
    assert hub_fixture.rows("counted") == before
    archive = hub_fixture.archive([*found, *live])
    complete(engine, archive)
    assert len(hub_fixture.rows("counted")[0]) == 4
    assert sum(row[-1] for row in hub_fixture.rows("counted")) == 93
    assert hub_fixture.lane_of("counted") == "main"
    tables = sa.inspect(sa.create_engine(hub_fixture.uri)).get_table_names()
    assert not [name for name in tables if "shadow" in name]
    # And a second change works as the first.
    monkeypatch.setattr(Counted, "keys", (Key("number", type=int),))
    complete(hub_fixture.open(Counted, Hits), archive)
    assert len(hub_fixture.rows("counted")[0]) == 3


def test_without_an_archive_a_changed_plugin_says_what_to_do(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hub_fixture.open(Counted, Hits, has_history=False)
    engine.count(messages(3, NOW - 30, 1))
    monkeypatch.setattr(Counted, "keys", (Key("number", type=int),))
    engine = hub_fixture.open(Counted, Hits, has_history=False)
    engine.count(messages(3, NOW - 20, 1))
    assert hub_fixture.state("counted") == "failing"
    assert hub_fixture.total("hits_1d") == 6
    assert "statscache.datagrepper.endpoint" in str(hub_fixture.rows("statscache_plugin"))


class Fragile(Hits):
    name = "fragile"


def test_a_plugin_whose_writes_fail_goes_on_alone_and_comes_back(hub_fixture: HubFixture) -> None:
    found = messages(60, NOW - 40_000, 79)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Fragile)
    complete(engine, archive)
    execute(hub_fixture.uri, "ALTER TABLE fragile_1h RENAME TO hidden")
    live = messages(10, NOW - 50, 1)
    outcome = engine.count(live)
    assert set(outcome.failing) == {"fragile-1h", "fragile-1d"}
    assert hub_fixture.lane_of("fragile-1d") == "quarantine fragile-1h"
    assert hub_fixture.total("hits_1d") == 70
    assert hub_fixture.total("fragile_1d") == 60
    engine.count(messages(5, NOW - 20, 1))
    execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO fragile_1h")
    hub_fixture.let_lanes_rest()
    archive = hub_fixture.archive([*found, *live])
    engine = hub_fixture.open(Hits, Fragile)
    CatchUp(engine, archive, Polling(lag=1, overlap=900, interval=60)).advance()
    assert hub_fixture.total("fragile_1d") == 70
    # Five were seen by the others and are not in the archive: it stays apart until they are.
    assert hub_fixture.lane_of("fragile-1d") == "quarantine fragile-1h"


def test_a_plugin_that_was_away_gets_what_it_missed(hub_fixture: HubFixture) -> None:
    found = messages(60, NOW - 40_000, 79)
    archive = hub_fixture.archive(found)
    complete(hub_fixture.open(Hits, Newest), archive)
    without = hub_fixture.open(Hits)
    assert hub_fixture.state("newest") == "gone"
    live = messages(10, NOW - 300, 1)
    without.count(live)
    both = hub_fixture.open(Hits, Newest)
    assert hub_fixture.state("newest") == "filling"
    complete(both, hub_fixture.archive([*found, *live]))
    assert hub_fixture.lane_of("newest") == "main"
    assert [row[2] for row in hub_fixture.rows("newest")] == [7, 8, 9]


def test_classic_plugins_get_history_in_order_before_live_messages(hub_fixture: HubFixture) -> None:
    found = messages(300, NOW - 40_000, 79)
    live = messages(20, NOW - 40, 1)
    engine = hub_fixture.open(Hits, Log)
    engine.count(live)
    assert hub_fixture.rows("catchup_log") == []
    complete(engine, hub_fixture.archive([*found, *live]))
    engine.count(messages(5, NOW - 5, 1))
    rows = hub_fixture.rows("catchup_log")
    expected = len([m for m in found if m.timestamp < NOW - 60])
    assert len(rows) == expected + 25
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    # After a restart too.
    engine = hub_fixture.open(Hits, Log)
    engine.count(messages(2, NOW - 1, 1))
    assert len(hub_fixture.rows("catchup_log")) == expected + 25
    complete(engine, hub_fixture.archive([*found, *live]))
    assert len(hub_fixture.rows("catchup_log")) == expected + 27


def test_what_was_held_for_classic_plugins_is_not_given_again_by_the_archive(
    hub_fixture: HubFixture,
) -> None:
    held = messages(6, NOW - 600, 10)
    bare = messages(3, NOW - 500, 10, msg_id=None)
    invented = [
        Message.from_fedmsg(item.raw | {"msg_id": f"2026-{number}-invented"})
        for number, item in enumerate(bare)
    ]
    engine = hub_fixture.open(Hits, Log)
    engine.count([*held, *bare])
    lanes = engine.read_lanes()
    window = Window(float(TODAY - 2 * 86_400), NOW - 60.0)
    piece = Slice(window, [*held, *invented])
    engine.commit(Batch.of_slice([lane.id for lane in lanes], piece, is_last=True))
    assert hub_fixture.total() == 9
    assert [row[2] for row in hub_fixture.rows("catchup_log")] == [0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_a_classic_plugin_that_has_rows_goes_on_behind_them(hub_fixture: HubFixture) -> None:
    found = messages(300, NOW - 40_000, 79)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Log, has_history=False)
    engine.count(found[:100])
    execute(hub_fixture.uri, "DELETE FROM statscache_plugin")
    execute(hub_fixture.uri, "DELETE FROM statscache_claim")
    execute(hub_fixture.uri, "DELETE FROM statscache_lane")
    engine = hub_fixture.open(Log)
    complete(engine, archive)
    expected = len([m for m in found if m.timestamp < NOW - 60])
    assert [row[2] for row in hub_fixture.rows("catchup_log")] == list(range(expected))


class Fickle(FileArchive):
    """An archive that is away for a while."""

    is_away = False

    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        if self.is_away:
            raise ArchiveUnavailable("it is away: for now")
        return super().fetch(window, topics)


def test_when_the_archive_is_away_classic_plugins_do_not_wait_for_ever(
    hub_fixture: HubFixture,
) -> None:
    found = messages(300, NOW - 40_000, 79)
    engine = hub_fixture.open(Log)
    live = messages(5, NOW - 50, 1)
    engine.count(live)
    hub_fixture.archive([*found, *live])
    archive = Fickle([str(hub_fixture.path)])
    catch_up = CatchUp(engine, archive, POLLING)
    archive.is_away = True
    # Less and less often.
    assert [catch_up.step() for _ in range(11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert len(hub_fixture.rows("catchup_log")) == 5
    archive.is_away = False
    catch_up.run_until_complete()
    engine.count(live)
    numbers = [row[2] for row in hub_fixture.rows("catchup_log")]
    expected = len([m for m in found if m.timestamp < NOW - 60])
    assert numbers == [*range(expected), *range(5)]
