"""Classic plugins at work: their threads, their memory, and the messages that arrive meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from statscache.counting.engine import Engine
from statscache.counting.transactions import Transactions
from statscache.database.connection import Database
from statscache.errors import DatabaseUnavailable
from statscache.hub.intake import Intake
from statscache.plugins import AsyncPlugin, BaseModel, BasePlugin, ScalarModel
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from tests.support.classics import CountsDays
from tests.support.databases import table
from tests.support.messages import NOON, message

Opener = Callable[..., Engine]


@pytest.fixture
def open_engine(migrated_uri: str) -> Iterator[Opener]:
    engines: list[Engine] = []

    def open_(*classes: type) -> Engine:
        installed = discovery.load([(Source("t", "t", "1"), lambda: classes)], {})
        assert not installed.broken
        engines.append(Engine(Database(migrated_uri), installed))
        engines[-1].open()
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()


class SlowModel(ScalarModel):
    __tablename__ = "classics_slow"


class _ClearedSlowly(dict[datetime, int]):
    def clear(self) -> None:
        time.sleep(0.02)
        super().clear()


class Slow(CountsDays):
    """Lets time pass between its commit and its clear, as 2015's plugins did under load."""

    name, summary, description = "slow", "counts", "For tests."
    model = SlowModel

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.counts = _ClearedSlowly()


def test_messages_that_arrive_during_an_update_are_not_lost(
    open_engine: Opener, migrated_uri: str
) -> None:
    intake = Intake(open_engine(Slow), batch_size=50, buffer_size=100_000)
    total = 1000
    done = threading.Event()

    def publish(first: int) -> None:
        for number in range(first, total, 3):
            raw = {"topic": "a.b.c.d", "timestamp": NOON, "msg_id": f"id {number}"}
            intake.accept(json.dumps(raw))
            if intake.is_full:
                intake.flush()

    def poll() -> None:
        while not done.is_set():
            intake.flush()

    publishers = [threading.Thread(target=publish, args=(first,)) for first in range(3)]
    pollers = [threading.Thread(target=poll) for _ in range(2)]
    for thread in (*publishers, *pollers):
        thread.start()
    for thread in publishers:
        thread.join()
    done.set()
    for thread in pollers:
        thread.join()
    intake.close()
    assert [row[-1] for row in table(migrated_uri, "classics_slow")] == [total]


def test_windows_are_labelled_by_their_end(open_engine: Opener, migrated_uri: str) -> None:
    engine = open_engine(Slow)
    engine.count([message(timestamp=NOON)])
    database = Database(migrated_uri)
    with database.begin() as connection:
        (when,) = connection.scalars(sa.select(SlowModel.timestamp))
    assert when == datetime(2023, 11, 16)
    database.dispose()


class OrderModel(BaseModel):
    __tablename__ = "classics_order"

    order: Any = sa.Column(sa.UnicodeText, nullable=False)


class Ordered(BasePlugin):
    name, summary, description = "ordered", "remembers the order", "For tests."
    model = OrderModel

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[float] = []

    def process(self, message: dict[str, Any]) -> None:
        if message["msg"].get("bad"):
            raise ValueError("a bad one")
        self.seen.append(message["timestamp"] - NOON)

    def update(self, session: Any) -> None:
        session.add(self.model(timestamp=datetime(2023, 1, 1), order=json.dumps(self.seen)))
        self.seen.clear()


def test_messages_come_in_the_order_of_their_timestamps(
    open_engine: Opener, migrated_uri: str
) -> None:
    engine = open_engine(Ordered)
    batch = [message(timestamp=NOON + i) for i in (3, 1, 2, 0)]
    outcome = engine.count([*batch, message(timestamp=NOON + 1.5, msg={"bad": True})])
    assert [json.loads(row[2]) for row in table(migrated_uri, "classics_order")] == [[0, 1, 2, 3]]
    (rejection,) = outcome.rejections
    assert (rejection.plugin, rejection.reason) == ("ordered", "ValueError: a bad one")


class LookupModel(BaseModel):
    __tablename__ = "classics_lookup"

    found: Any = sa.Column(sa.UnicodeText, nullable=False)


class Lookup(AsyncPlugin):
    """Looks something up for each message, in threads."""

    name, summary, description = "lookup", "looks up", "For tests."
    model = LookupModel
    workers = 2
    filled: ClassVar[int] = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lock = threading.Lock()
        self.found: list[str] = []

    def fill(self, session: Any) -> None:
        Lookup.filled += 1
        for row in session.query(self.model).filter_by(found="unknown"):
            self.queue.put(("again", row.id))

    def process(self, message: dict[str, Any]) -> None:
        self.queue.put(("new", message["msg"]["what"]))

    def work(self, item: Any) -> None:
        if item[1] == "trouble":
            raise RuntimeError("no answer")
        with self.lock:
            self.found.append(f"{item[0]} {item[1]}")

    def update(self, session: Any) -> None:
        with self.lock:
            for found in self.found:
                session.add(self.model(timestamp=datetime(2023, 1, 1), found=found))
            self.found.clear()


def test_an_asynchronous_plugin_works_in_threads(
    open_engine: Opener, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lookup, "filled", 0)
    with_old = open_engine(Lookup)
    database = Database(migrated_uri)
    with database.begin() as connection:
        row = {"timestamp": datetime(2023, 1, 1), "found": "unknown"}
        connection.execute(sa.insert(LookupModel).values(row))
    database.dispose()
    with_old.close()
    engine = open_engine(Lookup)
    assert Lookup.filled == 2
    engine.count([message(msg={"what": what}) for what in ("a", "trouble", "b")])
    plugin = engine._membership.runners["lookup"].plugin
    assert isinstance(plugin, Lookup)
    plugin.queue.join()
    engine.count([])
    found = {row[2] for row in table(migrated_uri, "classics_lookup")}
    assert found == {"unknown", "again 1", "new a", "new b"}

    # What failed as a whole is done again by a new instance, which has its threads too.
    def fail(*_: Any) -> None:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Transactions, "note_changes", fail)
        with pytest.raises(DatabaseUnavailable):
            engine.count([message(msg={"what": "c"})])
    engine.count([message(msg={"what": "d"})])
    plugin = engine._membership.runners["lookup"].plugin
    assert isinstance(plugin, Lookup)
    assert Lookup.filled == 3
    plugin.queue.join()
    engine.count([])
    found = {row[2] for row in table(migrated_uri, "classics_lookup")}
    assert "new d" in found
    assert "new c" not in found


def test_threads_end_with_the_engine(open_engine: Opener) -> None:
    open_engine(Lookup).close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lookup-")]


class Broken(BasePlugin):
    name, summary, description = "broken launch", "fails to launch", "For tests."

    class model(BaseModel):  # noqa: N801
        __tablename__ = "classics_broken"

    def launch(self, session: Any) -> None:
        raise RuntimeError("cannot launch")


def test_a_failing_launch_stops_nobody_else(open_engine: Opener, migrated_uri: str) -> None:
    engine = open_engine(Broken, Ordered)
    engine.count([message()])
    assert len(table(migrated_uri, "classics_order")) == 1
