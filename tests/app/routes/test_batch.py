"""Several answers in one: the same as alone, of one moment, and no error spoils the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from statscache.app import create_app
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.message import Message
from statscache.plugins.installed import discovery
from tests.support.hub import wait_until
from tests.support.messages import NOON, message


@pytest.fixture
def engine(migrated_uri: str) -> Iterator[Engine]:
    config = {"statscache.sqlalchemy.uri": migrated_uri}
    made = Engine.from_settings(Settings.from_config(config), discovery.discover(config))
    made.open()
    made.count([message(timestamp=NOON + number) for number in range(5)])
    yield made
    made.close()


@pytest.fixture
def client(engine: Engine, migrated_uri: str) -> FlaskClient:
    assert engine
    return create_app({"statscache.sqlalchemy.uri": migrated_uri}).test_client()


def batch(*addresses: str) -> str:
    return "/api/batch?" + "&".join(f"q={quote(address, safe='')}" for address in addresses)


def test_links_lead_to_where_the_question_was_asked(client: FlaskClient) -> None:
    for base in ("http://one.example", "https://other.example/stats"):
        answer = client.get(batch("/api/volume-1d?page=2"), base_url=base)
        assert answer.json["answers"][0]["link"].startswith(f"<{base}/api/volume-1d?")


def some_message() -> Message:
    return message(timestamp=NOON + 100)


def test_the_answers_are_those_that_each_would_be_alone(client: FlaskClient) -> None:
    addresses = [
        "/api/",
        "/api/volume-1d?limit=1",
        "/api/volume-by-category-1h/series?start=2023-11-15&stop=2023-11-16",
        "/api/volume-by-category-1h?category=git&category=bodhi",
        "/api/plugins/volume-1d",
        "/api/volume-1h/summary?start=2023-11-15&stop=2023-11-16",
    ]
    answer = client.get(batch(*addresses))
    assert answer.status_code == 200
    for address, found in zip(addresses, answer.json["answers"], strict=True):
        alone = client.get(address)
        assert found["q"] == address
        assert (found["status"], found["body"]) == (200, alone.json)
        assert found["etag"] == alone.headers["ETag"]


def test_one_that_cannot_be_given_does_not_spoil_the_others(client: FlaskClient) -> None:
    wrong = {
        "/api/nope": 404,
        "/api/volume-1d?start=yesterday": 400,
        "/api/volume-1d?format=csv": 400,
        "/api/volume-1d?format=ndjson&rows_per_page=all": 400,
        "/api/volume-1d?callback=f": 400,
        "/api/volume-1d/events": 400,
        "/api/batch?q=/api/": 400,
        # Escaped once more, which is none the less the same address.
        "/api/%62atch?q=/api/": 400,
        "/api/volume-1d/%65vents": 400,
        "/api/batches": 404,
        "/metrics": 400,
        "http://example.org/": 400,
        "/api/volume-1d?x=%ff": 400,
        "/api/\u20ac?\u20ac=\u20ac": 404,
        "": 400,
    }
    answers = client.get(batch("/api/volume-1d", *wrong)).json["answers"]
    assert answers[0]["body"][0]["volume"] == 5
    assert [found["status"] for found in answers[1:]] == list(wrong.values())
    assert all(found["body"]["detail"] for found in answers[1:])


def test_there_is_a_limit(client: FlaskClient) -> None:
    assert client.get(batch(*["/api/"] * 20)).status_code == 200
    refused = client.get(batch(*["/api/"] * 21))
    assert (refused.status_code, refused.json["parameter"]) == (400, "q")
    assert client.get("/api/batch").json["parameter"] == "q"


def test_nothing_is_sent_again_until_one_of_them_changes(
    client: FlaskClient, engine: Engine
) -> None:
    address = batch("/api/volume-1d", "/api/volume-1h/series?start=2023-11-15&stop=2023-11-16")
    tag = client.get(address).headers["ETag"]
    same = client.get(address, headers={"If-None-Match": tag})
    assert (same.status_code, same.data) == (304, b"")
    engine.count([some_message()])

    def ask() -> Any:
        return client.get(address, headers={"If-None-Match": tag})

    # PostgreSQL announces a commit within a millisecond or so.
    wait_until(lambda: ask().status_code == 200, "the change is seen")
    changed = ask()
    assert changed.headers["ETag"] != tag
    assert changed.json["answers"][0]["body"][0]["volume"] == 6
