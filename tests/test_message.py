"""Messages: what they say, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given

from statscache import about
from statscache.errors import InvalidMessage
from statscache.message import Message, decode
from tests.support.examples import JSON
from tests.support.messages import NOON, message


def test_attributes() -> None:
    raw = {
        "topic": "org.fedoraproject.prod.git.receive",
        "timestamp": 1,
        "msg_id": "2023-a",
        "msg": {"commit": {"username": "ralph", "repo": "datanommer"}},
    }
    found = Message.from_fedmsg(raw)
    assert (found.id, found.topic, found.timestamp) == ("2023-a", raw["topic"], 1.0)
    assert isinstance(found.timestamp, float)
    assert found.category == "git"
    assert found.msg is raw["msg"]
    assert found.raw is raw
    assert found.usernames == {"ralph"}
    assert found.packages == {"datanommer"}
    assert found.agent == "ralph"
    # Shared by all plugins: none may add a name for the others.
    assert isinstance(found.usernames, frozenset)
    assert isinstance(found.packages, frozenset)


def test_what_is_found_in_a_body_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = message(msg={"commit": {"username": "ralph", "repo": "datanommer"}})
    nobody = message(msg={})
    before = (found.usernames, found.packages, found.agent, nobody.agent)
    for name in ("usernames", "packages", "agent"):
        monkeypatch.delattr(about, name)
    assert (found.usernames, found.packages, found.agent, nobody.agent) == before
    assert before == ({"ralph"}, {"datanommer"}, "ralph", None)


@pytest.mark.parametrize(
    ("topic", "category"), [("a.b.c.d", "d"), ("a.b.c", ""), ("a", ""), ("a.b.c.d.e.f", "d")]
)
def test_category_is_the_fourth_token(topic: str, category: str) -> None:
    assert message(topic).category == category


@pytest.mark.parametrize("msg_id", [None, "", 17, ["x"], False])
def test_without_a_usable_id_the_content_is_the_id(msg_id: Any) -> None:
    found = Message.from_fedmsg({"topic": "a.b.c.d", "timestamp": 5, "msg_id": msg_id})
    assert found.id == found.digest == found.identity
    assert found.id.startswith("sha256:")


def test_the_digest_is_of_topic_second_and_body() -> None:
    one = message(msg={"a": 1, "b": [1, {"x": 1, "y": 2}]}, i=1, headers={}, signature="x")
    assert message(msg={"b": [1, {"y": 2, "x": 1}], "a": 1}).digest == one.digest
    assert message(msg={"a": 1, "b": [1, {"x": 1, "y": 2}]}, timestamp=NOON + 0.9).digest == (
        one.digest
    )
    assert message(msg={"a": 2}).digest != one.digest
    assert message(msg=one.msg, timestamp=NOON + 1).digest != one.digest
    assert message(msg=one.msg, topic="a.b.c.d").digest != one.digest


@given(JSON)
def test_every_body_has_a_digest(body: Any) -> None:
    found = message(msg={"body": body}, msg_id=None)
    assert found.digest == message(msg={"body": body}, msg_id="x").digest


def test_integers_beyond_64_bits_have_a_digest_too() -> None:
    assert message(msg={"a": 2**80, "b": 1}).digest == message(msg={"b": 1, "a": 2**80}).digest


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ([], "not a JSON object"),
        ({"timestamp": 1}, "no topic"),
        ({"topic": None, "timestamp": 1}, "no topic"),
        ({"topic": "a"}, "timestamp is not a number"),
        ({"topic": "a", "timestamp": "1"}, "timestamp is not a number"),
        ({"topic": "a", "timestamp": True}, "timestamp is not a number"),
        ({"topic": "a", "timestamp": float("nan")}, "not a finite"),
        ({"topic": "a", "timestamp": float("inf")}, "not a finite"),
        ({"topic": "a", "timestamp": 10**400}, "not a finite"),
        ({"topic": "a", "timestamp": -1}, "before 1970"),
        ({"topic": "a", "timestamp": time.time() + 90_000}, "in the future"),
    ],
)
def test_what_is_not_a_message(raw: Any, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        Message.from_fedmsg(raw)


def test_clocks_may_differ_a_little() -> None:
    assert Message.from_fedmsg({"topic": "a", "timestamp": time.time() + 3600})


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"a": NaN}', "nonsense"])
def test_what_is_not_json(text: str | bytes) -> None:
    with pytest.raises(InvalidMessage, match="not JSON"):
        decode(text)
