"""A plugin with every merge rule, messages around changes of clocks, and a naive recount."""

from __future__ import annotations

import random
import zoneinfo
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from statscache.app.application import build_app
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database import tables
from statscache.database.announcements import announce
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins import (
    Aggregate,
    BasePlugin,
    CategorizedLogModel,
    CategorizedModel,
    Key,
    ScalarModel,
    Value,
)
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed, Source
from tests.support.databases import migrated
from tests.support.messages import message

HOUR, DAY = 3600, 86_400
SINCE = datetime(2010, 1, 1, tzinfo=UTC).timestamp()
UNTIL = datetime(2024, 1, 1, tzinfo=UTC).timestamp()


class Visits(Aggregate):
    name = "visits"
    summary = "visits of sites"
    description = "For tests."
    keys = (Key("site"), Key("gate", type=int), Key("user", role="user"))
    values = (
        Value("visits", "add"),
        Value("shortest", "smallest", float),
        Value("longest", "largest", float),
        Value("mood", "newest"),
        Value("note", "newest", str),
    )
    resolutions = (timedelta(minutes=15), timedelta(hours=1), timedelta(days=1))

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        body = message.msg
        seconds = float(body["seconds"])
        key = (body["site"], body["gate"], body["user"])
        return [(*key, body["visits"], seconds, seconds, body["mood"], body["note"])]


class Days(Visits):
    """Kept by the day only."""

    name = "days"
    resolutions = (timedelta(days=1),)


EDGES = (
    "2011-12-30T10:00:00Z",  # Pacific/Apia leaves out a day
    "2010-11-07T02:31:00Z",  # America/St_Johns, at one minute past midnight
    "2013-11-03T05:00:00Z",  # America/Havana, midnight comes twice
    "2018-11-04T03:00:00Z",  # America/Sao_Paulo, midnight does not come
    "2022-10-01T15:30:00Z",  # Australia/Lord_Howe, by half an hour
    "2023-04-01T15:00:00Z",
    "2023-03-26T01:00:00Z",  # Europe
    "2023-10-29T01:00:00Z",
    "2023-03-12T07:00:00Z",  # America/New_York
    "2015-08-14T15:00:00Z",  # Asia/Pyongyang, half an hour
    "2023-12-31T18:15:00Z",  # midnight in Kathmandu
)
ZONE_NAMES = (
    *("Africa/Casablanca", "America/Havana", "America/New_York", "America/Sao_Paulo"),
    *("Asia/Kathmandu", "Asia/Kolkata", "Asia/Pyongyang", "Australia/Eucla"),
    *("Australia/Lord_Howe", "Europe/Berlin", "Pacific/Apia", "Pacific/Chatham", "UTC"),
)
TIME_ZONE_NAMES = (*ZONE_NAMES, "Asia/Tokyo", "America/St_Johns")


def visits(count: int = 1500, seed: int = 0) -> list[Message]:
    """Messages around the edges, and some anywhere."""
    generator = random.Random(seed)
    found = []
    for number in range(count):
        edge = datetime.fromisoformat(generator.choice(EDGES)).timestamp()
        moment = edge + generator.choice((HOUR, DAY, 20 * DAY)) * generator.uniform(-1, 1)
        if number % 10 == 0:
            moment = generator.uniform(SINCE, UNTIL)
        if number % 7 == 0:
            # On the edges themselves.
            moment = moment // 900 * 900
        body = {
            "site": generator.choice("abcdefgh"),
            "gate": generator.randint(1, 3),
            "user": generator.choice(["kevin", "ralph", "toshio"]),
            "visits": generator.randint(1, 5),
            "seconds": generator.randint(-50, 50) / 2,
            "mood": generator.randint(-3, 3),
            "note": generator.choice("xyz"),
        }
        found.append(message("org.fedoraproject.prod.site.visit", moment, body))
    return found


def visit(moment: float, **body: Any) -> Message:
    whole = {"site": "a", "gate": 1, "user": "ralph", "visits": 1, "seconds": 1.0, "mood": 1}
    return message("org.fedoraproject.prod.site.visit", moment, whole | {"note": "x"} | body)


MERGES: dict[str, Callable[[Sequence[Message]], Any]] = {
    "visits": lambda found: sum(one.msg["visits"] for one in found),
    "shortest": lambda found: min(float(one.msg["seconds"]) for one in found),
    "longest": lambda found: max(float(one.msg["seconds"]) for one in found),
    "mood": lambda found: max((m.timestamp, m.msg["mood"], m.msg["note"]) for m in found)[1],
}
"""What the rows of some messages are merged to, by column."""


def local(moment: float, zone: str) -> datetime:
    """What a clock shows there."""
    return datetime.fromtimestamp(moment, zoneinfo.ZoneInfo(zone))


def label(moment: float, resolution: str, zone: str) -> Any:
    """What tells the bucket of ``moment`` from others, by a look at the clock."""
    now = local(moment, zone)
    match resolution:
        case "15m":
            return now.date(), now.hour, now.minute // 15, now.utcoffset()
        case "1h":
            return now.date(), now.hour, now.utcoffset()
        case "6h":
            return now.date(), now.hour // 6
        case "1d":
            return now.date()
        case "week":
            return now.isocalendar()[:2]
        case "month":
            return now.year, now.month
        case "year":
            return now.year
    raise AssertionError(resolution)


class ChartsFixture:
    """A database, what is installed, and the API on it."""

    def __init__(self, uri: str, *classes: type, **config: Any) -> None:
        self.uri = uri
        sources = [(Source("t", "t", "1"), lambda: classes)]
        self.installed: Installed = discovery.load(sources, config)
        self._epoch = datetime.fromtimestamp(SINCE, UTC).replace(tzinfo=None)
        self._config = {"statscache.sqlalchemy.uri": uri} | config

    def count(self, messages: Iterable[Message], *, has_history: bool = True) -> None:
        """Count ``messages``, as the hub would."""
        database = Database(self.uri)
        epoch = self._epoch.replace(tzinfo=UTC) if has_history else None
        engine = Engine(database, self.installed, epoch=epoch, has_history=has_history)
        engine.open()
        outcome = engine.count(list(messages))
        assert not outcome.rejections
        assert not outcome.failing
        engine.close()

    def cover(self, until: float = UNTIL, **plugin: Any) -> None:
        """Note that everything up to ``until`` agrees with the archive."""
        self.execute(update(tables.lane).values(watermark=until))
        if plugin:
            self.execute(update(tables.plugin).values(**plugin))

    def execute(self, statement: Any) -> None:
        database = Database(self.uri)
        with database.begin() as connection:
            connection.execute(statement)
            # As the hub does whenever it changes something.
            announce(connection, list(self.installed.datasets))
        database.dispose()

    def client(self) -> FlaskClient:
        app = build_app(Settings.from_config(self._config), self.installed)
        app.testing = True
        return app.test_client()


@contextmanager
def counted(
    request: pytest.FixtureRequest,
    folders: pytest.TempPathFactory,
    messages: Iterable[Message],
    *classes: type,
) -> Iterator[ChartsFixture]:
    """A database of the backend ``request.param`` that has counted ``messages``, all covered."""
    with migrated(request, request.param, folders.mktemp("charts")) as uri:
        charts = ChartsFixture(uri, *classes)
        charts.count(messages)
        charts.cover()
        yield charts


def get(client: FlaskClient, path: str, **query: Any) -> Any:
    """The JSON of an answer."""
    answer = client.get(path, query_string=query or None)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.json


def refused(client: FlaskClient, path: str, status: int = 400, **query: Any) -> dict[str, Any]:
    """The problem of an answer."""
    answer = client.get(path, query_string=query or None)
    assert answer.status_code == status, answer.get_data(as_text=True)
    assert answer.mimetype == "application/problem+json"
    problem: dict[str, Any] = answer.json
    return problem


def quarters(start: float, stop: float) -> Iterator[float]:
    """The starts of all quarters of an hour of a range."""
    moment = start // 900 * 900
    while moment < stop:
        yield moment
        moment += 900


class WeightsModel(ScalarModel):
    __tablename__ = "chart_weights"


class StarsModel(CategorizedModel):
    __tablename__ = "chart_stars"


class LogModel(CategorizedLogModel):
    __tablename__ = "chart_log"


class Weights(BasePlugin):
    """A classic plugin that writes one number per hour, at its end."""

    name, summary, description = "weights", "numbers", "For tests."
    interval = timedelta(hours=1)
    model = WeightsModel


class Stars(BasePlugin):
    """A classic plugin that writes numbers of categories, per day, at its end."""

    name, summary, description = "stars", "numbers", "For tests."
    interval = timedelta(days=1)
    model = StarsModel


class Moments(Weights):
    """A classic plugin without windows."""

    name = "moments"
    interval = None

    class model(ScalarModel):  # noqa: N801
        __tablename__ = "chart_moments"


class Log(BasePlugin):
    """A classic plugin that has no numbers."""

    name, summary, description = "log", "entries", "For tests."
    interval = timedelta(days=1)
    model = LogModel


class Latest(Visits):
    """A table of latest values."""

    name = "latest"
    resolutions = ()
