"""Rows that were rebuilt do not replace better ones, and do not accuse them."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.plugins.installed import discovery
from tests.support.commands import call, run
from tests.support.configuration import configure
from tests.support.databases import table
from tests.support.distributions import distribute
from tests.support.hub import Hub, wait_until
from tests.support.hub_fixture import TODAY, write
from tests.support.messages import message

_numbers = itertools.count()

PICKY = """
import os
from datetime import datetime, timedelta

import sqlalchemy as sa

from statscache.plugins import Aggregate, BaseModel, BasePlugin, Key, Value


def check(msg):
    if msg["place"] in os.environ["PICKY"].split():
        raise LookupError("cannot look up " + msg["place"])


class Aggregated(Aggregate):
    name, summary, description = "aggregated", "picky", "For tests."
    keys = (Key("place"),)
    values = (Value("hits"),)
    resolutions = (timedelta(hours=1), timedelta(days=1))

    def rows(self, message):
        check(message.msg)
        return [(message.msg["place"], 1)]


class Classical(BasePlugin):
    name, summary, description = "classical", "picky", "For tests."

    class model(BaseModel):
        __tablename__ = "{table}"
        place = sa.Column(sa.UnicodeText, nullable=False)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def process(self, message):
        check(message["msg"])
        self.seen.append(message)

    def update(self, session):
        for each in self.seen:
            when = datetime.utcfromtimestamp(each["timestamp"])
            session.add(self.model(timestamp=when, place=each["msg"]["place"]))
        self.seen = []


plugins = [Aggregated, Classical]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, an archive, and plugins that PICKY makes reject places."""
    number = next(_numbers)  # a module of its own for each test, and a table
    code = PICKY.replace("{table}", f"held_{number}")
    folder = distribute(tmp_path / "site", f"picky{number}", code, picky="plugins")
    monkeypatch.syspath_prepend(folder)
    write(tmp_path / "archive.jsonl", [message_of(each) for each in range(60)])
    configure(
        tmp_path,
        **{
            "statscache.archive.files": [str(tmp_path / "archive.jsonl")],
            "statscache.consumer.epoch": datetime.fromtimestamp(TODAY - 86_400, UTC).replace(
                tzinfo=None
            ),
        },
    )
    return tmp_path


def message_of(number: int) -> Any:
    return message(timestamp=TODAY - 80_000.0 + 60 * number, msg={"place": "abc"[number % 3]})


def rows(uri: str, place: Path) -> dict[str, list[Any]]:
    (classical,) = (path.stem for path in (place / "site").glob("picky*.py"))
    names = ("aggregated_1h", "aggregated_1d", classical.replace("picky", "held_"))
    return {name: [row[-2:] for row in table(uri, name)] for name in names}


IDENTS = ("aggregated-1h", "aggregated-1d", "classical")


def test_what_was_counted_and_is_rejected_now_stays(
    place: Path, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # c is rejected from the beginning: that is nothing new.
    monkeypatch.setenv("PICKY", "c")
    assert call(place, "backfill", *IDENTS, uri=migrated_uri).returncode == 0
    assert call(place, "verify", *IDENTS, uri=migrated_uri).returncode == 0
    before = rows(migrated_uri, place)
    assert len(before["aggregated_1d"]) == 2

    monkeypatch.setenv("PICKY", "b c")
    verified = call(place, "verify", *IDENTS, uri=migrated_uri)
    assert verified.returncode == 1
    for ident in IDENTS:
        assert (
            f"{ident}: not compared: it rejects 20 messages that it had counted before, such as "
        ) in verified.stdout
    assert "LookupError: cannot look up b" in verified.stdout
    assert "DIFFER" not in verified.stdout

    rebuilt = call(place, "rebuild", *IDENTS, uri=migrated_uri)
    assert rebuilt.returncode == 1
    for ident in IDENTS:
        assert f"{ident}: it was rebuilt, and the old rows stay: it rejects 20" in (rebuilt.stderr)
    assert rows(migrated_uri, place) == before
    assert "the old rows stay" in call(place, "status", uri=migrated_uri).stdout

    # The cause is mended: rebuilt once more, and now nothing is lost.
    monkeypatch.setenv("PICKY", "c")
    again = call(place, "rebuild", *IDENTS, uri=migrated_uri)
    assert again.returncode == 0, again.stderr
    assert "Rebuilding: " in again.stderr
    assert rows(migrated_uri, place) == before
    verified = call(place, "verify", *IDENTS, uri=migrated_uri)
    assert (verified.returncode, "not compared" in verified.stdout) == (0, False)


def test_what_was_held_back_goes_on_when_the_plugin_is_mended(
    place: Path,
    migrated_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PICKY", "")
    assert call(place, "backfill", *IDENTS, uri=migrated_uri).returncode == 0
    before = rows(migrated_uri, place)
    monkeypatch.setenv("PICKY", "b c")
    assert call(place, "rebuild", *IDENTS, uri=migrated_uri).returncode == 1

    # The hub starts again, with the plugins as they were, and says cause and cure each time.
    for number in range(2):
        caplog.clear()
        count_live(migrated_uri, number)
        for ident in IDENTS:
            (said,) = [each for each in caplog.messages if each.startswith(f"{ident}: ")]
            assert "the old rows stay: it rejects 40 messages that it had counted" in said
            assert "Mend the plugin, and it goes on by itself" in said
    assert rows(migrated_uri, place) == before
    said = call(place, "status", uri=migrated_uri).stdout
    assert "New messages are counted beside, and are not in the old rows" in said
    assert "next try" not in said
    verified = call(place, "verify", "aggregated-1d", uri=migrated_uri)
    assert verified.returncode == 3
    assert "it is being rebuilt; it was rebuilt, and the old rows stay" in verified.stdout

    # The first of them can be counted again, which is not enough.
    monkeypatch.setenv("PICKY", "c")
    assert call(place, "backfill", uri=migrated_uri).returncode == 1
    assert rows(migrated_uri, place) == before
    assert "it rejects 39 messages" in call(place, "status", uri=migrated_uri).stdout

    monkeypatch.setenv("PICKY", "")
    mended = call(place, "backfill", uri=migrated_uri)
    assert mended.returncode == 0, mended.stderr
    after = rows(migrated_uri, place)
    assert sum(row[-1] for row in after["aggregated_1d"]) == 62
    assert [len(found) for found in after.values()][-1] == 62
    assert table(migrated_uri, "statscache_rejected") == []
    assert "the old rows stay" not in call(place, "status", uri=migrated_uri).stdout


def count_live(uri: str, number: int) -> None:
    """As a hub that starts, and gets a message by the bus that the archive does not have yet."""
    epoch = datetime.fromtimestamp(TODAY - 86_400, UTC)
    engine = Engine(Database(uri), discovery.discover({}), epoch=epoch, has_history=True)
    engine.open()
    engine.release_live()
    engine.count([message(timestamp=time.time() + number, msg={"place": "a"})])
    engine.close()


def test_people_may_insist(place: Path, migrated_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICKY", "")
    assert call(place, "backfill", *IDENTS, uri=migrated_uri).returncode == 0
    monkeypatch.setenv("PICKY", "a b c")
    assert call(place, "rebuild", "aggregated", uri=migrated_uri).returncode == 1
    assert len(rows(migrated_uri, place)["aggregated_1d"]) == 3
    forced = call(place, "rebuild", "aggregated", "--force", uri=migrated_uri)
    assert forced.returncode == 0, forced.stderr
    assert rows(migrated_uri, place)["aggregated_1d"] == []


NAMING = """
from datetime import datetime

import fedmsg.meta
import sqlalchemy as sa

from statscache.plugins import BaseModel, BasePlugin


class Names(BasePlugin):
    name, summary, description = "names", "who", "For tests."

    class model(BaseModel):
        __tablename__ = "held_names"
        who = sa.Column(sa.UnicodeText, nullable=False)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def process(self, message):
        # Local time, as the plugins of 2015 have it.
        when = datetime.fromtimestamp(message["timestamp"])
        for who in fedmsg.meta.msg2usernames(message, **self.config):
            self.seen.append((when, who))

    def update(self, session):
        for when, who in self.seen:
            session.add(self.model(timestamp=when, who=who))
        self.seen = []
"""

PROCESSOR = """
from fedmsg.meta.base import BaseProcessor


class Processor(BaseProcessor):
    __name__ = "git"
    __description__ = __link__ = __docs__ = __obj__ = "for tests"

    def usernames(self, msg, **config):
        return {"told-by-processor"}
"""


@pytest.mark.parametrize("processor", [True, pytest.param(False, marks=pytest.mark.long)])
def test_classic_plugins_ask_fedmsg_meta_and_have_local_time_in_utc(
    processor: bool, place: Path, migrated_uri: str
) -> None:
    folder = distribute(place / "naming", "naming", NAMING, names="Names")
    if processor:
        distribute(folder, "processing", PROCESSOR, "fedmsg.meta", git="Processor")
    sent = message(timestamp=TODAY - 80_000.0, msg={"agent": "ralph"})
    write(place / "archive.jsonl", [sent])
    environment = {"PYTHONPATH": str(folder), "TZ": "Asia/Kolkata"}
    for command in ("replay archive.jsonl", "verify names"):
        done = run(place, *command.split(), uri=migrated_uri, **environment)
        assert done.returncode == 0, done
    assert "1 rows agree" in done.stdout
    (row,) = table(migrated_uri, "held_names")
    when = datetime.fromtimestamp(TODAY - 80_000, UTC).replace(tzinfo=None)
    assert str(row[1])[:19] == str(when)
    assert row[2] == ("told-by-processor" if processor else "ralph")
    assert table(migrated_uri, "statscache_rejected") == []


@pytest.mark.long
def test_the_same_in_the_hub(place: Path, migrated_uri: str) -> None:
    folder = distribute(place / "naming", "naming", NAMING, names="Names")
    distribute(folder, "processing", PROCESSOR, "fedmsg.meta", git="Processor")
    with Hub(place, migrated_uri) as hub:
        hub.environment |= {"PYTHONPATH": str(folder), "TZ": "Asia/Kolkata"}
        hub.start()
        sent = message(timestamp=float(int(time.time())), msg={"agent": "ralph"})
        hub.publish(sent.raw)
        wait_until(lambda: table(migrated_uri, "held_names"), "it is counted", hub.log)
        hub.stop()
    (row,) = table(migrated_uri, "held_names")
    when = datetime.fromtimestamp(sent.timestamp, UTC).replace(tzinfo=None)
    assert (str(row[1])[:19], row[2]) == (str(when), "told-by-processor")
