"""A clock that jumps: the real hub counts on, loses nothing, and says so."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from statscache.app import create_app
from statscache.counting.lanes.lane import read_lanes
from statscache.database.connection import Database
from tests.support.databases import table
from tests.support.datagrepper import Datagrepper
from tests.support.hub import Hub, wait_until
from tests.support.live import Live, assert_complete, quick
from tests.support.paths import SUPPORT
from tests.support.stream import Stream

DAY = 86_400.0
CLOCK = SUPPORT / "clock"
"""A folder of Python's path with a clock that can be set."""


class Clock:
    """The clock of a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._file = hub.folder / "clock"
        self._file.write_text("0")
        hub.environment |= {
            "PYTHONPATH": os.pathsep.join([str(CLOCK), hub.environment.get("PYTHONPATH", "")]),
            "STATSCACHE_TEST_CLOCK": str(self._file),
        }

    def jump(self, ahead: float) -> None:
        """Set it, seconds ahead of the right time."""
        new = self._file.with_suffix(".new")
        new.write_text(str(ahead))
        new.replace(self._file)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Datagrepper]:
    with Datagrepper(tmp_path / "archive.db") as server:
        yield server


class Lossy(Live):
    """The archive has all of them, and the bus loses some."""

    def __init__(self, hub: Hub, archive: Datagrepper) -> None:
        super().__init__(hub, archive, rate=50.0)
        self._publish = hub.publish
        self._numbers = itertools.count()
        self._hub = self

    def publish(self, raw: dict[str, Any]) -> None:
        if next(self._numbers) % 5:
            self._publish(raw)


def counted(uri: str) -> int:
    return sum(row[-1] for row in table(uri, "volume_1d"))


def watermark(uri: str) -> float:
    with Database(uri, read_only=True).begin() as connection:
        return next(float(x.watermark or 0) for x in read_lanes(connection) if x.name == "main")


@pytest.mark.long
@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    "jumps",
    [
        [2 * DAY, 0.0, -2 * DAY, 0.0],
        # Less than the overlap.
        [20.0, 0.0, -20.0, 0.0],
    ],
)
def test_a_clock_that_jumps_loses_nothing_and_stops_nothing(
    tmp_path: Path, migrated_uri: str, archive: Datagrepper, jumps: list[float]
) -> None:
    stream = Stream(1)
    # Some that would be too old to be kept, were it the day after tomorrow.
    old = [stream.message(time.time() - 7200 + number) for number in range(50)]
    archive.add(old)
    retention = {"statscache.retention": {"1m": timedelta(hours=36)}}
    with Hub(tmp_path, migrated_uri, **quick(archive, **retention)) as hub:
        clock = Clock(hub)
        hub.start()
        client = create_app(hub.config).test_client()

        def counts_on() -> None:
            before = counted(migrated_uri)
            wait_until(lambda: counted(migrated_uri) > before + 20, "it counts on", hub.log)

        def see_the_archive() -> None:
            """Wait until it has been looked at by this clock."""
            asked, told = len(archive.requests), len(hub.log.read_text())
            wait_until(
                lambda: (
                    len(archive.requests) > asked + 5
                    or "behind what the archive" in hub.log.read_text()[told:]
                ),
                "the archive is asked",
                hub.log,
            )

        with Lossy(hub, archive) as live:
            wait_until(lambda: counted(migrated_uri) > len(old), "it counts", hub.log)
            for jump in jumps:
                clock.jump(jump)
                counts_on()
                see_the_archive()
                # It may be the end of the second of the newest message.
                assert watermark(migrated_uri) < time.time() + 1
            # And at a start.
            hub.stop()
            clock.jump(jumps[0])
            hub.start()
            counts_on()
            clock.jump(0.0)
            counts_on()
            before = watermark(migrated_uri)
            wait_until(lambda: watermark(migrated_uri) > before, "the watermark moves", hub.log)
        assert_complete(hub, old + live.raws, migrated_uri)
        assert time.time() - 60 < watermark(migrated_uri) < time.time()
        log = hub.log.read_text()
        for words in ("s ahead: messages are counted by their own times", "s back: messages"):
            assert words in log
        wait_until(lambda: client.get("/readyz").status_code == 200, "it is ready", hub.log)
        assert table(migrated_uri, "statscache_rejected") == []
        hub.stop()
