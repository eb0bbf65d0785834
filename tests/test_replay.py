"""What was replayed is covered; and a plugin that comes later is filled from what it is given."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from statscache.app import build_app
from statscache.config import Settings
from statscache.plugins import discovery
from tests.commands import Done, call

HOUR = 3600
MIDNIGHT = 1_700_000_000 // 86_400 * 86_400
CHANGING = Path(__file__).parent / "changing"

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
    assert "complete from 2023-11-14 01:30:00 UTC to 2023-11-14 10:00:00 UTC, but for 1 holes" in (
        status
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
