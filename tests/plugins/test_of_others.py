"""Classic plugins of other distributions: found, checked, and run as their authors expect."""

from __future__ import annotations

from datetime import datetime

import pytest

from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed
from tests.support.databases import table
from tests.support.distributions import DISTRIBUTION
from tests.support.messages import NOON, message


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    monkeypatch.syspath_prepend(DISTRIBUTION)
    found = discovery.discover({})
    if not isinstance(found.datasets.get("wiki-edits-by-title-1d"), discovery.Dataset):
        pytest.fail(f"not found: {found.broken}")
    return found


def test_the_good_are_loaded_and_the_broken_are_named(installed: Installed) -> None:
    idents = set(installed.datasets)
    assert {"wiki-edits-by-title-1d", "messages-per-window-1m", "messages-per-window-1h"} <= idents
    source = installed.datasets["wiki-edits-by-title-1d"].source
    assert (source.distribution, source.version) == ("stranger-statistics", "1.0")
    errors = {broken.source.entry_point.split(" ")[0]: broken.error for broken in installed.broken}
    assert "ModuleNotFoundError" in errors["missing"]
    assert "must be a plugin class or an iterable" in errors["nonsense"]
    assert "slash" in errors["slash"]


def test_their_rows_are_right(installed: Installed, migrated_uri: str) -> None:
    edit = "org.fedoraproject.prod.wiki.article.edit"

    def run(*batches: list[object]) -> None:
        engine = Engine(Database(migrated_uri), installed)
        engine.open()
        for batch in batches:
            engine.count(batch)  # type: ignore[arg-type]
        engine.close()

    first = [message(edit, NOON + i * 60, {"title": "Flock"}) for i in range(3)]
    run(first, [message(edit, NOON, {"title": "FESCo"}), *first])
    # A restart forgets nothing of the open window, and counts nothing twice.
    run(first, [message(edit, NOON + 86_399, {"title": "Flock"}), message()])
    rows = [row[1:] for row in table(migrated_uri, "data_wiki_edits")]

    def at(text: str, backend: str = migrated_uri) -> object:
        moment = datetime.fromisoformat(text)
        return str(moment) + ".000000" if backend.startswith("sqlite") else moment

    assert sorted(rows) == [
        (at("2023-11-16"), 1, "FESCo"),
        (at("2023-11-16"), 3, "Flock"),
        (at("2023-11-17"), 1, "Flock"),
    ]
    by_hour = [row[1:] for row in table(migrated_uri, "data_messages_1h")]
    assert sorted(by_hour) == [
        (at("2023-11-15T13:00"), 5),
        (at("2023-11-16T12:00"), 1),
    ]
