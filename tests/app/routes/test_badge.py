"""Badges: one number, short enough for a README."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import orjson
import pytest

from statscache.app.application import build_app
from statscache.app.dispatch.dispatcher import Dispatcher
from statscache.app.http.request import Request
from statscache.app.http.response import Response
from statscache.app.routes import badge
from statscache.app.routes.badge import short
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins import Aggregate, BasePlugin, Key, ScalarModel, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from tests.support.messages import message

HOUR = 3600
DAY = 24 * HOUR


class Hits(Aggregate):
    name, summary, description = "Hits", "hits", "For tests."
    keys = (Key("place"),)
    values = (Value("hits"), Value("largest", "largest"))
    resolutions = (timedelta(hours=1), timedelta(days=1))

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["place"], message.msg["hits"], message.msg["hits"])]


class Scores(Aggregate):
    name, summary, description = "Scores", "scores", "The newest of each place."
    keys = (Key("place"),)
    values = (Value("score", "newest", float),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["place"], float(message.msg["hits"]))]


class Words(Aggregate):
    name, summary, description = "Words", "words", "The newest of each place."
    keys = (Key("place"),)
    values = (Value("word", "newest", str),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["place"], "word")]


MIDNIGHT = 20_000 * DAY
NOW = MIDNIGHT + DAY + 30 * 60
"""Half an hour after the midnight that follows."""

HITS = [
    (HOUR, "here", 1000),
    (2 * HOUR, "there", 234),
    (23 * HOUR, "here", 50),
    (DAY + 60, "here", 7),
]
"""Seconds from midnight, place, number."""


@pytest.fixture
def app(migrated_uri: str) -> flask.Flask:
    classes = (Hits, Scores, Words)
    installed = discovery.load([(Source("p = m", "d", "1"), lambda: classes)], {})
    assert not installed.broken
    engine = Engine(Database(migrated_uri), installed)
    engine.open()
    engine.beat(float(MIDNIGHT))
    engine.count(
        [
            message(timestamp=MIDNIGHT + when, msg={"place": place, "hits": number})
            for when, place, number in HITS
        ]
    )
    engine.beat(float(NOW))
    engine.close()
    return build_app(Settings.from_config({"statscache.sqlalchemy.uri": migrated_uri}), installed)


@pytest.fixture
def get(app: flask.Flask) -> Callable[..., Any]:
    client = app.test_client()

    def get(ident: str, **query: Any) -> Any:
        answer = client.get(f"/api/{ident}/badge", query_string=query)
        assert answer.status_code == 200, answer.text
        return answer.json

    return get


def test_a_badge(get: Callable[..., Any]) -> None:
    assert get("hits-1d", start=MIDNIGHT, stop=MIDNIGHT + DAY) == {
        "schemaVersion": 1,
        "label": "Hits",
        "message": "1.3k",
        "color": "blue",
        "cacheSeconds": 300,
    }


def test_filters_and_columns(get: Callable[..., Any]) -> None:
    range_ = {"start": MIDNIGHT, "stop": MIDNIGHT + DAY}
    found = get("hits-1h", **range_, place="there")
    assert (found["label"], found["message"]) == ("Hits: there", "234")
    assert get("hits-1h", **range_, not_place="there")["message"] == "1.1k"
    assert get("hits-1h", **range_, select="largest")["message"] == "1k"
    # In this range it was counted, and there was none.
    assert get("hits-1h", **range_, place="nowhere")["message"] == "0"


def test_what_nobody_knows_is_not_zero(get: Callable[..., Any]) -> None:
    found = get("hits-1d", start=MIDNIGHT - 9 * DAY, stop=MIDNIGHT - 2 * DAY)
    assert (found["message"], found["color"]) == ("unknown", "lightgrey")
    found = get("hits-1d", start=MIDNIGHT, stop=MIDNIGHT + DAY, select="largest", place="nowhere")
    assert (found["message"], found["color"]) == ("unknown", "lightgrey")


def test_by_default_it_is_the_last_bucket_that_has_ended(app: flask.Flask) -> None:
    application = app.extensions["statscache"]
    dispatcher = Dispatcher(
        application.service, application.routes, application.answers, clock=lambda: float(NOW)
    )

    def message_of(address: str) -> Any:
        path, _, query = address.partition("?")
        response = dispatcher.respond(Request("http", "localhost", "", path, query, "", ""))
        assert isinstance(response, Response)
        assert isinstance(response.body, bytes)
        return orjson.loads(response.body)["message"]

    assert message_of("/api/hits-1d/badge") == "1.3k"
    assert message_of("/api/hits-1h/badge") == "50"
    # With a start it is up to now.
    assert message_of("/api/hits-1h/badge?start=-3h") == "57"


def test_without_buckets_it_is_the_newest_row(get: Callable[..., Any]) -> None:
    assert get("scores")["message"] == "7"
    assert get("scores", place="there")["message"] == "234"
    assert get("scores", place="nowhere")["message"] == "unknown"
    assert get("scores", stop=MIDNIGHT + 3 * HOUR)["message"] == "234"


def test_without_numbers_it_is_the_date_of_the_newest_row(get: Callable[..., Any]) -> None:
    assert get("words")["message"] == "2024-10-05"
    assert get("words", place="there")["message"] == "2024-10-04"


class Windows(ScalarModel):
    __tablename__ = "badge_windows"


class Classic(BasePlugin):
    name, summary, description = "Classic", "classic", "For tests."
    interval = timedelta(hours=1)
    model = Windows


def test_windows_that_nobody_can_merge_are_not(migrated_uri: str) -> None:
    installed = discovery.load([(Source("p = m", "d", "1"), lambda: Classic)], {})
    config = {"statscache.sqlalchemy.uri": migrated_uri}
    client = build_app(Settings.from_config(config), installed).test_client()
    assert client.get("/api/classic-1h/badge").json["message"] == "unknown"
    answer = client.get("/api/classic-1h/badge?start=-7d")
    assert answer.status_code == 400
    assert answer.json["parameter"] == "start"


def test_long_labels_are_cut_off(get: Callable[..., Any]) -> None:
    label = get("scores", place="x" * 500)["label"]
    assert label == f"Scores: {'x' * (badge.LONGEST_LABEL - 9)}\u2026"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (-7, "-7"),
        (999, "999"),
        (1000, "1k"),
        (1234, "1.2k"),
        (1950, "1.9k"),
        (9949, "9.9k"),
        (9951, "10k"),
        (12_345, "12k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (-1_500_000, "-1.5M"),
        (2**63, "9.2E"),
        (10**21, "1.0e+21"),
        (-(10**40), "-1.0e+40"),
        (0.0, "0"),
        (-0.0, "0"),
        (0.123, "0.12"),
        (3.14159, "3.1"),
        (9.96, "10"),
        (42.42, "42"),
        (999.7, "1k"),
        (1e-9, "1e-09"),
        (float("inf"), None),
        (float("nan"), None),
        (None, None),
    ],
)
def test_numbers_are_short(number: float | None, text: str | None) -> None:
    assert short(number) == text
