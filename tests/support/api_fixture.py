"""The API, as it serves what a real engine has counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import flask
import sqlalchemy as sa
from flask.testing import FlaskClient

from statscache.app.application import Application, build_app
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins import Aggregate, CategorizedLogModel, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from tests.support.classics import KeepsMessages, moment_of
from tests.support.messages import NOON, message


class Sizes(Aggregate):
    """Two keys, one of each type; counted by the hour."""

    name = "sizes"
    summary = "sizes of things"
    description = "For tests."
    keys = (Key("thing"), Key("size", type=int))
    values = (Value("volume"),)
    resolutions = (timedelta(hours=1),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(thing, size, 1) for thing, size in message.msg.get("things", [])]


class Latest(Sizes):
    """The newest time of each key."""

    name = "latest sizes"
    resolutions = ()


class LogModel(CategorizedLogModel):
    __tablename__ = "served_log"

    detail: Any = sa.Column(sa.UnicodeText, nullable=True)
    weight: Any = sa.Column(sa.Float, nullable=False, default=0.5)


class Log(KeepsMessages):
    """A classic plugin: a row per thing of a message."""

    name, summary, description = "log", "a log of things", "For tests."
    model = LogModel

    def write(self, session: Any, raw: dict[str, Any]) -> None:
        for thing, size in raw["msg"].get("things", []):
            session.add(
                self.model(
                    timestamp=moment_of(raw),
                    category=thing,
                    message="text",
                    detail=f"size {size}" if size else None,
                )
            )


PLUGINS = (Sizes, Latest, Log)


class ApiFixture:
    """An application, and the engine that writes what it serves.

    Attributes:
        now: what the application takes for the present, UNIX seconds.
    """

    def __init__(self, uri: str, plugins: Iterable[type], config: dict[str, Any]) -> None:
        classes = tuple(plugins)
        self.uri = uri
        self.now = NOON
        self.installed = discovery.load([(Source("t", "t", "1"), lambda: classes)], config)
        self.settings = Settings.from_config({"statscache.sqlalchemy.uri": uri} | config)
        self.engine = Engine(Database(uri), self.installed)
        self.engine.open()
        self._apps: list[flask.Flask] = []
        self.app = self.worker()
        self.client = self.app.test_client()

    def worker(self) -> flask.Flask:
        """Another process of the API, as it were."""
        app = build_app(self.settings, self.installed, clock=lambda: self.now)
        self._apps.append(app)
        return app

    def count(self, *messages: Message) -> None:
        """Let the engine count ``messages``, as one batch, which all workers then know of."""
        self.engine.count(messages)
        for app in self._apps:
            # PostgreSQL calls within a millisecond, and tests are faster.
            app.extensions["statscache"].revisions.confirm()

    @contextmanager
    def statements(self, app: flask.Flask | None = None) -> Iterator[list[tuple[str, Any]]]:
        """The statements, with their parameters, that the application makes meanwhile."""
        made: list[tuple[str, Any]] = []

        def note(_connection: Any, _cursor: Any, text: str, parameters: Any, *_rest: Any) -> None:
            made.append((text, parameters))

        service: Application = (app or self.app).extensions["statscache"]
        sa.event.listen(service.service.database.database.engine, "before_cursor_execute", note)
        yield made
        sa.event.remove(service.service.database.database.engine, "before_cursor_execute", note)


@contextmanager
def api_fixture(uri: str, *plugins: type, **config: Any) -> Iterator[ApiFixture]:
    """An application for ``plugins``; keys of ``config`` are those of ``statscache.app``."""
    keys = {f"statscache.app.{key}": value for key, value in config.items()}
    found = ApiFixture(uri, plugins or PLUGINS, keys)
    try:
        yield found
    finally:
        found.engine.close()


def things(*pairs: tuple[str, int], at: float = NOON) -> Message:
    """A message about things and their sizes."""
    return message(timestamp=at, msg={"things": [list(pair) for pair in pairs]})


def links(answer: Any) -> dict[str, str]:
    """The header ``Link``: relation to address."""
    found = {}
    for link in filter(None, answer.headers.get("Link", "").split(", ")):
        address, relation = link.split("; rel=")
        found[relation.strip('"')] = address[1:-1]
    return found


def walk(client: FlaskClient, address: str, most: int = 1_000) -> Iterator[Any]:
    """The answers from ``address`` on, by the links to the next page."""
    for _ in range(most):
        answer = client.get(address)
        assert answer.status_code == 200, answer.data
        yield answer
        if "next" not in links(answer):
            return
        address = links(answer)["next"]
    raise AssertionError(f"more than {most} pages")
