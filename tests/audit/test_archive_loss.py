"""An archive that was emptied, or restored in part: what was counted stays, and it is said."""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from statscache.archive import FileArchive, Window
from statscache.audit.background import Audit
from statscache.audit.repair import repair
from statscache.catchup.loop import CatchUp
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.plugins.installed import discovery
from statscache.times import to_the_second
from tests.support.audits import audited as compared
from tests.support.audits import state, sweep
from tests.support.commands import call
from tests.support.configuration import configure
from tests.support.databases import execute, table
from tests.support.hub_fixture import (
    NOW,
    POLLING,
    TODAY,
    Hits,
    HubFixture,
    Log,
    Newest,
    messages,
    write,
)
from tests.support.messages import message

DAY = 86_400
EPOCH = datetime.fromtimestamp(TODAY - 4 * DAY, UTC)
HISTORY = [*messages(600, TODAY - 4 * DAY + 100, 570), *messages(1, NOW - 70)]
IDENTS = ("volume-1h", "volume-1d", "volume-by-category-1h")
TABLES = ("volume_1h", "volume_1d", "volume_by_category_1h")


class Installation:
    """A folder with a configuration and an archive, and what was counted from it."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.uri = uri
        self.archive = folder / "archive.jsonl"

    def configure(self, **more: Any) -> None:
        archived = {
            "statscache.archive.files": [str(self.archive)],
            "statscache.consumer.epoch": EPOCH.replace(tzinfo=None),
        }
        configure(self.folder, **archived | more)

    def call(self, *arguments: str) -> tuple[int, str]:
        done = call(self.folder, *arguments, uri=self.uri)
        return done.returncode, done.stdout + done.stderr

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {name: table(self.uri, name) for name in TABLES}

    def total(self) -> int:
        return sum(row[-1] for row in table(self.uri, "volume_1d"))

    def count(self, *found: Any) -> None:
        """As the hub does, when these come by the bus."""
        installed = discovery.discover({})
        engine = Engine(Database(self.uri), installed, epoch=EPOCH, has_history=True)
        engine.open()
        engine.count(found)
        engine.close()


@pytest.fixture
def installation(tmp_path: Path, migrated_uri: str) -> Installation:
    made = Installation(tmp_path, migrated_uri)
    write(made.archive, HISTORY)
    made.configure()
    code, said = made.call("backfill")
    assert code == 0, said
    assert made.total() == len(HISTORY)
    return made


@pytest.mark.parametrize("left", [0, 300])
def test_a_rebuild_that_would_lose_rows_is_not_begun(installation: Installation, left: int) -> None:
    before = installation.rows()
    write(installation.archive, HISTORY[:left])
    code, said = installation.call("rebuild", *IDENTS)
    assert code == 1
    assert "volume-1d: the archive lacks " in said
    assert "the old rows stay" in said
    assert installation.rows() == before
    # What comes by the bus goes on to be counted into them.
    installation.count(message(timestamp=time.time()))
    assert installation.total() == len(HISTORY) + 1
    code, said = installation.call("verify", "volume-1d", "--stop", str(TODAY))
    assert code == 1
    assert said.count("the archive lacks ") == 1
    # A person may want what is left, and an operator a little less.
    code, said = installation.call("rebuild", "--force", *IDENTS)
    assert code == 0, said
    assert installation.total() == left


def test_what_may_be_lost_is_configured(installation: Installation) -> None:
    write(installation.archive, HISTORY[3:])
    assert installation.call("rebuild", "volume-1d")[0] == 1
    installation.configure(**{"statscache.rebuild.tolerated_loss": 0.01})
    code, said = installation.call("rebuild", "volume-1d")
    assert code == 0, said
    assert installation.total() == len(HISTORY) - 3


def audited(
    hub_fixture: HubFixture, engine: Engine, archive: Any, sweeps: int = 1, *, repairs: bool = True
) -> None:
    audit = Audit(engine, archive, 10**9, repairs=repairs)
    sweep(hub_fixture, audit, sweeps)
    audit.close()


@pytest.mark.parametrize("left", [0, 300])
def test_the_audit_deletes_nothing_on_the_word_of_an_archive_that_lost_it(
    hub_fixture: HubFixture, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    engine = hub_fixture.open(Hits, Newest, days=4)
    CatchUp(engine, hub_fixture.archive(HISTORY), POLLING).run_until_complete()
    names = ("hits_1h", "hits_1d", "newest")
    before = {name: hub_fixture.rows(name) for name in names}
    # One that is wrong where the archive is whole, and one where it is not.
    first, last = (f"timestamp = {TODAY - days * DAY + 3600 * 5}" for days in (4, 1))
    for when in (first, last):
        execute(hub_fixture.uri, f"UPDATE hits_1h SET hits = hits + 1 WHERE {when}")
    wrong = {row for row in hub_fixture.rows("hits_1h") if row not in before["hits_1h"]}
    archive = hub_fixture.archive(HISTORY[:left])
    audited(hub_fixture, engine, archive)
    assert "the archive lacks " in caplog.text
    after = {name: hub_fixture.rows(name) for name in names}
    kept = {row for row in wrong if not left or row[0] >= TODAY - DAY}
    assert kept
    assert set(after["hits_1h"]) - set(before["hits_1h"]) == kept
    assert [row[:2] for row in after["hits_1h"]] == [row[:2] for row in before["hits_1h"]]
    # What the archive can judge is said to have been wrong, and nothing else.
    assert (
        state(hub_fixture)["mismatches"] == state(hub_fixture)["repaired"] == len(wrong) - len(kept)
    )
    assert (after["hits_1d"], after["newest"]) == (before["hits_1d"], before["newest"])
    assert hub_fixture.lane_of("newest") == "main"
    # The archive is whole again. What it lacked is remembered, and not counted twice.
    archive = hub_fixture.archive(HISTORY)
    engine.count(HISTORY[:50])
    CatchUp(engine, archive, POLLING).run_until_complete()
    audited(hub_fixture, engine, archive, 2)
    assert {name: hub_fixture.rows(name) for name in names} == before


@pytest.mark.parametrize("repairs", [False, True])
def test_an_emptied_archive_is_one_line_a_day_and_no_alarm_about_rows(
    hub_fixture: HubFixture, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, repairs: bool
) -> None:
    engine = hub_fixture.open(Hits, Newest, Log, days=4)
    CatchUp(engine, hub_fixture.archive(HISTORY), POLLING).run_until_complete()
    names = ("hits_1h", "hits_1d", "newest", "catchup_log")
    before = {name: hub_fixture.rows(name) for name in names}
    configure(tmp_path, **{"statscache.archive.files": []})
    audited(hub_fixture, engine, hub_fixture.archive([]), repairs=repairs)
    assert {name: hub_fixture.rows(name) for name in names} == before
    said = [record.getMessage() for record in caplog.records if record.levelname != "INFO"]
    assert all("the archive lacks " in line for line in said), said
    assert len(said) == 4  # a line for each day
    counted = state(hub_fixture)
    assert (counted["mismatches"], counted["repaired"]) == (0, 0)
    assert {row[1] for row in compared(hub_fixture).values()} == {0}
    lost = sum(1 for each in HISTORY if each.timestamp < TODAY)
    shown = call(tmp_path, "status", uri=hub_fixture.uri).stdout
    assert f"the archive lacks {lost} messages that were counted" in shown
    assert " 0 rows differed, 0 were repaired" in shown
    # It has been restored: nothing is said any more, once all has been compared again.
    audited(hub_fixture, engine, hub_fixture.archive(HISTORY), 2, repairs=repairs)
    assert "the archive lacks" not in call(tmp_path, "status", uri=hub_fixture.uri).stdout


def test_what_a_plugin_changed_is_not_rebuilt_from_what_is_left(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    CatchUp(
        hub_fixture.open(Hits, Newest, days=4), hub_fixture.archive(HISTORY), POLLING
    ).run_until_complete()
    before = hub_fixture.rows("newest")
    monkeypatch.setattr(Newest, "version", 2)
    engine = hub_fixture.open(Hits, Newest, days=4)
    # All but the newest, so that nothing that is still claimed tells.
    archive = hub_fixture.archive([*HISTORY[:300], HISTORY[-1]])
    CatchUp(engine, archive, POLLING).run_until_complete()
    assert hub_fixture.rows("newest") == before
    assert hub_fixture.state("newest") == "failing"
    assert "the old rows stay: the archive lacks 300 of the 601 messages" in str(
        hub_fixture.rows("statscache_plugin")
    )


def test_what_waits_for_the_archive_is_not_well(installation: Installation) -> None:
    assert installation.call("verify", *IDENTS)[0] == 0
    live = message(timestamp=NOW - 30.0)
    installation.count(live)
    code, said = installation.call("verify", *IDENTS)
    assert code == 3, said
    assert "wait for the archive" in said
    write(installation.archive, [*HISTORY, live])
    code, said = installation.call("verify", *IDENTS)
    assert code == 0, said


def test_verify_mends_the_days_in_which_it_finds_a_difference(installation: Installation) -> None:
    before = installation.rows()
    day = TODAY - 3 * DAY
    execute(
        installation.uri, f"UPDATE volume_1h SET volume = volume + 7 WHERE timestamp = {day + 3600}"
    )
    execute(installation.uri, f"DELETE FROM volume_1d WHERE timestamp = {day}")
    execute(
        installation.uri,
        "INSERT INTO volume_by_category_1h (timestamp, category, volume) "
        f"VALUES ({day + DAY}, 'nonsense', 5)",
    )
    assert installation.call("verify", *IDENTS)[0] == 1
    assert installation.rows() != before
    code, said = installation.call("verify", "--repair", *IDENTS)
    assert code == 0, said
    assert "After the repair:" in said
    assert installation.rows() == before
    assert installation.call("verify", *IDENTS)[0] == 0
    # Where the archive has lost something, nothing of it is replaced, and it does not end well.
    execute(installation.uri, f"UPDATE volume_1d SET volume = volume + 1 WHERE timestamp = {day}")
    wrong = installation.rows()
    write(installation.archive, [each for each in HISTORY if not day <= each.timestamp < day + 600])
    code, said = installation.call("verify", "--repair", *IDENTS)
    assert code == 1
    assert said.count("the archive lacks 1 of the ") == 1
    assert installation.rows() == wrong


def test_verify_mends_the_day_that_is_not_over(installation: Installation) -> None:
    live = message(timestamp=NOW - 20.0)
    installation.count(live)
    # A bus lags: the archive has one that has not been counted yet.
    write(installation.archive, [*HISTORY, live, message(timestamp=NOW - 10.0)])
    before = installation.rows()
    for name in ("volume_1d", "volume_1h"):
        newest = f"timestamp = (SELECT max(timestamp) FROM {name})"
        execute(installation.uri, f"UPDATE {name} SET volume = volume + 7 WHERE {newest}")
    assert installation.rows() != before
    code, said = installation.call("verify", "--repair", *IDENTS)
    # Nothing differs any more, and that one is missing still.
    assert code == 3, said
    after = said.partition("After the repair:")[2]
    assert ("DIFFER" in after, "not filled in yet from " in after) == (False, True), said
    assert installation.rows() == before
    # What has been counted of it is counted once still.
    installation.count(live, *HISTORY[-1:])
    assert installation.rows() == before


def test_the_day_that_is_not_over_waits_for_what_the_archive_does_not_have_yet(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    live = message(timestamp=NOW - 20.0)
    installation.count(live)
    execute(installation.uri, "UPDATE volume_1d SET volume = volume + 7")
    wrong = installation.rows()
    day = float(live.timestamp // DAY * DAY)
    engine = Engine(
        Database(installation.uri), discovery.discover({}), epoch=EPOCH, has_history=True
    )
    engine.open()
    archive = FileArchive([str(installation.archive)])
    deque(repair(engine, archive, ["volume-1d"], Window(day, day + DAY)), 0)
    engine.close()
    assert "run 'statscache verify --repair' again in some minutes" in caplog.text
    assert installation.rows() == wrong


def test_what_is_not_filled_in_yet_is_not_well(tmp_path: Path, migrated_uri: str) -> None:
    installation = Installation(tmp_path, migrated_uri)
    installation.configure()
    write(installation.archive, HISTORY[:300])
    assert installation.call("backfill")[0] == 0
    # Catching up has failed since then.
    write(installation.archive, HISTORY)
    code, said = installation.call("verify", *IDENTS)
    assert (code, "DIFFER" in said) == (3, False), said
    for ident in IDENTS:
        (line,) = [line for line in said.splitlines() if line.startswith(f"{ident}: ")]
        assert f"not filled in yet from {to_the_second(HISTORY[300].timestamp)} on" in line
    # Of what is earlier nothing is missing.
    code, said = installation.call("verify", "volume-1d", "--stop", str(TODAY - 3 * DAY))
    assert (code, "not filled in" in said) == (0, False), said
    assert installation.call("backfill")[0] == 0
    code, said = installation.call("verify", *IDENTS)
    assert (code, "not filled in" in said) == (0, False), said


def test_where_nothing_was_compared_it_is_not_well(installation: Installation) -> None:
    code, said = installation.call("verify", "volume-1d", "--stop", "2001-01-01")
    assert code == 3, said
    assert "volume-1d: not compared: it covers nothing of this time" in said
