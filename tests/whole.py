"""The API of all the plugins, on what the real engine has counted of real messages."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient

from statscache.app import build_app
from statscache.config import Settings
from statscache.database import Database
from statscache.engine import Engine
from statscache.message import Message
from statscache.plugins import discovery
from statscache.plugins.discovery import Installed
from tests.conftest import NOON, message
from tests.hub import DISTRIBUTION

NOW = NOON + 3_600
"""What the application takes for the present."""

_HALF_A_DAY = 43_200


@dataclass
class Whole:
    """An application of everything that is installed, with rows in every table.

    Attributes:
        uri: of its database.
        settings: of the application.
        installed: the bundled plugins, and those of others.
    """

    uri: str
    settings: Settings
    installed: Installed
    app: flask.Flask

    @property
    def backend(self) -> str:
        return Database(self.uri).backend

    def client(self) -> FlaskClient:
        return self.app.test_client()


@contextmanager
def whole(uri: str, messages: Sequence[Message], **config: Any) -> Iterator[Whole]:
    """An application that may do all that an operator can allow; ``config`` is of the app."""
    keys = {
        "statscache.sqlalchemy.uri": uri,
        "statscache.datagrepper.endpoint": "https://archive.example.org/datagrepper/",
        "statscache.people.rankings": True,
    } | {f"statscache.app.{name}": value for name, value in config.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DISTRIBUTION)
        installed = discovery.discover(keys)
    engine = Engine(Database(uri), installed)
    engine.open()
    engine.beat(NOW - 3 * _HALF_A_DAY)
    # Once as they are, over many years, and once within the last hours.
    recent = [_again(one, number) for number, one in enumerate(messages)]
    edit = message("org.fedoraproject.prod.wiki.article.edit", NOON, {"title": "Main Page"})
    outcome = engine.count([*messages, *recent, edit])
    assert not outcome.failing
    engine.beat(NOW)
    settings = Settings.from_config(keys)
    app = build_app(settings, installed, clock=lambda: NOW)
    try:
        yield Whole(uri, settings, installed, app)
    finally:
        engine.close()


def _again(message: Message, number: int) -> Message:
    moment = NOON - number * 37.0 % _HALF_A_DAY
    return Message.from_fedmsg(
        dict(message.raw) | {"timestamp": moment, "msg_id": f"2023-{uuid.UUID(int=number)}"}
    )
