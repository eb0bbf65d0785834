"""Messages that come when their claims are pruned: counted if they are new, and once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from statscache.archive import Archive, Slice, Window
from statscache.counting import late
from statscache.counting.batch import Batch
from statscache.counting.lanes.checksums import CHECKSUM_WIDTH
from statscache.counting.lanes.gaps import note_gap
from statscache.counting.lanes.lane import read_lanes
from statscache.counting.lanes.waiting import defer
from statscache.database import tables
from statscache.database.connection import Database
from statscache.message import Message
from statscache.topics import EVERYTHING
from tests.support.databases import execute
from tests.support.hub_fixture import TODAY, Hits, HubFixture, Newest, messages
from tests.support.hub_steps import OVERLAP, lane, lanes_of, reconcile, settle
from tests.support.messages import message

NOON = TODAY - 43_200.0
QUARTER = CHECKSUM_WIDTH


def hit(timestamp: float, place: str = "z", **more: Any) -> Message:
    return message(timestamp=timestamp, msg={"place": place, "number": 1}, **more)


def copy_of(item: Message, **more: Any) -> Message:
    return Message.from_fedmsg(item.raw | more)


def claims(hub_fixture: HubFixture) -> int:
    database = Database(hub_fixture.uri)
    with database.begin() as connection:
        count = connection.scalar(select(func.count()).select_from(tables.claim))
    database.dispose()
    return int(count or 0)


def test_in_the_quarter_of_an_hour_in_which_claims_begin(hub_fixture: HubFixture) -> None:
    """Some of it is remembered by a sum, some by claims."""
    found = messages(60, NOON, 30)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits)
    settle(engine, archive, NOON + 1_800)
    pruned_until = lane(engine).claims_pruned_until
    assert pruned_until == NOON + 1_140
    engine.count(found)
    new = [
        hit(pruned_until - 20),
        hit(pruned_until - 5),
        hit(pruned_until + 1),
        hit(pruned_until + 5),
    ]
    engine.count(new)
    settle(engine, archive, NOON + 1_800)
    engine.count([*new, *found])
    settle(engine, archive, NOON + 1_800)
    assert hub_fixture.total() == 64


@pytest.mark.parametrize(("first", "second"), [(-0.5, 0.5), (0.5, -0.5), (0.0, -1.0), (-1.0, 0.0)])
def test_restamped_over_the_edge_of_a_sum(
    hub_fixture: HubFixture, first: float, second: float
) -> None:
    edge = NOON + 2 * QUARTER
    item = hit(edge + first, msg_id="2026-b0c5")
    archive = hub_fixture.archive([*messages(30, NOON, 60), item])
    engine = hub_fixture.open(Hits)
    settle(engine, archive, NOON + 7_200)
    engine.count([copy_of(item, msg_id="b0c5", timestamp=edge + second)])
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 31


@pytest.mark.parametrize("shift", [0.5, -0.5])
def test_restamped_over_the_pruned_claims(hub_fixture: HubFixture, shift: float) -> None:
    pruned_until = NOON + 1_140
    item = hit(pruned_until - shift)
    found = [*messages(30, NOON, 60), item]
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits)
    settle(engine, archive, NOON + 1_800)
    assert lane(engine).claims_pruned_until == pruned_until
    engine.count([copy_of(item, timestamp=pruned_until + shift)])
    settle(engine, archive, NOON + 1_800)
    # And the archive has it twice from now on, and is asked for more than it was before.
    archive = hub_fixture.archive([*found, copy_of(item, timestamp=pruned_until + shift)])
    reconcile(engine, archive, NOON + 1_800, overlap=10 * OVERLAP)
    assert hub_fixture.total() == 31


def test_restamped_over_the_beginning_of_history(hub_fixture: HubFixture) -> None:
    since = TODAY - 2 * 86_400.0
    early, late_one = hit(since + 0.5), hit(since - 0.5)
    archive = hub_fixture.archive([early, copy_of(late_one, timestamp=since + 0.5)])
    engine = hub_fixture.open(Hits)
    engine.count([late_one])
    settle(engine, archive, NOON)
    engine.count([copy_of(early, timestamp=since - 0.5)])
    engine.count([copy_of(late_one, timestamp=since + 0.5), late_one])
    settle(engine, archive, NOON)
    assert hub_fixture.total() == 2


def test_what_the_archive_never_had_is_remembered_for_ever(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits)
    lost = [hit(NOON + second) for second in (100, 110, 2_000)]
    engine.count(lost[:2])
    settle(engine, archive, NOON + 7_200)
    engine.count(lost)
    settle(engine, archive, NOON + 7_200)
    engine.count([*lost, *found])
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 63
    assert claims(hub_fixture) == 3
    assert hub_fixture.rows("statscache_rejected") == []


def test_a_replay_of_more_messages_than_a_sum_can_tell_apart(hub_fixture: HubFixture) -> None:
    found = messages(800, NOON, 1)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits)
    settle(engine, archive, NOON + 7_200)
    fresh = messages(300, NOON + 0.5, 1)
    for _ in range(2):
        assert engine.count([*found, *fresh]).late == 1_100
        settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 1_100
    assert hub_fixture.rows("statscache_rejected") == []


def test_two_that_say_the_same_in_two_seconds(hub_fixture: HubFixture) -> None:
    bare = [hit(NOON + 100.0, msg_id=None), hit(NOON + 101.0, msg_id=None)]
    invented = [copy_of(bare[0], msg_id="2026-a"), copy_of(bare[1], msg_id="2026-b")]
    archive = hub_fixture.archive([*messages(60, NOON + 200, 60), *invented])
    engine = hub_fixture.open(Hits)
    engine.count(bare[1:])
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 62
    for _ in range(2):
        engine.count(bare)
        settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 62


def test_without_id_and_not_yet_in_the_archive(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits)
    found = messages(30, NOON, 60)
    bare = hit(NOON + 1_795.0, msg_id=None)
    reconcile(engine, hub_fixture.archive(found), NOON + 1_800)
    engine.count([bare])
    settle(engine, hub_fixture.archive(found), NOON + 1_860)
    assert hub_fixture.total() == 31
    # Now it comes, within the overlap, under an id of the archive's.
    archive = hub_fixture.archive([*found, copy_of(bare, msg_id="2026-invented")])
    reconcile(engine, archive, NOON + 1_870)
    engine.count([bare])
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 31


def test_when_the_archive_has_got_more_since(hub_fixture: HubFixture) -> None:
    """Rows that came later than the overlap were not counted; it is unknown which those are."""
    found = messages(300, NOON, 3)
    engine = hub_fixture.open(Hits)
    settle(engine, hub_fixture.archive(found[:100]), NOON + 7_200)
    archive = hub_fixture.archive(found)
    lost = hit(NOON + 50)
    engine.count([*found, lost])
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 100
    (rejected,) = hub_fixture.rows("statscache_rejected")
    assert rejected[2].startswith("late: ")
    # It waits for a better day.
    archive = hub_fixture.archive(found[:100])
    assert engine.retry(rejected[0]) is None
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 101
    assert hub_fixture.rows("statscache_rejected") == []


def test_a_few_that_the_archive_got_too_late_are_found_by_their_copies(
    hub_fixture: HubFixture,
) -> None:
    found = messages(300, NOON, 3)
    engine = hub_fixture.open(Hits)
    settle(engine, hub_fixture.archive(found[:280]), NOON + 7_200)
    archive = hub_fixture.archive(found)
    engine.count(found[270:])
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 300


class Withholding(Archive):
    """Reports more messages of a time than it returns."""

    def __init__(self, archive: Archive, window: Window) -> None:
        self._archive = archive
        self._window = window

    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        piece = self._archive.fetch(window, topics)
        hidden = [
            m
            for number, m in enumerate(piece.messages)
            if number % 2 and self._window.start <= m.timestamp < self._window.stop
        ]
        kept = [m for m in piece.messages if m not in hidden]
        return Slice(piece.window, kept, piece.rejected, len(hidden))

    def describe(self) -> str:
        return "a withholding archive"


def test_a_gap_that_is_closed_late(hub_fixture: HubFixture) -> None:
    found = messages(1_200, NOON, 3)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits)
    engine.count(found[:10])
    settle(engine, Withholding(archive, Window(NOON + 600, NOON + 2_400)), NOON + 7_200)
    withheld = 1_200 - hub_fixture.total()
    assert withheld > 200
    # What was counted in the gap stays claimed, and is told apart.
    engine.count(found[250:350])
    settle(engine, archive, NOON + 9_000)
    gaps = hub_fixture.rows("statscache_gap")
    assert gaps
    assert hub_fixture.total() < 1_200
    for number, start, stop, *_ in gaps:
        batch = Batch.of_gap(number, archive.fetch(Window(start, stop)))
        assert engine.commit(batch).committed == {number}
        assert not batch.missing
    assert hub_fixture.rows("statscache_gap") == []
    assert hub_fixture.total() == 1_200
    engine.count(found)
    settle(engine, archive, NOON + 9_000)
    assert hub_fixture.total() == 1_200
    settle(engine, archive, NOON + 9_060)
    assert claims(hub_fixture) == 0


def test_any_number_of_gaps(hub_fixture: HubFixture) -> None:
    found = messages(600, NOON, 10)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits)
    reconcile(engine, archive, NOON + 7_200)
    with engine.transaction() as connection:
        (main,) = read_lanes(connection)
        rows = [
            {"lane": 1, "start": start, "stop": start + 0.5, "missing": 1, "noticed_at": 0.0}
            for start in (NOON + 5 * number for number in range(1_100))
        ]
        connection.execute(tables.gap.insert(), rows)
    settle(engine, archive, NOON + 7_200)
    assert 550 <= claims(hub_fixture) < 600
    engine.count(found)
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 600
    with engine.transaction() as connection:
        note_gap(connection, main, NOON, NOON + 6_000, 0, NOON)
    assert hub_fixture.rows("statscache_gap") == []
    settle(engine, archive, NOON + 7_260)
    assert (claims(hub_fixture), hub_fixture.total()) == (0, 600)


def test_while_a_lane_rests_it_misses_nothing_late(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Newest)
    settle(engine, archive, NOON + 7_200)
    execute(hub_fixture.uri, "ALTER TABLE newest RENAME TO hidden")
    engine.count([message(timestamp=NOON + 7_250, msg={"place": "a", "number": 1})])
    assert lane(engine, "quarantine newest").retry_at is not None
    engine.count([hit(NOON + 30, "new place")])
    settle(engine, archive, NOON + 7_200)
    execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO newest")
    hub_fixture.let_lanes_rest()
    settle(engine, archive, NOON + 7_260)
    assert "new place" in {row[1] for row in hub_fixture.rows("newest")}
    assert hub_fixture.rows("statscache_late") == []


def test_a_lane_of_its_own_counts_what_is_late_once(hub_fixture: HubFixture) -> None:
    found = messages(60, NOON, 60)
    archive = hub_fixture.archive(found)
    settle(hub_fixture.open(Hits), archive, NOON + 7_200)
    engine = hub_fixture.open(Hits, Counting)
    old = hit(NOON + 30)
    settle(engine, archive, NOON + 5_000)
    settle(engine, archive, NOON + 7_100)
    assert {each.name for each in lanes_of(engine)} == {"main", "new counting"}
    for _ in range(3):
        engine.count([old, *found])
        settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total("counting") == 61
    assert hub_fixture.total() == 61


class Counting(Hits):
    name = "counting"
    resolutions = ()


def test_what_waits_cannot_be_read_any_more(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits)
    archive = hub_fixture.archive(messages(60, NOON, 60))
    settle(engine, archive, NOON + 7_200)
    engine.count([hit(NOON + 30), hit(NOON + 40)])
    execute(
        hub_fixture.uri,
        f"UPDATE statscache_late SET content = '{{' WHERE timestamp = {NOON + 30}",
    )
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 61
    (rejected,) = hub_fixture.rows("statscache_rejected")
    assert rejected[2].startswith("not JSON")
    assert hub_fixture.rows("statscache_late") == []


def test_those_that_must_wait_hold_nobody_up(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "_AT_ONCE", 3)
    engine = hub_fixture.open(Hits)
    archive = hub_fixture.archive(messages(60, NOON, 60))
    settle(engine, archive, NOON + 7_200)
    execute(
        hub_fixture.uri,
        "INSERT INTO statscache_lane (id, name, watermark, messages, batches) "
        "VALUES (77, 'gone x', 0, 0, 0)",
    )
    with engine.transaction() as connection:
        stuck = next(each for each in read_lanes(connection) if each.id == 77)
        defer(connection, stuck, [hit(NOON - 1000 + second) for second in range(9)], NOON)
    engine.count([hit(NOON + second) for second in range(9)])
    settle(engine, archive, NOON + 7_200)
    assert hub_fixture.total() == 69
