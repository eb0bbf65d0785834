"""Plugins that are rebuilt, beside what readers see."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from statscache.archive import FileArchive
from statscache.catchup.loop import CatchUp
from statscache.catchup.progress import Progress
from statscache.counting.engine import Engine
from statscache.plugins import Key
from tests.support.databases import execute
from tests.support.hub_fixture import (
    NOW,
    POLLING,
    Counted,
    Hits,
    HubFixture,
    Log,
    complete,
    messages,
)

FOUND = messages(400, NOW - 80_000, 190)


def begin(engine: Engine, *idents: str) -> list[str]:
    return engine.rebuild(idents)


def shadows(hub_fixture: HubFixture) -> list[str]:
    names = sa.inspect(sa.create_engine(hub_fixture.uri)).get_table_names()
    return [name for name in names if "shadow" in name]


def advance(engine: Engine, archive: FileArchive, name: str) -> None:
    """Go on until the lane of this name has come a part of its way."""
    stop = threading.Event()
    archive.slice_size = 10

    def report(progress: Progress) -> None:
        if progress.watermarks.get(name, 0.0) > NOW - 60_000:
            stop.set()

    assert CatchUp(engine, archive, POLLING, report=report).run_until_complete(stop) == []


def test_what_was_wrong_is_right_and_readers_never_see_a_part(hub_fixture: HubFixture) -> None:
    archive = hub_fixture.archive(FOUND)
    engine = hub_fixture.open(Hits, Log)
    complete(engine, archive)
    right = {name: hub_fixture.rows(name) for name in ("hits_1h", "hits_1d")}
    logged = [row[1:] for row in hub_fixture.rows("catchup_log")]
    execute(hub_fixture.uri, "UPDATE hits_1d SET hits = 7")
    execute(hub_fixture.uri, "DELETE FROM catchup_log")
    wrong = hub_fixture.rows("hits_1d")
    assert begin(engine, "hits-1d", "hits-1h", "log") == ["hits-1d", "hits-1h", "log"]
    advance(engine, archive, "new hits-1d")
    assert hub_fixture.rows("hits_1d") == wrong
    assert hub_fixture.rows("catchup_log") == []
    assert len(shadows(hub_fixture)) == 3
    complete(engine, archive)
    assert {name: hub_fixture.rows(name) for name in right} == right
    assert [row[1:] for row in hub_fixture.rows("catchup_log")] == logged
    assert shadows(hub_fixture) == []
    assert {hub_fixture.lane_of(ident) for ident in ("hits-1d", "hits-1h")} == {"main"}


def test_one_that_was_interrupted_goes_on(hub_fixture: HubFixture) -> None:
    archive = hub_fixture.archive(FOUND)
    complete(hub_fixture.open(Hits, Log), archive)
    right = hub_fixture.rows("hits_1d")
    engine = hub_fixture.open(Hits, Log)
    begin(engine, "hits-1d", "log")
    advance(engine, archive, "new hits-1d")
    again = hub_fixture.open(Hits, Log)
    # What is there is not thrown away, and what is new begins.
    assert begin(again, "hits-1d", "hits-1h", "log") == ["hits-1h"]
    assert hub_fixture.lane_of("hits-1d") == "new hits-1d"
    assert hub_fixture.lane_of("hits-1h") == "new hits-1h"
    complete(again, archive)
    assert hub_fixture.rows("hits_1d") == right
    assert len(hub_fixture.rows("catchup_log")) == 400
    assert shadows(hub_fixture) == []


def test_a_definition_that_changes_while_it_is_rebuilt_begins_again(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = hub_fixture.archive(FOUND)
    engine = hub_fixture.open(Counted, Hits)
    complete(engine, archive)
    begin(engine, "counted")
    advance(engine, archive, "new counted")
    monkeypatch.setattr(Counted, "keys", (Key("place"), Key("number", type=int)))
    again = hub_fixture.open(Counted, Hits)
    # Not in the lane that has come a part of its way with another table.
    assert hub_fixture.lane_of("counted") == "new counted 2"
    complete(again, archive)
    assert len(hub_fixture.rows("counted")) == 400
    assert shadows(hub_fixture) == []
