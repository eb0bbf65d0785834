"""What happens over and over does not fill the log."""

from __future__ import annotations

import pytest

from statscache.archive import Window
from statscache.archive.datagrepper import DatagrepperArchive
from statscache.clock import Clock
from statscache.errors import ArchiveUnavailable
from statscache.logs.recurring import Recurring
from tests.support.clocks import ManualClock
from tests.support.databases import execute
from tests.support.hub_fixture import TODAY, Hits, HubFixture
from tests.support.messages import NOON, message


def test_what_goes_on_is_told_at_growing_intervals() -> None:
    clock = ManualClock(NOON)
    recurring = Recurring(clock, 60, 300)
    told = []
    for second in range(1000):
        if recurring.happened("it"):
            told.append(second)
        clock.advance(1)
    assert told == [0, 60, 180, 420, 720]
    assert recurring.ended()
    assert not recurring.ended()
    assert recurring.happened("it", 7) == 7


def test_a_plugin_that_cannot_write_shows_one_traceback(
    hub_fixture: HubFixture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    engine = hub_fixture.open(Hits, has_history=False)
    for _ in range(2):
        execute(hub_fixture.uri, "ALTER TABLE hits_1d RENAME TO hidden")
        for _ in range(3):
            engine.count([message(timestamp=TODAY, msg={"place": "a", "number": 1})])
        assert len([record for record in caplog.records if record.exc_info]) == 1
        assert caplog.text.count("the rows of hits-1h, hits-1d cannot be written: ") == 1
        execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO hits_1d")
        engine.count([message(timestamp=TODAY, msg={"place": "a", "number": 1})])
        assert caplog.text.count("the rows of hits-1h, hits-1d can be written again") == 1
        caplog.clear()


def test_an_archive_in_trouble_is_told_of_before_it_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[bool] = []

    class Listening(Clock):
        def sleep(self, seconds: float) -> None:
            told.append("127.0.0.1:1/ cannot be reached" in caplog.text)

    archive = DatagrepperArchive(
        "http://127.0.0.1:1/",
        clock=Listening(),
    )
    for _ in range(2):
        with pytest.raises(ArchiveUnavailable):
            archive.fetch(Window(NOON, NOON + 60))
    assert told == [False] + [True] * 9
    assert len(caplog.records) == 1
