"""What was replayed is covered; and a plugin that comes later is filled from what it is given."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from statscache.app.application import build_app
from statscache.config import Settings
from statscache.plugins.installed import discovery
from tests.support.commands import Done, call
from tests.support.paths import SUPPORT

HOUR = 3600
MIDNIGHT = 1_700_000_000 // 86_400 * 86_400
CHANGING = SUPPORT / "changing"

PICKY = """
from datetime import timedelta
from statscache.plugins import Aggregate, Value
from tests.support.paths import SUPPORT

class Picky(Aggregate):
    name, summary, description = "picky", "picky", "For tests."
    values = (Value("volume"),)
    resolutions = (timedelta(days=1),)

    def rows(self, message):
        return [(message.msg["what nobody sends"],)]
"""

Replay = Callable[..., Done]


def lines(first: float, last: float, step: float = HOUR / 2) -> str:
    times = [first + step * number for number in range(int((last - first) // step) + 1)]
    return "".join(
        json.dumps(
            {
                "topic": "org.fedoraproject.prod.git.receive",
                "timestamp": when,
                "msg_id": f"id-{when}",
                "msg": {},
            }
        )
        + "\n"
        for when in times
    )


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    """Others want other releases of the same module."""
    yield
    sys.modules.pop("changing_statistics", None)


@pytest.fixture
def replay(tmp_path: Path, migrated_uri: str) -> Replay:
    def run(*texts: str) -> Done:
        names = []
        for number, text in enumerate(texts):
            names.append(f"{number}.jsonl")
            (tmp_path / names[-1]).write_text(text)
        return call(tmp_path, "replay", *names, uri=migrated_uri)

    return run


def get(uri: str, path: str) -> Any:
    config = {"statscache.sqlalchemy.uri": uri}
    app = build_app(
        Settings.from_config(config), discovery.discover(config), clock=lambda: MIDNIGHT + 86_400
    )
    return app.test_client().get(path).json


def test_what_was_replayed_is_covered_and_a_hole_stays_a_hole(
    replay: Replay, migrated_uri: str, tmp_path: Path
) -> None:
    # From 1:30 to 4:30 with nothing in between, and from 8:00 to 10:00.
    quiet = lines(MIDNIGHT + 1.5 * HOUR, MIDNIGHT + 4.5 * HOUR, step=3 * HOUR)
    done = replay(quiet, lines(MIDNIGHT + 8 * HOUR, MIDNIGHT + 10 * HOUR))
    assert "7 counted, 0 counted before, 0 rejected." in done.stdout
    answer = get(
        migrated_uri, f"/api/volume-1h/series?start={MIDNIGHT}&stop={MIDNIGHT + 12 * HOUR}"
    )
    # Zeros inside; what is covered in part is what is known of it; nulls outside and in the hole.
    expected = [None, 1, 0, 0, 1, None, None, None, 2, 2, 1, None]
    assert answer["series"][0]["values"] == expected
    assert answer["partial"] == [1, 4, 10]
    coverage = get(migrated_uri, "/api/plugins/volume-1h")["coverage"]
    assert (coverage["since"], coverage["until"]) == (MIDNIGHT + 1.5 * HOUR, MIDNIGHT + 10 * HOUR)
    assert coverage["gaps"] == [[MIDNIGHT + 4.5 * HOUR, MIDNIGHT + 8 * HOUR]]
    status = call(tmp_path, "status", uri=migrated_uri).stdout
    assert (
        "active, complete from 2023-11-14 01:30:00 UTC to 2023-11-14 10:00:00 UTC, but for a hole "
        "from 2023-11-14 04:30:00 UTC to 2023-11-14 08:00:00 UTC:\n" in status
    )
    # The file of the hole closes it, but for the minutes at its edges that are no quarter.
    replay(lines(MIDNIGHT + 4.7 * HOUR, MIDNIGHT + 7.9 * HOUR, step=HOUR / 10))
    assert get(migrated_uri, "/api/plugins/volume-1h")["coverage"]["gaps"] == []


def test_a_file_whose_messages_were_all_counted_before_is_covered_too(
    replay: Replay, migrated_uri: str
) -> None:
    text = lines(MIDNIGHT, MIDNIGHT + 2 * HOUR)
    # Two lines of the end first: an interrupted replay of files in no order.
    replay("".join(text.splitlines(keepends=True)[-2:]))
    assert "3 counted, 2 counted before" in replay(text).stdout
    coverage = get(migrated_uri, "/api/plugins/volume-1d")["coverage"]
    assert (coverage["since"], coverage["until"]) == (MIDNIGHT, MIDNIGHT + 2 * HOUR)


def test_a_plugin_that_comes_later_is_filled_from_the_same_file(
    replay: Replay, migrated_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = lines(MIDNIGHT, MIDNIGHT + 4 * HOUR)
    replay(text)
    monkeypatch.syspath_prepend(CHANGING)
    ident = "senders-1d"
    # It is given a part: what it lacks is said, and what to do.
    done = replay("".join(text.splitlines(keepends=True)[:5]))
    assert "5 counted, 0 counted before" in done.stdout
    assert "by the lane new senders-1d: 5" in done.stdout
    assert "by the lane main: 0" in done.stdout
    status = call(tmp_path, "status", uri=migrated_uri).stdout
    assert "lane new senders-1d (joins main): 5 messages" in status
    assert "main has counted messages that this lane has not: 'statscache replay" in status
    assert get(migrated_uri, f"/api/plugins/{ident}")["coverage"]["until"] == MIDNIGHT + 2 * HOUR
    # It is given all: it has what the others have, and goes on with them.
    done = replay(text)
    assert "4 counted, 5 counted before" in done.stdout
    assert f"{ident} has counted all that the others have" in done.stdout
    status = call(tmp_path, "status", uri=migrated_uri).stdout
    assert "lane new" not in status
    assert get(migrated_uri, f"/api/plugins/{ident}")["coverage"]["until"] == MIDNIGHT + 4 * HOUR
    rows = get(migrated_uri, f"/api/{ident}")
    assert rows
    assert "0 counted, 9 counted before" in replay(text).stdout
    assert get(migrated_uri, f"/api/{ident}") == rows


@pytest.mark.parametrize("is_newcomer", [False, True])
def test_a_plugin_that_rejects_everything_is_not_active(
    replay: Replay,
    migrated_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_newcomer: bool,
) -> None:
    if is_newcomer:
        replay(lines(MIDNIGHT, MIDNIGHT + 2 * HOUR))
    distribution = tmp_path / "installed" / "picky-1.0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: picky\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[statscache.plugin]\npicky = picky:Picky\n")
    (tmp_path / "installed" / "picky.py").write_text(PICKY)
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.setitem(sys.modules, "picky", importlib.import_module("picky"))
    replay(lines(MIDNIGHT, MIDNIGHT + 2 * HOUR))
    found = get(migrated_uri, "/api/plugins/picky-1d")
    assert found["state"] == "failing"
    assert "has rejected 5 messages" in found["error"]
    assert found["coverage"]["since"] is None
    status = call(tmp_path, "status", uri=migrated_uri).stdout
    assert "picky-1d" in status
    assert "failing, complete for no time yet:\n" in status
    assert "it has no row, and has rejected 5 messages: 'statscache rejected list'" in status
    config = {"statscache.sqlalchemy.uri": migrated_uri}
    app = build_app(Settings.from_config(config), discovery.discover(config))
    metrics = app.test_client().get("/metrics").text
    assert 'statscache_plugin_state{ident="picky-1d",state="failing"} 1.0' in metrics
    # The others are as they should be.
    assert get(migrated_uri, "/api/plugins/volume-1d")["state"] == "active"
