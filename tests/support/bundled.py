"""The API with all the bundled plugins, as it serves what a real engine has counted.

The messages are those of the corpus, two days of them, so that what the pages and the documents
show ("the last six hours", "October of 2015") is there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import flask
from waitress.server import create_server

from statscache.app.application import build_app
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins.installed import discovery

NOW = datetime(2015, 10, 20, 12, tzinfo=UTC).timestamp()
STEP = 600.0
"""Seconds from a message to the next one."""

CONFIG = {"statscache.datagrepper.endpoint": "https://apps.fedoraproject.org/datagrepper/"}


def recent(corpus: Sequence[Message]) -> list[Message]:
    """The messages of the corpus, as if they had been sent one by one until now."""
    first = NOW - STEP * len(corpus)
    return [
        Message.from_fedmsg(
            one.raw | {"timestamp": first + STEP * number, "msg_id": f"2015-{number:032x}"}
        )
        for number, one in enumerate(corpus)
    ]


def counted(uri: str, messages: Sequence[Message], **config: Any) -> flask.Flask:
    """The API on a database in which the engine has counted ``messages`` by all plugins."""
    keys = CONFIG | {"statscache.sqlalchemy.uri": uri} | config
    settings, installed = Settings.from_config(keys), discovery.discover(keys)
    # All is counted live; the archive is only told of.
    engine = Engine(Database(uri), installed)
    engine.open()
    engine.beat(messages[0].timestamp)
    outcome = engine.count(messages)
    assert outcome.counted == len(messages), outcome
    engine.beat(NOW)
    engine.close()
    return build_app(settings, installed, clock=lambda: NOW)


@contextmanager
def listening(app: flask.Flask, **options: Any) -> Iterator[str]:
    """Serve ``app`` on a port of its own; the address of its root."""
    server = create_server(app, host="127.0.0.1", port=0, threads=4, **options)

    def run() -> None:
        # It is closed while it waits for requests.
        with suppress(OSError):
            server.run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}{options.get('url_prefix', '')}"
    finally:
        # Browsers keep their connections open.
        for channel in [*server.active_channels.values()]:
            channel.will_close = True
        server.pull_trigger()
        server.close()
        thread.join(5)
        server.task_dispatcher.shutdown()
