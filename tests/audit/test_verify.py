"""What is compared with the archive: every row that can be told, and no false alarm."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from statscache.archive import Archive, Window
from statscache.audit.verdict import Verdict
from statscache.audit.verify import Verification
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.counting.batch import Batch
from statscache.counting.engine import Engine
from statscache.counting.lanes.lane import read_lanes
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins import Aggregate, Key, Value
from tests.support.databases import execute
from tests.support.hub_fixture import Hits, HubFixture, Log, Newest, messages


class Quarter(Hits):
    name = "quarter"
    resolutions = (timedelta(seconds=15), timedelta(days=7))


class Running(Aggregate):
    name, summary, description = "running", "running", "A running total."
    keys = (Key("place"),)
    values: ClassVar[tuple[Value, ...]] = (Value("hits"), Value("first", "smallest"))

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["place"], 1, message.msg["number"])]


CLASSES = (Hits, Newest, Quarter, Running, Log)


def verify(
    hub_fixture: HubFixture, engine: Engine, archive: Archive, *idents: str, **more: Any
) -> dict[str, Verdict]:
    database = Database(hub_fixture.uri, read_only=True)
    verification = Verification(
        database, engine.installed, archive, idents or None, clock=engine.clock, **more
    )
    for _ in verification.compare():
        pass
    database.dispose()
    return {verdict.ident: verdict for verdict in verification.verdicts}


def differences(verdicts: dict[str, Verdict]) -> list[str]:
    return [str(d) for verdict in verdicts.values() for d in verdict.differences]


@pytest.fixture
def now() -> float:
    return float(int(time.time()))


def filled(hub_fixture: HubFixture, now: float) -> tuple[Engine, Archive, list[Message]]:
    found = messages(400, now - 100_000, 240)
    engine = hub_fixture.open(*CLASSES)
    archive = hub_fixture.archive(found)
    CatchUp(engine, archive, Polling(lag=60)).run_until_complete()
    return engine, archive, found


def test_tables_that_agree(hub_fixture: HubFixture, now: float) -> None:
    engine, archive, _ = filled(hub_fixture, now)
    verdicts = verify(hub_fixture, engine, archive)
    assert differences(verdicts) == []
    assert {ident for ident, verdict in verdicts.items() if not verdict.rows} == set()
    assert verdicts["hits-1h"].undecided == 0
    assert verdicts["log"].rows == 400


@pytest.mark.parametrize(
    ("statement", "ident", "said"),
    [
        (
            "UPDATE hits_1h SET hits = hits + 1 WHERE place = 'a' AND timestamp % 10800 = 0",
            "hits-1h",
            "hits=",
        ),
        (
            "DELETE FROM quarter_15s WHERE place = 'b' AND timestamp % 7 = 0",
            "quarter-15s",
            "no row stored",
        ),
        (
            "INSERT INTO hits_1d SELECT timestamp, 'zz', hits FROM hits_1d WHERE place = 'a'",
            "hits-1d",
            "no row counted",
        ),
        ("UPDATE newest SET number = number + 3 WHERE place = 'a'", "newest", "number="),
        ("UPDATE newest SET timestamp = timestamp - 500 WHERE place = 'a'", "newest", "timestamp="),
        ("DELETE FROM newest WHERE place = 'c'", "newest", "no row stored"),
        ("UPDATE running SET first = 1 WHERE place = 'c'", "running", "first=1"),
        ("UPDATE catchup_log SET number = 777 WHERE number = 7", "log", "number=777"),
    ],
)
def test_a_change_by_hand_is_found(
    hub_fixture: HubFixture, now: float, statement: str, ident: str, said: str
) -> None:
    engine, archive, _ = filled(hub_fixture, now)
    execute(hub_fixture.uri, statement)
    verdicts = verify(hub_fixture, engine, archive)
    assert verdicts[ident].differences
    assert any(said in line for line in differences(verdicts))
    assert {name for name, verdict in verdicts.items() if verdict.differences} == {ident}


def test_a_part_of_the_time(hub_fixture: HubFixture, now: float) -> None:
    engine, archive, _ = filled(hub_fixture, now)
    execute(
        hub_fixture.uri,
        "UPDATE hits_1h SET hits = 99 WHERE timestamp < "
        "(SELECT max(timestamp) - 70000 FROM hits_1h)",
    )
    part = {"start": now - 20_000, "stop": now - 15_000}
    verdicts = verify(hub_fixture, engine, archive, "hits-1h", "newest", **part)
    assert differences(verdicts) == []
    assert 2 * 3 <= verdicts["hits-1h"].rows <= 3 * 3
    assert verdicts["hits-1h"].start % 3600 == 0
    assert verify(hub_fixture, engine, archive, "hits-1h")["hits-1h"].differences


def test_live_messages_that_the_archive_lacks_yet_are_undecided(
    hub_fixture: HubFixture, now: float
) -> None:
    engine, archive, found = filled(hub_fixture, now)
    live = messages(9, now - 30, 1)
    engine.count(live)
    verdicts = verify(hub_fixture, engine, archive)
    assert differences(verdicts) == []
    assert verdicts["hits-1h"].undecided
    assert "try again later" in verdicts["running"].skipped
    # When it has them, and some that the bus never brought, all but those are compared.
    archive = hub_fixture.archive([*found, *live, *messages(3, now - 20, 1)])
    verdicts = verify(hub_fixture, engine, archive)
    assert differences(verdicts) == []
    assert verdicts["hits-1h"].undecided == 0
    assert verdicts["running"].rows == 3


def test_copies_with_other_times_are_no_difference(hub_fixture: HubFixture, now: float) -> None:
    edge = now // 3600 * 3600 - 36_000
    live = messages(20, edge - 0.5, 0)
    restamped = [Message.from_fedmsg(m.raw | {"timestamp": edge + 0.4}) for m in live]
    engine = hub_fixture.open(Hits, Quarter)
    engine.count(live)
    archive = hub_fixture.archive([*restamped, *messages(30, edge - 40_000, 600)])
    CatchUp(engine, archive, Polling(lag=60)).run_until_complete()
    verdicts = verify(hub_fixture, engine, archive)
    assert differences(verdicts) == []
    assert verdicts["hits-1h"].restamped == verdicts["quarter-15s"].restamped == 6
    # But not more than there are of them.
    execute(
        hub_fixture.uri,
        f"UPDATE hits_1h SET hits = hits + 1 WHERE place = 'a' AND timestamp = {edge - 3600:.0f}",
    )
    assert len(verify(hub_fixture, engine, archive)["hits-1h"].differences) == 2


def test_a_plugin_whose_history_is_being_filled_in(hub_fixture: HubFixture, now: float) -> None:
    _, archive, found = filled(hub_fixture, now)

    class Late(Hits):
        name = "late"

    engine = hub_fixture.open(*CLASSES, Late)
    engine.count(found[-3:])
    catch_up = CatchUp(engine, archive, Polling(lag=60))
    with engine.transaction() as connection:
        lane = next(lane for lane in read_lanes(connection) if lane.name.startswith("new"))
    piece = archive.fetch(Window(lane.watermark or 0, now - 50_000))
    engine.commit(Batch.of_slice({lane.id}, piece))
    verdicts = verify(hub_fixture, engine, archive)
    assert differences(verdicts) == []
    assert verdicts["late-1h"].rows
    catch_up.run_until_complete()


def test_pruned_rows_are_not_missed(hub_fixture: HubFixture, now: float) -> None:
    found = messages(400, now - 96_000, 240)
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits)
    CatchUp(engine, archive, Polling(lag=60)).run_until_complete()
    engine.close()
    pruning = Engine(
        Database(hub_fixture.uri),
        engine.installed,
        {"1h": timedelta(hours=10)},
        datetime.fromtimestamp(now - 200_000, UTC),
        has_history=True,
    )
    pruning.open()
    pruning.prune()
    pruning.close()
    verdicts = verify(hub_fixture, engine, archive)
    assert differences(verdicts) == []
    assert verdicts["hits-1h"].start >= found[-1].timestamp - 36_000


def test_what_is_not_there_is_said(hub_fixture: HubFixture, now: float) -> None:
    engine, archive, _ = filled(hub_fixture, now)
    without = hub_fixture.open(Hits)
    assert "not installed" in verify(hub_fixture, engine, archive, "newest")["newest"].skipped
    without.close()
