"""A database, plugins and an archive: what the tests of lanes, catching up and audits stand on."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import func, select, text

from statscache.archive import Archive, FileArchive
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.database.tables import lane as lane_table
from statscache.message import Message
from statscache.plugins import Aggregate, BaseModel, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from tests.support.classics import KeepsMessages, moment_of
from tests.support.clocks import AheadClock
from tests.support.databases import table
from tests.support.messages import message

POLLING = Polling(lag=60, overlap=900, interval=60)

NOW = int(time.time())
TODAY = (NOW - 1_200) // 86_400 * 86_400
"""The last midnight of which no claims are left: see :data:`POLLING`."""


class Hits(Aggregate):
    name, summary, description = "hits", "hits", "For tests."
    keys = (Key("place"),)
    values = (Value("hits", "add"),)
    resolutions = (timedelta(hours=1), timedelta(days=1))

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["place"], 1)]


class Newest(Aggregate):
    name, summary, description = "newest", "newest", "For tests."
    topics = ("org.fedoraproject.prod.git.#",)
    keys = (Key("place"),)
    values = (Value("number", "newest"),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["place"], message.msg["number"])]


class Counted(Aggregate):
    name, summary, description = "counted", "counted", "For tests."
    keys: ClassVar[tuple[Key, ...]] = (Key("place"),)
    values = (Value("hits", "add"),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(*(message.msg[key.name] for key in self.keys), 1)]


class Picky(Aggregate):
    """Cannot take everything at first."""

    name, summary, description = "picky", "picky", "For tests."
    keys = (Key("place"),)
    values = (Value("hits", "add"),)
    resolutions = (timedelta(hours=1), timedelta(days=1))
    cannot: ClassVar[str] = "bad"

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        if message.msg["place"] == self.cannot:
            raise ValueError("no idea what that is")
        return [(message.msg["place"], 1)]


def messages(count: int, start: float, step: float = 60.0, **more: Any) -> list[Message]:
    return [
        message(
            timestamp=start + number * step,
            msg={"place": "abc"[number % 3], "number": number},
            **more,
        )
        for number in range(count)
    ]


def write(path: Path, found: list[Message]) -> None:
    shuffled = list(found)
    random.Random(1).shuffle(shuffled)
    path.write_text("".join(json.dumps(item.raw) + "\n" for item in shuffled))


class LogModel(BaseModel):
    __tablename__ = "catchup_log"

    number: Any = sa.Column(sa.Integer, nullable=False)


class Log(KeepsMessages):
    """Writes down the order in which it gets messages."""

    name, summary, description = "log", "log", "For tests."
    model = LogModel

    def write(self, session: Any, raw: dict[str, Any]) -> None:
        session.add(LogModel(timestamp=moment_of(raw), number=raw["msg"]["number"]))


class HubFixture:
    """A database, plugins, and an archive of one file."""

    def __init__(self, uri: str, path: Path) -> None:
        self.uri = uri
        self.path = path
        self.clock = AheadClock()
        self.engines: list[Engine] = []

    def archive(self, found: list[Message]) -> FileArchive:
        write(self.path, found)
        return FileArchive([str(self.path)])

    def open(self, *classes: type, days: int = 2, has_history: bool = True, **more: Any) -> Engine:
        source = Source("test", "test-distribution", "1.0")
        installed = discovery.load([(source, lambda: classes)], {})
        assert not installed.broken
        epoch = datetime.fromtimestamp(TODAY - days * 86_400, UTC)
        more = {"clock": self.clock, "has_history": has_history} | more
        engine = Engine(Database(self.uri), installed, epoch=epoch, **more)
        engine.open()
        self.engines.append(engine)
        return engine

    def close(self) -> None:
        """Close all the engines that are open."""
        while self.engines:
            self.engines.pop().close()

    def let_lanes_rest(self) -> None:
        """Let as much time pass as the lanes that failed have to rest."""
        with Database(self.uri).begin() as connection:
            until = connection.scalar(select(func.max(lane_table.c.retry_at)))
        if until is not None:
            self.clock.advance(until - self.clock.time())

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        return table(self.uri, name)

    def lane_of(self, ident: str) -> str:
        with Database(self.uri).begin() as connection:
            return str(
                connection.scalar(
                    text(
                        "SELECT name FROM statscache_lane JOIN statscache_plugin "
                        "ON statscache_lane.id = lane WHERE ident = :ident"
                    ),
                    {"ident": ident},
                )
            )

    def state(self, ident: str) -> str:
        rows = [row for row in self.rows("statscache_plugin") if row[0] == ident]
        return str(rows[0][2])

    def total(self, name: str = "hits_1d") -> int:
        return sum(row[-1] for row in self.rows(name))


def complete(engine: Engine, archive: Archive, **more: Any) -> None:
    """Catch up with all that the archive has."""
    CatchUp(engine, archive, POLLING, **more).run_until_complete()
