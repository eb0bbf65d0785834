"""For whatever watches: is the process there, the database, the hub?"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import update

from statscache.app import create_app
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database import tables
from statscache.database.connection import Database
from statscache.plugins.installed import discovery


def test_ready_when_the_hub_was_heard(migrated_uri: str) -> None:
    config = {"statscache.sqlalchemy.uri": migrated_uri}
    client = create_app(config).test_client()
    assert client.get("/healthz").json == {"status": "ok"}
    never = client.get("/readyz")
    assert never.status_code == 503
    assert "start 'statscache hub'" in never.json["checks"]["hub"]
    assert client.get("/readyz?require=database").status_code == 200
    engine = Engine.from_settings(Settings.from_config(config), discovery.discover(config))
    engine.open()
    # One that has to end before it listens says why, too.
    engine.note_end("a plugin does not end")
    assert "a plugin does not end" in client.get("/readyz").json["checks"]["hub"]
    engine.close()
    engine = Engine.from_settings(Settings.from_config(config), discovery.discover(config))
    engine.open()
    engine.beat(time.time())
    heard = client.get("/readyz")
    assert heard.status_code == 200, heard.text
    assert heard.json["checks"] == {"database": "ok", "hub": "ok"}
    assert abs(heard.json["hub_at"] - time.time()) < 30
    assert heard.headers["Cache-Control"] == "no-store"
    # It says at once that it has to end, whatever else it still does; the next one listens again.
    engine.note_end("a thread has ended")
    engine.beat(time.time())
    ended = client.get("/readyz")
    assert ended.status_code == 503
    assert ended.json["checks"]["hub"].endswith("s ago: a thread has ended")
    engine.close()
    engine = Engine.from_settings(Settings.from_config(config), discovery.discover(config))
    engine.open()
    assert client.get("/readyz").status_code == 503
    engine.beat(time.time())
    assert client.get("/readyz").status_code == 200
    with engine.transaction() as connection:
        connection.execute(update(tables.lane).values(beat_at=time.time() - 3600))
    silent = client.get("/readyz")
    assert silent.status_code == 503
    assert "silent for 3" in silent.json["checks"]["hub"]
    with engine.transaction() as connection:
        connection.execute(update(tables.lane).values(beat_at=time.time() + 2 * 86_400))
    ahead = client.get("/readyz")
    assert ahead.status_code == 503
    assert "s ahead of this one" in ahead.json["checks"]["hub"]
    engine.close()


def test_a_database_that_is_away(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'missing.db'}"
    client = create_app({"statscache.sqlalchemy.uri": uri}).test_client()
    assert client.get("/healthz").status_code == 200
    away = client.get("/readyz?require=database")
    assert away.status_code == 503
    assert "statscache db upgrade" in away.json["checks"]["database"]
    # It is not away, nor is one whose tables may not be read.
    assert away.json["checks"]["hub"] == "not known"
    # Another schema is not ready either.
    Database(uri).begin().__enter__().close()
    assert client.get("/readyz").status_code == 503
    assert client.get("/readyz?require=everything").status_code == 400
