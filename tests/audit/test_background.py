"""The audit in the background: what is wrong is found within one sweep, and put right."""

from __future__ import annotations

from datetime import timedelta

import pytest

from statscache.archive import Archive, Slice, Window
from statscache.audit import background
from statscache.audit.background import Audit
from statscache.audit.gaps import refetch_gaps
from statscache.audit.repair import repair
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.counting import late
from statscache.counting.engine import Engine
from statscache.message import Message
from statscache.topics import EVERYTHING
from tests.support.audits import audited, state, sweep
from tests.support.databases import execute
from tests.support.hub_fixture import NOW, TODAY, Hits, HubFixture, Log, Newest, messages
from tests.support.messages import message

DAY = 86_400
AFTERWARDS = messages(1, NOW - 70.0)
"""Behind which the archive has shown all that went before."""


class Weekly(Hits):
    name = "weekly"
    resolutions = (timedelta(hours=6), timedelta(days=7))


def filled(hub_fixture: HubFixture, *classes: type) -> tuple[Engine, Archive]:
    engine = hub_fixture.open(*classes, days=4)
    archive = hub_fixture.archive([*messages(600, TODAY - 4 * DAY + 100, 570), *AFTERWARDS])
    CatchUp(engine, archive, Polling(lag=60)).run_until_complete()
    return engine, archive


def audit_of(engine: Engine, archive: Archive, *, repairs: bool = False) -> Audit:
    return Audit(engine, archive, 10**9, repairs=repairs)


def test_a_sweep_compares_everything_and_finds_nothing_wrong(hub_fixture: HubFixture) -> None:
    engine, archive = filled(hub_fixture, Hits, Newest, Log)
    audit = audit_of(engine, archive)
    sweep(hub_fixture, audit)
    assert state(hub_fixture)["mismatches"] == 0
    assert int(str(state(hub_fixture)["messages"])) >= 600
    found = audited(hub_fixture)
    assert {until for ident, (until, _) in found.items() if ident != "log"} == {TODAY}
    assert found["log"][0] > TODAY
    sweep(hub_fixture, audit, 2)
    audit.close()


@pytest.mark.parametrize(
    ("statement", "ident"),
    [
        (
            f"UPDATE hits_1h SET hits = hits + 1 WHERE timestamp = {TODAY - 3 * DAY + 3600 * 5}",
            "hits-1h",
        ),
        (f"DELETE FROM hits_1d WHERE place = 'b' AND timestamp = {TODAY - 2 * DAY}", "hits-1d"),
        (
            f"UPDATE newest SET number = 12345, timestamp = {TODAY - 2 * DAY} WHERE place = 'a'",
            "newest",
        ),
        ("UPDATE catchup_log SET number = 777 WHERE number = 7", "log"),
    ],
)
@pytest.mark.parametrize("repairs", [pytest.param(False, marks=pytest.mark.long), True])
def test_what_was_changed_by_hand_is_found_and_repaired(
    hub_fixture: HubFixture, statement: str, ident: str, *, repairs: bool
) -> None:
    engine, archive = filled(hub_fixture, Hits, Newest, Log)
    names = ("hits_1h", "hits_1d", "newest")
    before = {name: hub_fixture.rows(name) for name in names}
    log = [row[1:] for row in hub_fixture.rows("catchup_log")]
    execute(hub_fixture.uri, statement)
    audit = audit_of(engine, archive, repairs=repairs)
    sweep(hub_fixture, audit)
    audit.close()
    assert audited(hub_fixture)[ident][1] >= 1
    assert ident in str(state(hub_fixture)["last_mismatch"])
    is_as_before = all(hub_fixture.rows(name) == before[name] for name in names)
    if not repairs:
        assert not is_as_before or ident == "log"
        return
    assert state(hub_fixture)["repaired"] == state(hub_fixture)["mismatches"]
    CatchUp(engine, archive, Polling(lag=60)).run_until_complete()
    assert {name: hub_fixture.rows(name) for name in names} == before
    assert [row[1:] for row in hub_fixture.rows("catchup_log")] == log


def test_a_message_that_archive_and_bus_both_lost_is_counted_once_after_a_repair(
    hub_fixture: HubFixture,
) -> None:
    engine, archive = filled(hub_fixture, Hits, Weekly)
    lost = message(timestamp=TODAY - 2 * DAY + 50_000, msg={"place": "z", "number": 1})
    again = hub_fixture.archive([*_of(archive), lost])
    audit = audit_of(engine, again, repairs=True)
    sweep(hub_fixture, audit)
    audit.close()
    assert [row[-1] for row in hub_fixture.rows("hits_1d") if row[1] == "z"] == [1]
    # The bus brings it after all: it has been counted.
    engine.count([lost])
    late.resolve(engine, again)
    assert hub_fixture.rows("statscache_late") == []
    assert [row[-1] for row in hub_fixture.rows("hits_1d") if row[1] == "z"] == [1]


def _of(archive: Archive) -> list[Message]:
    return archive.fetch(Window(TODAY - 5 * DAY, float(NOW + DAY))).messages


class Forgetful(Archive):
    """Says at first that it does not give all that it has."""

    slice_size = 1_000_000

    def __init__(self, archive: Archive, missing: str) -> None:
        self._archive = archive
        self._missing = missing
        self.is_forgetful = True

    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        piece = self._archive.fetch(window, topics)
        kept = [m for m in piece.messages if m.id != self._missing]
        if not self.is_forgetful or len(kept) == len(piece.messages):
            return piece
        if piece.window.stop - piece.window.start > 1:
            stop = float(int(next(m for m in piece.messages if m.id == self._missing).timestamp))
            return self.fetch(Window(window.start, stop if stop > window.start else stop + 1))
        return Slice(piece.window, kept, piece.rejected, missing=1)

    def describe(self) -> str:
        return "a forgetful archive"


def test_what_the_archive_did_not_give_is_asked_for_again(hub_fixture: HubFixture) -> None:
    found = messages(200, TODAY - 4 * DAY + 100, 570)
    archive = Forgetful(hub_fixture.archive(found), found[77].id)
    engine = hub_fixture.open(Hits, days=4)
    CatchUp(engine, archive, Polling(lag=60)).run_until_complete()
    assert hub_fixture.total() == 199
    assert [row[3] for row in hub_fixture.rows("statscache_gap")] == [1]
    assert refetch_gaps(engine, archive) == 0
    archive.is_forgetful = False
    assert refetch_gaps(engine, archive) == 1
    assert hub_fixture.total() == 200
    assert hub_fixture.rows("statscache_gap") == []


def test_the_budget_bounds_what_is_read(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, archive = filled(hub_fixture, Hits)
    monkeypatch.setattr(background, "_LONGEST_STEP", 0.0)
    audit = Audit(engine, archive, 3600, repairs=False)
    wait = 0.0
    while not wait:
        wait = audit.advance()
    # A second for each message, and it is not asked again before.
    assert 0 < wait <= 600
    read = state(hub_fixture).get("messages")
    assert 0 < audit.advance() <= wait
    assert state(hub_fixture).get("messages") == read
    audit.close()
    assert Audit(engine, archive, 0, repairs=False).advance() > 0


def test_what_is_still_claimed_is_not_in_the_sums_after_a_repair(hub_fixture: HubFixture) -> None:
    found = messages(600, TODAY - 4 * DAY + 100, 570)
    engine = hub_fixture.open(Hits, days=4)
    archive = hub_fixture.archive([*found[:300], *found[301:]])
    CatchUp(engine, archive, Polling(lag=60)).run_until_complete()
    # The bus brought it when the archive had lost it; the archive finds it again.
    engine.count([found[300]])
    late.resolve(engine, archive)
    again = hub_fixture.archive(found)
    day = float(found[300].timestamp // DAY * DAY)
    execute(hub_fixture.uri, f"UPDATE hits_1d SET hits = hits + 7 WHERE timestamp = {day}")
    for _ in repair(engine, again, ["hits-1d"], Window(day, day + DAY)):
        pass
    assert hub_fixture.total() == 600
    engine.count(found)
    while late.resolve(engine, again):
        pass
    assert hub_fixture.total() == 600
    assert hub_fixture.rows("statscache_rejected") == []
