"""What was rejected is counted when its cause is fixed: once, and for no other plugin."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from typing import Any, ClassVar

import pytest

from statscache.counting.membership import rejections
from statscache.hub.intake import count_texts
from statscache.message import Message
from statscache.plugins import BaseModel, BasePlugin
from tests.support.databases import execute
from tests.support.hub_fixture import TODAY, Hits, HubFixture, Picky
from tests.support.hub_steps import lane, lanes_of, reconcile, settle
from tests.support.messages import message

NOON = TODAY - 43_200.0


class PickyModel(BaseModel):
    __tablename__ = "retry_picky"


class PickyClassic(BasePlugin):
    name, summary, description = "picky classic", "picky", "For tests."
    model = PickyModel
    cannot: ClassVar[str] = "bad"

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.seen = 0

    def process(self, message: dict[str, Any]) -> None:
        if message["msg"]["place"] == self.cannot:
            raise ValueError("no idea what that is")
        self.seen += 1

    def update(self, session: Any) -> None:
        for _ in range(self.seen):
            session.add(PickyModel(timestamp=datetime(2023, 1, 1)))
        self.seen = 0


def at(timestamp: float, place: str = "bad", **more: Any) -> Message:
    return message(timestamp=timestamp, msg={"place": place, "number": 1}, **more)


def rejected(hub_fixture: HubFixture) -> dict[str, str]:
    """By whom, to the digest."""
    return {row[1]: row[0] for row in hub_fixture.rows("statscache_rejected")}


def test_a_message_is_counted_for_the_plugin_alone_that_rejected_it(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hub_fixture.open(Hits, Picky, has_history=False)
    engine.count([at(NOON), at(NOON + 1, "good")])
    assert list(rejected(hub_fixture)) == ["picky-1h picky-1d"]
    (digest,) = rejected(hub_fixture).values()
    # The cause is still there, and it is the same message.
    assert engine.retry(digest) == "ValueError: no idea what that is"
    (row,) = hub_fixture.rows("statscache_rejected")
    assert (row[0], row[6]) == (digest, 1)
    assert hub_fixture.total("picky_1d") == 1
    monkeypatch.setattr(Picky, "cannot", "")
    assert engine.retry(digest) is None
    assert engine.retry(digest) is None
    for name in ("hits_1d", "hits_1h", "picky_1d", "picky_1h"):
        assert hub_fixture.total(name) == 2
    assert rejected(hub_fixture) == {}


def test_two_who_retry_at_once(hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = hub_fixture.open(Hits, Picky, has_history=False)
    engine.count([at(NOON + second) for second in range(10)])
    digests = [row[0] for row in hub_fixture.rows("statscache_rejected")]
    monkeypatch.setattr(Picky, "cannot", "")
    engines = [engine, hub_fixture.open(Hits, Picky, has_history=False)]
    threads = [
        threading.Thread(target=lambda one=one: [one.retry(digest) for digest in digests])
        for one in engines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub_fixture.total("picky_1d") == 10
    assert hub_fixture.total() == 10


def test_a_classic_plugin(hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = hub_fixture.open(Hits, PickyClassic, has_history=False)
    engine.count([at(NOON), at(NOON + 1, "good")])
    digest = rejected(hub_fixture)["picky-classic"]
    assert engine.retry(digest) == "ValueError: no idea what that is"
    assert len(hub_fixture.rows("retry_picky")) == 1
    monkeypatch.setattr(PickyClassic, "cannot", "")
    assert engine.retry(digest) is None
    assert engine.retry(digest) is None
    engine.count([])
    assert len(hub_fixture.rows("retry_picky")) == 2
    assert hub_fixture.total() == 2


def test_what_was_no_message(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits, has_history=False)
    raw = at(NOON, "a").raw
    count_texts(engine, [b"{", json.dumps(raw | {"timestamp": "noon"}).encode()])
    assert len(hub_fixture.rows("statscache_rejected")) == 2
    for row in hub_fixture.rows("statscache_rejected"):
        assert engine.retry(row[0]) is not None
    execute(
        hub_fixture.uri,
        f"UPDATE statscache_rejected SET content = '{json.dumps(raw)}' WHERE content <> '{{'",
    )
    counted = [row[0] for row in hub_fixture.rows("statscache_rejected") if row[3] != "{"]
    assert engine.retry(counted[0]) is None
    assert hub_fixture.total() == 1
    engine.count([Message.from_fedmsg(raw)])
    assert hub_fixture.total() == 1
    assert [row[3] for row in hub_fixture.rows("statscache_rejected")] == ["{"]


def test_what_is_cut_off_says_so(hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "LONGEST_CONTENT", 100)
    monkeypatch.setattr("statscache.counting.retry.LONGEST_CONTENT", 100)
    engine = hub_fixture.open(Picky, has_history=False)
    engine.count([at(NOON, padding="x" * 200)])
    (digest,) = rejected(hub_fixture).values()
    monkeypatch.setattr(Picky, "cannot", "")
    assert "only the first 100 characters of it were kept" in str(engine.retry(digest))
    assert hub_fixture.total("picky_1d") == 0
    assert len(rejected(hub_fixture)) == 1


def test_a_rebuild_counts_it_and_then_a_retry_does_not(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [at(NOON), at(NOON + 1, "good"), at(NOON + 2, "worse")]
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Picky)
    settle(engine, archive, NOON + 7_200)
    digest = rejected(hub_fixture)["picky-1h picky-1d"]
    # Only one of the tables is rebuilt, by code that can take it.
    monkeypatch.setattr(Picky, "cannot", "worse")
    engine.rebuild(["picky-1d"])
    assert rejected(hub_fixture) == {"picky-1h": digest}
    assert engine.retry(digest) is None
    settle(engine, archive, NOON + 7_200)
    # It rejects now what it had counted: an operator has to insist.
    assert engine.join(lane(engine, "new picky-1d").id) == []
    engine.force(["picky-1d"])
    assert engine.rebuild(["picky-1d"]) == []
    assert engine.join(lane(engine, "new picky-1d").id) == ["picky-1d"]
    assert hub_fixture.total("picky_1d") == 2
    assert hub_fixture.total("picky_1h") == 3
    monkeypatch.setattr(Picky, "cannot", "")
    for row in hub_fixture.rows("statscache_rejected"):
        assert engine.retry(row[0]) is None
    assert hub_fixture.total("picky_1d") == 3
    assert hub_fixture.total("picky_1h") == 3


def test_during_a_rebuild_it_is_counted_into_the_shadow(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [at(NOON), *(at(NOON + 60 * minute, "good") for minute in range(60))]
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Picky)
    settle(engine, archive, NOON + 7_200)
    engine.rebuild(["picky-1h", "picky-1d"])
    assert rejected(hub_fixture) == {}
    reconcile(engine, archive, NOON + 600, names=["new picky-1d"])
    (digest,) = rejected(hub_fixture).values()
    monkeypatch.setattr(Picky, "cannot", "")
    assert engine.retry(digest) is None
    settle(engine, archive, NOON + 7_200)
    assert engine.join(lane(engine, "new picky-1d").id)
    assert hub_fixture.total("picky_1d") == 61
    assert hub_fixture.total("picky_1h") == 61


def test_a_batch_that_comes_again_leaves_no_rejections_behind(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writes failed: its messages come again from the archive, for which no retry may count."""
    found = [at(NOON), at(NOON + 1, "good")]
    archive = hub_fixture.archive(found)
    engine = hub_fixture.open(Hits, Picky)
    execute(hub_fixture.uri, "ALTER TABLE picky_1h RENAME TO hidden")
    settle(engine, archive, NOON + 7_200)
    for _ in range(2):
        # In the lane that all share, and in one of its own.
        assert {each.name for each in lanes_of(engine)} == {"main", "quarantine picky-1h"}
        assert rejected(hub_fixture) == {}
        hub_fixture.let_lanes_rest()
        settle(engine, archive, NOON + 7_200)
    execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO picky_1h")
    hub_fixture.let_lanes_rest()
    settle(engine, archive, NOON + 7_200)
    assert engine.join(lane(engine, "quarantine picky-1h").id)
    monkeypatch.setattr(Picky, "cannot", "")
    (digest,) = rejected(hub_fixture).values()
    assert engine.retry(digest) is None
    assert hub_fixture.total("picky_1d") == 2
    assert hub_fixture.total("picky_1h") == 2


def test_of_a_plugin_that_is_not_there(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hub_fixture.open(Hits, Picky, has_history=False)
    engine.count([at(NOON)])
    (digest,) = rejected(hub_fixture).values()
    without = hub_fixture.open(Hits, has_history=False)
    assert "not installed" in str(without.retry(digest))
    monkeypatch.setattr(Picky, "cannot", "")
    # One of its resolutions is gone for good.
    monkeypatch.setattr(Picky, "resolutions", Picky.resolutions[1:])
    engine = hub_fixture.open(Hits, Picky, has_history=False)
    assert "not installed" in str(engine.retry(digest))
    assert list(rejected(hub_fixture)) == ["picky-1h"]
    assert hub_fixture.total("picky_1d") == 1
    assert "not installed" in str(engine.retry(digest))
    assert hub_fixture.total("picky_1d") == 1


def test_a_write_that_fails_leaves_the_rejection(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hub_fixture.open(Hits, Picky, has_history=False)
    engine.count([at(NOON)])
    (digest,) = rejected(hub_fixture).values()
    monkeypatch.setattr(Picky, "cannot", "")
    execute(hub_fixture.uri, "ALTER TABLE picky_1d RENAME TO hidden")
    assert engine.retry(digest) is not None
    execute(hub_fixture.uri, "ALTER TABLE hidden RENAME TO picky_1d")
    assert hub_fixture.total("picky_1h") == 0
    assert engine.retry(digest) is None
    assert (hub_fixture.total("picky_1h"), hub_fixture.total("picky_1d")) == (1, 1)


def test_a_rejected_message_that_json_cannot_hold(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits, Picky, has_history=False)
    big = {"place": "bad", "number": 2**70, "odd": "\ud800"}
    engine.count([message(timestamp=NOON, msg=big), at(NOON + 1, "good")])
    assert hub_fixture.total("picky_1d") == 1
    assert hub_fixture.total() == 2
    assert len(rejected(hub_fixture)) == 1
