"""Leases: one process at a time fills in the history of a lane."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from statscache.archive import Slice, Window
from statscache.catchup import fill_in
from statscache.catchup.loop import CatchUp
from statscache.counting.batch import Batch
from statscache.counting.lanes import leases
from statscache.counting.lanes.lane import Lane, read_lanes
from tests.support.databases import execute
from tests.support.hub_fixture import NOW, POLLING, Hits, HubFixture, Log, complete, messages

ELSEWHERE = "elsewhere 1"


def lease(hub_fixture: HubFixture, owner: str, seconds: float = 3600.0) -> None:
    """Let another process have all the lanes."""
    until = time.time() + seconds
    execute(
        hub_fixture.uri, f"UPDATE statscache_lane SET leased_by = '{owner}', leased_until = {until}"
    )


def owners(hub_fixture: HubFixture) -> set[str | None]:
    return {lane.leased_by for lane in lanes(hub_fixture)}


def lanes(hub_fixture: HubFixture) -> list[Lane]:
    engine = hub_fixture.engines[-1]
    with engine.transaction() as connection:
        return read_lanes(connection)


def test_the_leases_of_a_process_that_was_killed_are_free_on_its_machine() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = leases.owner()
    other = f"{mine.rpartition(' ')[0]} {process.pid}"
    assert not leases.has_ended(mine)
    assert not leases.has_ended(other)
    process.kill()
    process.communicate()
    assert leases.has_ended(other)
    # Of other machines, and of what is no lease of ours, nothing is known.
    for name in (f"elsewhere {process.pid}", "", "nonsense", f"{other} 1"):
        assert not leases.has_ended(name)


def test_lanes_of_others_are_left_to_them_until_their_leases_run_out(
    hub_fixture: HubFixture,
) -> None:
    archive = hub_fixture.archive(messages(300, NOW - 40_000, 79))
    catch_up = CatchUp(hub_fixture.open(Hits, Log), archive, POLLING)
    lease(hub_fixture, ELSEWHERE)
    # It does not spin.
    assert catch_up.advance() > 0
    assert hub_fixture.total() == 0
    assert owners(hub_fixture) == {ELSEWHERE}
    lease(hub_fixture, ELSEWHERE, seconds=-1)
    catch_up.run_until_complete()
    assert hub_fixture.total() == 300
    assert len(hub_fixture.rows("catchup_log")) == 300
    # The next process need not wait.
    assert owners(hub_fixture) == {None}


def test_a_killed_process_is_not_waited_for(hub_fixture: HubFixture) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    archive = hub_fixture.archive(messages(30, NOW - 40_000, 79))
    engine = hub_fixture.open(Hits, Log)
    lease(hub_fixture, f"{leases.owner().rpartition(' ')[0]} {process.pid}")
    complete(engine, archive)
    assert len(hub_fixture.rows("catchup_log")) == 30


def test_lanes_of_aggregates_are_taken_over_on_demand(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = hub_fixture.archive(messages(300, NOW - 40_000, 79))
    archive.slice_size = 10
    monkeypatch.setattr(fill_in, "_LONGEST_STEP", 0.0)
    catch_up = CatchUp(hub_fixture.open(Hits, Log), archive, POLLING, takes_over=True)
    lease(hub_fixture, ELSEWHERE)
    while not hub_fixture.total():
        catch_up.advance()
    assert hub_fixture.rows("catchup_log") == []
    assert {lane.name: lane.leased_by for lane in lanes(hub_fixture)} == {
        "main": leases.owner(),
        "ordered": ELSEWHERE,
    }
    # Once: two that want it do not take it from each other for ever.
    lease(hub_fixture, ELSEWHERE)
    before = hub_fixture.total()
    assert before < 300
    catch_up.advance()
    assert owners(hub_fixture) == {ELSEWHERE}
    assert hub_fixture.total() == before


def test_near_the_present_one_process_runs_the_classic_plugins(hub_fixture: HubFixture) -> None:
    # Not since the tests began: the archive must be as near to the present as the lane was left.
    found = messages(300, time.time() - 24_000, 79)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Log)
    complete(engine, archive)
    more = messages(5, NOW - 300, 1)
    archive = hub_fixture.archive([*found, *more])
    lease(hub_fixture, ELSEWHERE)
    complete(hub_fixture.open(Hits, Log), archive)
    # Aggregates are anybody's.
    assert hub_fixture.total() > 300
    assert len(hub_fixture.rows("catchup_log")) == 300
    lease(hub_fixture, ELSEWHERE, seconds=-1)
    complete(hub_fixture.open(Hits, Log), archive)
    assert len(hub_fixture.rows("catchup_log")) == hub_fixture.total()


def test_who_has_lost_the_lease_counts_nothing_for_classic_plugins(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits, Log)
    found = messages(3, NOW - 40_000)
    numbers = [lane.id for lane in lanes(hub_fixture)]
    since = min(lane.history_start or 0.0 for lane in lanes(hub_fixture))
    lease(hub_fixture, ELSEWHERE)
    # It was fetched before that.
    engine.commit(Batch.of_slice(numbers, Slice(Window(since, NOW - 100.0), found)))
    assert hub_fixture.total() == 3
    assert hub_fixture.rows("catchup_log") == []
