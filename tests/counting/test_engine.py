"""The engine's promises: exact tables, whatever comes in and in whichever order."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar

import pytest
from sqlalchemy import text

from statscache.counting.engine import Engine
from statscache.database import tables
from statscache.database.connection import Database
from statscache.errors import DatabaseUnavailable
from statscache.hub.intake import Intake, count_messages, count_texts
from statscache.message import Message
from statscache.plugins import Aggregate, BaseModel, BasePlugin, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from tests.support.databases import table
from tests.support.messages import NOON, message

DAY = 86_400
MIDNIGHT = int(NOON) - 43_200

Opener = Callable[..., Engine]


@pytest.fixture
def open_engine(migrated_uri: str) -> Iterator[Opener]:
    """Opens engines on one database, with the installed plugins or the given classes."""
    engines: list[Engine] = []

    def open_(*classes: type, config: dict[str, Any] | None = None) -> Engine:
        if classes:
            source = Source("test", "test-distribution", "1.0")
            installed = discovery.load([(source, lambda: classes)], config or {})
            assert not installed.broken
        else:
            installed = discovery.discover(config or {})
        engine = Engine(Database(migrated_uri), installed)
        engine.open()
        engines.append(engine)
        return engine

    yield open_
    for engine in engines:
        engine.close()


def test_counts_in_every_resolution(open_engine: Opener, migrated_uri: str) -> None:
    engine = open_engine()
    outcome = engine.count([message(timestamp=NOON + i) for i in (0, 1, 14.9, 15, 60, 3600)])
    assert outcome.counted == 6
    noon = int(NOON)
    assert table(migrated_uri, "volume_15s") == [
        (noon, 3),
        (noon + 15, 1),
        (noon + 60, 1),
        (noon + 3600, 1),
    ]
    assert table(migrated_uri, "volume_1m") == [(noon, 4), (noon + 60, 1), (noon + 3600, 1)]
    assert table(migrated_uri, "volume_1h") == [(noon, 5), (noon + 3600, 1)]
    assert table(migrated_uri, "volume_1d") == [(MIDNIGHT, 6)]
    assert table(migrated_uri, "volume_by_category_1d") == [(MIDNIGHT, "git", 6)]


def test_counts_a_duplicate_once(open_engine: Opener, migrated_uri: str) -> None:
    engine = open_engine()
    first, second = message(), message()
    outcome = engine.count([first, first, second])
    assert (outcome.counted, outcome.duplicates) == (2, 1)
    outcome = engine.count([second, message()])
    assert (outcome.counted, outcome.duplicates) == (1, 1)
    assert table(migrated_uri, "volume_1d") == [(MIDNIGHT, 3)]


def test_one_id_with_two_timestamps_is_one_message(open_engine: Opener, migrated_uri: str) -> None:
    engine = open_engine()
    engine.count([message(msg_id="2023-x", timestamp=NOON)])
    engine.count([message(msg_id="2023-x", timestamp=NOON + 7200)])
    assert table(migrated_uri, "volume_1h") == [(int(NOON), 1)]


def test_the_year_that_bridges_put_before_an_id_does_not_count(
    open_engine: Opener, migrated_uri: str
) -> None:
    ident = "b2e7fc9a-9d4c-4dbb-8e9c-6f25b2c75b36"
    engine = open_engine()
    engine.count([message(msg_id=ident), message(msg_id=f"2023-{ident}")])
    engine.count([message(msg_id=f"2022-{ident}")])
    assert table(migrated_uri, "volume_1d") == [(MIDNIGHT, 1)]


def test_messages_without_id_are_told_apart_by_content(
    open_engine: Opener, migrated_uri: str
) -> None:
    engine = open_engine()
    same = {"msg_id": None, "msg": {"b": 1, "a": [1, {"d": 2, "c": 3}]}}
    reordered = {"msg_id": None, "msg": {"a": [1, {"c": 3, "d": 2}], "b": 1}}
    engine.count(
        [
            message(**same),
            message(**reordered, i=7, headers={"x": 1}, signature="s", certificate="c"),
            message(**same, timestamp=NOON + 0.4),
            message(**same, timestamp=NOON + 1),
            message(msg_id=None, msg={"b": 2}),
        ]
    )
    engine.count([message(**same)])
    assert table(migrated_uri, "volume_1d") == [(MIDNIGHT, 3)]


def test_a_restart_keeps_the_open_day(open_engine: Opener, migrated_uri: str) -> None:
    messages = [message(timestamp=NOON + i) for i in range(1000)]
    open_engine().count(messages)
    engine = open_engine()
    assert table(migrated_uri, "volume_1d") == [(MIDNIGHT, 1000)]
    engine.count([*messages[-10:], message(timestamp=NOON + 2000)])
    assert table(migrated_uri, "volume_1d") == [(MIDNIGHT, 1001)]


def test_order_and_batches_do_not_matter(
    open_engine: Opener, migrated_uri: str, corpus: list[Message]
) -> None:
    engine = open_engine()
    # Of copies that differ (published as tests, some ids stand for two messages) the first counts.
    corpus = list({message.identity: message for message in corpus}.values())
    shuffled = corpus * 2
    random.Random(0).shuffle(shuffled)
    for first in range(0, len(shuffled), 37):
        engine.count(shuffled[first : first + 37])
    idents = [table.name for table in _plugin_tables()]
    found = {name: table(migrated_uri, name) for name in idents}
    with Database(migrated_uri).begin() as connection:
        for name in (*idents, "statscache_claim", "statscache_revision"):
            connection.execute(text(f"DELETE FROM {name}"))
    engine.count(corpus)
    assert found == {name: table(migrated_uri, name) for name in idents}
    assert sum(volume for _, volume in found["volume_1d"]) == len(corpus)


def test_nonsense_is_recorded_with_the_reason_and_counted(
    open_engine: Opener, migrated_uri: str
) -> None:
    engine = open_engine()
    texts = [
        b"{not json",
        b"[]",
        b'{"timestamp": 1}',
        b'{"topic": "a.b.c.d", "timestamp": "now"}',
        b'{"topic": "a.b.c.d", "timestamp": 1e999}',
        b'{"topic": "a.b.c.d", "timestamp": 99999999999}',
        b'{"topic": "a.b.c.d", "timestamp": -1}',
        b'{"topic": "", "timestamp": 1}',
        b'\xff{"topic"',
        b'{"topic": "a.b.c.d", "timestamp": 1, "msg_id": "good"}',
    ]
    outcome = count_texts(engine, texts)
    assert outcome.counted == 1
    assert len(outcome.rejections) == 9
    count_texts(engine, texts[:1] * 2)
    rows = {row.content: row for row in _rejected(migrated_uri)}
    assert len(rows) == 9
    assert rows["{not json"].times == 3
    assert rows["[]"].reason == "not a JSON object but a list"
    assert rows['{"timestamp": 1}'].reason.startswith("no topic")
    assert "not JSON" in rows['\\xff{"topic"'].reason
    assert table(migrated_uri, "volume_1d") == [(0, 1)]


def test_text_that_postgresql_cannot_hold_is_still_counted(
    open_engine: Opener, migrated_uri: str
) -> None:
    engine = open_engine()
    outcome = engine.count(
        [
            message(topic="org.fedoraproject.prod.a\0b.x"),
            message(topic="org.fedoraproject.prod.a\ufffdb.x"),
            message(topic="org.fedoraproject.prod.\ud800.x"),
            message(topic="org.fedoraproject.prod.naïve 🎩.x"),
        ]
    )
    assert outcome.counted == 4
    assert not outcome.failing
    rows = table(migrated_uri, "volume_by_category_1d")
    assert (MIDNIGHT, "a\ufffdb", 2) in rows
    assert (MIDNIGHT, "naïve 🎩", 1) in rows
    assert sum(volume for _, _, volume in rows) == 4


def test_keys_beyond_what_an_index_holds_are_shortened(
    open_engine: Opener, migrated_uri: str
) -> None:
    engine = open_engine()
    topics = [f"org.fedoraproject.prod.{'🎩' * 9000}.{end}" for end in "abb"]
    outcome = engine.count([message(topic=topic) for topic in topics])
    assert not outcome.failing
    rows = table(migrated_uri, "volume_by_topic_1d")
    assert sorted(volume for _, _, volume in rows) == [1, 2]
    assert all(len(topic) == 300 and topic.startswith("org.fedora") for _, topic, _ in rows)
    assert [volume for _, _, volume in table(migrated_uri, "volume_by_category_1d")] == [3]


class Latest(Aggregate):
    name = "latest"
    summary = "the latest state of each thing"
    description = "For tests."
    topics = ("*.*.*.things.#",)
    keys = (Key("thing"),)
    values = (Value("state", "newest", str), Value("detail", "newest", str))

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["thing"], message.msg["state"], message.msg["detail"])]


def thing(at: float, state: str, detail: str = "") -> Message:
    body = {"thing": "x", "state": state, "detail": detail}
    return message("org.fedoraproject.prod.things.change", NOON + at, body)


def test_an_older_message_never_overwrites_a_newer_one(
    open_engine: Opener, migrated_uri: str
) -> None:
    open_engine(Latest).count([thing(5, "new", "a"), thing(1, "old", "z")])
    engine = open_engine(Latest)
    engine.count([thing(4, "late", "zz")])
    assert table(migrated_uri, "latest") == [(NOON + 5, "x", "new", "a")]
    # Of two at the same time the larger one stands, as a whole, whichever came first.
    engine.count([thing(5, "new", "b")])
    engine.count([thing(5, "lower", "z")])
    assert table(migrated_uri, "latest") == [(NOON + 5, "x", "new", "b")]
    engine.count([thing(6, "newer")])
    assert table(migrated_uri, "latest") == [(NOON + 6, "x", "newer", "")]


class Everything(Aggregate):
    name = "everything"
    summary = "every merge rule"
    description = "For tests."
    keys = (Key("who", role="user"), Key("number", type=int))
    values = (
        Value("sum"),
        Value("least", "smallest", float),
        Value("most", "largest", str),
        Value("last", "newest", str),
    )
    resolutions = (timedelta(hours=1), timedelta(days=1), timedelta(weeks=1))

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in message.msg["rows"]]


def test_every_merge_rule(open_engine: Opener, migrated_uri: str) -> None:
    engine = open_engine(Everything)
    engine.count(
        [
            message(msg={"rows": [["a", 1, 2, 0.5, "m", "first"]]}),
            message(timestamp=NOON + 2, msg={"rows": [["a", 1, 3, 1.5, "z", "third"]]}),
        ]
    )
    engine.count(
        [
            message(timestamp=NOON + 1, msg={"rows": [["a", 1, -1, -0.5, "b", "second"]]}),
            message(timestamp=NOON + 4000, msg={"rows": [["a", 1, 1, 9.0, "zz", "fourth"]]}),
            message(timestamp=NOON + 1, msg={"rows": [["a", 2, 1, 1.0, "q", "other"]]}),
        ]
    )
    noon = int(NOON)
    assert table(migrated_uri, "everything_1h") == [
        (noon, "a", 1, 4, -0.5, "z", "third", NOON + 2),
        (noon, "a", 2, 1, 1.0, "q", "other", NOON + 1),
        (noon + 3600, "a", 1, 1, 9.0, "zz", "fourth", NOON + 4000),
    ]
    # 2023-11-13 was a Monday.
    monday = MIDNIGHT - 2 * DAY
    assert table(migrated_uri, "everything_7d") == [
        (monday, "a", 1, 5, -0.5, "zz", "fourth", NOON + 4000),
        (monday, "a", 2, 1, 1.0, "q", "other", NOON + 1),
    ]


def test_a_message_that_a_plugin_cannot_take_is_rejected_for_it_alone(
    open_engine: Opener, migrated_uri: str
) -> None:
    class Other(Everything):
        name = "other"

    engine = open_engine(Everything, Latest)
    bad = [
        message(msg={}),
        message(msg={"rows": [["a", 1, 1, 1.0, "x", "y"], ["a", 1, "one", 1.0, "x", "y"]]}),
        message(msg={"rows": [["a", None, 1, 1.0, "x", "y"]]}),
        message(msg={"rows": [["a"]]}),
    ]
    good = message(msg={"rows": [["a", 1, 1, 1.0, "x", "y"]]})
    outcome = engine.count([*bad, good, thing(1, "fine")])
    # The things are nonsense to the first plugin, and the other way round they are not asked for.
    assert len(outcome.rejections) == 5
    # Written down are the tables that lack them.
    assert {rejection.plugin for rejection in outcome.rejections} == {
        "everything-1h everything-1d everything-7d"
    }
    assert [row[3] for row in table(migrated_uri, "everything_1d")] == [1]
    assert len(table(migrated_uri, "latest")) == 1


def test_a_plugin_whose_writes_fail_hurts_only_itself(
    open_engine: Opener, migrated_uri: str
) -> None:
    engine = open_engine(Everything, Latest)
    with Database(migrated_uri).begin() as connection:
        connection.execute(text("DROP TABLE everything_1d"))
    rows = {"rows": [["a", 1, 1, 1.0, "x", "y"]], "thing": "x", "state": "s", "detail": "d"}
    outcome = engine.count([message("org.fedoraproject.prod.things.change", msg=rows)])
    assert set(outcome.failing) == {"everything-1h", "everything-1d", "everything-7d"}
    assert table(migrated_uri, "everything_1h") == []
    assert len(table(migrated_uri, "latest")) == 1
    with Database(migrated_uri).begin() as connection:
        states = dict(
            connection.execute(
                tables.plugin.select().with_only_columns(
                    tables.plugin.c.ident, tables.plugin.c.state
                )
            ).all()
        )
    assert states["everything-1d"] == "failing"
    assert states["latest"] == "active"


def test_revisions_grow_only_for_what_changed(open_engine: Opener, migrated_uri: str) -> None:
    engine = open_engine()
    engine.count([message()])
    engine.count([message()])
    engine.count([])
    revisions = {row[0]: row[1] for row in table(migrated_uri, "statscache_revision")}
    assert revisions["volume-1d"] == 2
    assert "release-engineering-event-logs" not in revisions
    assert table(migrated_uri, "statscache_lane")[0][4:6] == (2, 3)


def test_retention_deletes_old_rows_of_its_resolution_only(
    open_engine: Opener, migrated_uri: str
) -> None:
    installed = discovery.discover({})
    engine = Engine(Database(migrated_uri), installed, {"15s": timedelta(days=7)})
    engine.open()
    engine.count([message()])
    engine.prune()
    # A clock that is ahead makes nothing older.
    assert table(migrated_uri, "volume_15s") == [(int(NOON), 1)]
    engine.count([message(timestamp=NOON + 8 * 86_400)])
    engine.prune()
    assert [row[0] for row in table(migrated_uri, "volume_15s")] == [int(NOON) + 8 * 86_400]
    assert (int(NOON), 1) in table(migrated_uri, "volume_1m")
    # A late message of that time still adds exactly one to what was kept.
    engine.count([message()])
    assert (int(NOON), 2) in table(migrated_uri, "volume_1m")
    engine.close()


class Rebellious(BasePlugin):
    """Commits in the middle of its update, and fails behind that when it is told to."""

    name = "rebellious"
    summary = "fails"
    description = "For tests."

    class model(BaseModel):  # noqa: N801
        __tablename__ = "rebellious"

    fail: ClassVar[bool] = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[Any] = []

    def process(self, message: dict[str, Any]) -> None:
        self.seen.append(message)

    def update(self, session: Any) -> None:
        for _ in self.seen:
            session.add(self.model(timestamp=datetime(2023, 1, 1)))
            session.commit()
        if self.fail:
            raise RuntimeError("told to fail")
        self.seen.clear()


def test_a_classic_plugins_commit_commits_nothing_by_itself(
    open_engine: Opener, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(Rebellious, Latest)
    monkeypatch.setattr(Rebellious, "fail", True)
    outcome = engine.count([message(), thing(1, "s")])
    assert outcome.failing == {"rebellious": "RuntimeError: told to fail"}
    assert table(migrated_uri, "rebellious") == []
    assert len(table(migrated_uri, "latest")) == 1
    # Its memory of the failed batch is gone too: nothing is counted twice.
    monkeypatch.setattr(Rebellious, "fail", False)
    engine.count([message()])
    assert len(table(migrated_uri, "rebellious")) == 1


def test_a_batch_that_fails_as_a_whole_can_be_counted_again(
    open_engine: Opener, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(Rebellious, Latest)
    batch = [message(), thing(1, "s")]

    def fail(*_: Any) -> None:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr("statscache.counting.commit.advance", fail)
        with pytest.raises(DatabaseUnavailable):
            engine.count(batch)
    for name in ("statscache_claim", "rebellious", "latest", "statscache_revision"):
        assert table(migrated_uri, name) == []
    engine.count(batch)
    assert len(table(migrated_uri, "rebellious")) == 2


def test_a_message_that_the_engine_cannot_count_is_found_and_rejected(
    open_engine: Opener, migrated_uri: str
) -> None:
    engine = open_engine()
    poison = message()
    poison.id = None  # type: ignore[assignment]
    outcome = count_messages(engine, [message(), poison, message()])
    assert outcome.counted == 2
    assert len(_rejected(migrated_uri)) == 1
    assert table(migrated_uri, "volume_1d") == [(MIDNIGHT, 2)]


def test_intake_keeps_what_cannot_be_committed(
    open_engine: Opener, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    intake = Intake(engine, batch_size=2, buffer_size=5)

    def unavailable(*_: Any) -> None:
        raise DatabaseUnavailable("gone")

    raw = {"topic": "a.b.c.d", "timestamp": 1}
    texts = [json.dumps(raw | {"msg_id": str(number)}) for number in range(8)]
    with monkeypatch.context() as patch:
        patch.setattr(engine, "commit", unavailable)
        for item in texts[:3]:
            intake.accept(item)
        intake.flush()
        for item in texts[3:]:
            intake.accept(item)
    assert len(intake) == 5
    assert table(migrated_uri, "volume_1d") == []
    intake.close()
    assert len(intake) == 0
    assert table(migrated_uri, "volume_1d") == [(0, 5)]
    (gap,) = _rejected(migrated_uri)
    assert gap.content.startswith("3 messages that arrived from")
    assert gap.reason.startswith("dropped: the buffer was full")


def _plugin_tables() -> list[Any]:
    return [dataset.model.__table__ for dataset in discovery.discover({}).datasets.values()]


def _rejected(uri: str) -> list[Any]:
    database = Database(uri)
    with database.begin() as connection:
        return list(connection.execute(tables.rejected.select()))
