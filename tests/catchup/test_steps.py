"""The hub's loop, one step at a time: days pass in a moment."""

from __future__ import annotations

from statscache.audit.background import Audit
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from tests.support.clocks import ManualClock
from tests.support.hub_fixture import TODAY, Hits, HubFixture, Log, messages
from tests.support.hub_steps import lane, lanes_of

DAY = 86_400
HOURLY = Polling(lag=60, overlap=900, interval=3600)


def test_days_on_a_lossy_bus_are_counted_once(hub_fixture: HubFixture) -> None:
    begin = TODAY - 2 * DAY
    found = messages(2 * 144, begin, 600)
    archive = hub_fixture.archive(found)
    clock = ManualClock(begin + DAY / 2)
    engine = hub_fixture.open(Hits, Log, days=4, clock=clock)
    catch_up = CatchUp(engine, archive, HOURLY)
    heard = clock.time()
    while clock.time() < begin + 2 * DAY:
        clock.advance(max(catch_up.step(), 1.0))
        live = [each for each in found if heard <= each.timestamp < clock.time()]
        engine.count(live[::2])
        heard = clock.time()
    clock.advance(HOURLY.interval)
    while catch_up.step() == 0:
        pass
    assert hub_fixture.total() == len(found)
    # Those that the bus lost come late, so not in order.
    numbers = [row[2] for row in hub_fixture.rows("catchup_log")]
    assert sorted(numbers) == list(range(len(found)))
    assert {each.name for each in lanes_of(engine)} == {"main", "ordered"}
    # As far as the archive has shown it, whatever the clock says.
    assert lane(engine).watermark == found[-1].timestamp + 1
    # Those of the overlap, and no more.
    assert len(hub_fixture.rows("statscache_claim")) < 20
    audit = Audit(engine, archive, 10**9, repairs=False)
    assert 59 < CatchUp(engine, archive, HOURLY, audit=audit).step() < 60
    audit.close()
    ((_, sweeps, _, _, compared, mismatches, *_),) = hub_fixture.rows("statscache_audit")
    assert (sweeps, mismatches) == (1, 0)
    assert compared > len(found)


def test_a_clock_that_jumps_moves_no_watermark_ahead(hub_fixture: HubFixture) -> None:
    begin = TODAY - 2 * DAY
    found = messages(288, begin, 300)
    archive = hub_fixture.archive(found)
    clock = ManualClock(begin + DAY / 2)
    engine = hub_fixture.open(Hits, days=4, clock=clock)
    catch_up = CatchUp(engine, archive, HOURLY)

    def go_on() -> float | None:
        clock.advance(HOURLY.interval)
        while catch_up.step() == 0:
            pass
        return lane(engine).watermark

    assert go_on() == begin + DAY / 2 + 3_301
    # It is ahead, and the archive is not.
    clock.jump(2 * DAY)
    assert go_on() == found[-1].timestamp + 1
    clock.jump(-2 * DAY)
    assert go_on() == found[-1].timestamp + 1
    assert hub_fixture.total() == len(found)
