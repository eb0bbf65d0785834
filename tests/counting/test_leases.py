"""Leases: one process at a time fills in the history of a lane."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from statscache.archive import Slice, Window
from statscache.catchup import loop as catchup
from statscache.catchup.loop import CatchUp
from statscache.counting import leases
from statscache.counting.lanes import Lane
from tests.catchup.test_loop import complete
from tests.support.hub_fixture import NOW, PACE, Hits, Log, World, execute, messages

ELSEWHERE = "elsewhere 1"


def lease(world: World, owner: str, seconds: float = 3600.0) -> None:
    """Let another process have all the lanes."""
    until = time.time() + seconds
    execute(world.uri, f"UPDATE statscache_lane SET leased_by = '{owner}', leased_until = {until}")


def owners(world: World) -> set[str | None]:
    return {lane.leased_by for lane in lanes(world)}


def lanes(world: World) -> list[Lane]:
    engine = world.engines[-1]
    with engine.transaction() as connection:
        return engine.lanes.all(connection)


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


def test_lanes_of_others_are_left_to_them_until_their_leases_run_out(world: World) -> None:
    archive = world.archive(messages(300, NOW - 40_000, 79))
    catch_up = CatchUp(world.open(Hits, Log), archive, PACE)
    lease(world, ELSEWHERE)
    # It does not spin.
    assert catch_up.turn() > 0
    assert world.total() == 0
    assert owners(world) == {ELSEWHERE}
    lease(world, ELSEWHERE, seconds=-1)
    catch_up.run_until_complete()
    assert world.total() == 300
    assert len(world.rows("catchup_log")) == 300
    # Whoever is next need not wait.
    assert owners(world) == {None}


def test_a_killed_process_is_not_waited_for(world: World) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    archive = world.archive(messages(30, NOW - 40_000, 79))
    engine = world.open(Hits, Log)
    lease(world, f"{leases.owner().rpartition(' ')[0]} {process.pid}")
    complete(engine, archive)
    assert len(world.rows("catchup_log")) == 30


def test_lanes_of_aggregates_are_taken_over_on_demand(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = world.archive(messages(300, NOW - 40_000, 79))
    archive.target = 10
    monkeypatch.setattr(catchup, "_TURN_OF_A_LANE", 0.0)
    catch_up = CatchUp(world.open(Hits, Log), archive, PACE, takes_over=True)
    lease(world, ELSEWHERE)
    while not world.total():
        catch_up.turn()
    assert world.rows("catchup_log") == []
    assert {lane.name: lane.leased_by for lane in lanes(world)} == {
        "main": leases.owner(),
        "ordered": ELSEWHERE,
    }
    # Once: two that want it do not take it from each other for ever.
    lease(world, ELSEWHERE)
    before = world.total()
    assert before < 300
    catch_up.turn()
    assert owners(world) == {ELSEWHERE}
    assert world.total() == before


def test_near_the_present_one_process_runs_the_classic_plugins(world: World) -> None:
    # Not since the tests began: the archive must be as near to the present as the lane was left.
    found = messages(300, time.time() - 24_000, 79)
    archive = world.archive(found)
    engine = world.open(Hits, Log)
    complete(engine, archive)
    more = messages(5, NOW - 300, 1)
    archive = world.archive([*found, *more])
    lease(world, ELSEWHERE)
    complete(world.open(Hits, Log), archive)
    # Aggregates are anybody's.
    assert world.total() > 300
    assert len(world.rows("catchup_log")) == 300
    lease(world, ELSEWHERE, seconds=-1)
    complete(world.open(Hits, Log), archive)
    assert len(world.rows("catchup_log")) == world.total()


def test_who_has_lost_the_lease_counts_nothing_for_classic_plugins(world: World) -> None:
    engine = world.open(Hits, Log)
    found = messages(3, NOW - 40_000)
    numbers = [lane.id for lane in lanes(world)]
    since = min(lane.history_start or 0.0 for lane in lanes(world))
    lease(world, ELSEWHERE)
    # It was fetched before that.
    engine.count_slice(numbers, Slice(Window(since, NOW - 100.0), found))
    assert world.total() == 3
    assert world.rows("catchup_log") == []
