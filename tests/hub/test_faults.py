"""Plugins and threads that fail in the real hub: they are named, and harm no other."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from statscache.app import create_app
from tests.support.commands import call
from tests.support.databases import execute, table
from tests.support.distributions import distribute, python_path
from tests.support.hub import Hub, wait_until

FAULTY = '''
import ctypes
import datetime
import queue
import re
import sys
import threading
import time

import sqlalchemy as sa

import statscache.clock
from statscache.plugins import Aggregate, BaseModel, BasePlugin, Value


class Leaving(Aggregate):
    name, summary, description = "leaving", "leaves", "Ends the program, as it believes."
    values = (Value("seen"),)

    resolutions = (datetime.timedelta(days=1),)

    def rows(self, message):
        if message.msg.get("leave"):
            sys.exit("I want to go home")
        return [(1,)]


class Sleeping(Leaving):
    name = "sleeping"

    def rows(self, message):
        if message.msg.get("sleep"):
            time.sleep(3600)
        return [(1,)]


class Backtracking(Leaving):
    name = "backtracking"

    def rows(self, message):
        if message.msg.get("backtrack"):
            # Without a break for any other thread.
            re.match("(a*)*b", "a" * 50)
        return [(1,)]


class MeddlingModel(BaseModel):
    __tablename__ = "data_meddling"


class Meddling(BasePlugin):
    name, summary, description = "meddling", "meddles", "For tests."
    model = MeddlingModel
    rolls_back = False
    ends_session = False

    def process(self, message):
        self.ends_session |= bool(message["msg"].get("end"))
        if message["msg"].get("linger"):
            time.sleep(2)
        self.rolls_back = bool(message["msg"].get("rollback"))

    def update(self, session):
        if self.rolls_back:
            session.execute(sa.text("ROLLBACK"))
        if self.ends_session:
            session.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))


class KillingModel(BaseModel):
    __tablename__ = "data_killing"


class Killing(BasePlugin):
    """Ends the thread that a message names, as nothing but a bug could."""

    name, summary, description = "killing", "kills", "For tests."
    model = KillingModel

    def process(self, message):
        if message["msg"].get("kill"):
            threading.Thread(target=kill, args=(message["msg"]["kill"],), daemon=True).start()
        if message["msg"].get("leave"):
            raise KeyboardInterrupt

    def update(self, session):
        pass


WAIT = ("_flush_when_woken", "run_until_stopped", "run", "_work", "_work_loop")


def kill(name):
    left = [thread for thread in threading.enumerate() if name in thread.name]
    while left:
        for thread in list(left):
            frame = sys._current_frames().get(thread.ident)
            # Where it waits for work: elsewhere it may have taken a lock.
            waiting = (threading.__file__, queue.__file__, statscache.clock.__file__)
            while frame is not None and frame.f_code.co_filename in waiting:
                frame = frame.f_back
            if frame is not None and frame.f_code.co_name in WAIT:
                error = ctypes.py_object(SystemExit)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), error)
                left.remove(thread)
        time.sleep(0.01)


PLUGINS = [Leaving, Sleeping, Backtracking, Meddling, Killing]
'''

LEAVES_WHEN_IMPORTED = "import sys\nsys.exit('not with me')\n"


def raw(topic: str = "org.fedoraproject.prod.git.receive", **msg: Any) -> dict[str, Any]:
    return {
        "topic": topic,
        "timestamp": time.time(),
        "msg_id": f"2026-{uuid.uuid4()}",
        "msg": msg,
    }


@contextmanager
def started(folder: Path, uri: str, config: dict[str, Any]) -> Iterator[Hub]:
    """The hub, which has found the faulty plugins."""
    plugins = distribute(folder / "plugins", "faulty", FAULTY, faulty="PLUGINS")
    distribute(plugins, "leaving", LEAVES_WHEN_IMPORTED, leaving="PLUGINS")
    with Hub(folder, uri, **config) as hub:
        hub.environment["PYTHONPATH"] = python_path([plugins])
        hub.start()
        yield hub


def counted(uri: str, name: str = "volume_1d") -> int:
    return sum(row[-1] for row in table(uri, name))


def states(uri: str) -> dict[str, str]:
    return {row[0]: row[2] for row in table(uri, "statscache_plugin")}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "thread",
    [
        "statscache-intake",
        pytest.param("statscache-catchup", marks=pytest.mark.long),
        pytest.param("PoolThread", marks=pytest.mark.long),
    ],
)
def test_a_thread_that_ends(tmp_path: Path, migrated_uri: str, thread: str) -> None:
    (tmp_path / "archive").mkdir()
    config = {
        "statscache.archive.files": [str(tmp_path / "archive")],
        "statscache.archive.interval": timedelta(seconds=1),
        "statscache.producer.frequency": timedelta(seconds=0.1),
    }
    with started(tmp_path, migrated_uri, config) as hub:
        client = create_app(hub.config).test_client()
        # What a plugin raises, whatever it is, rejects a message for that plugin.
        hub.publish(raw())
        hub.publish(raw(leave=True))
        wait_until(lambda: counted(migrated_uri) == 2, "two are counted", hub.log)
        assert counted(migrated_uri, "leaving_1d") == 1
        reasons = {row[1]: row[2] for row in table(migrated_uri, "statscache_rejected")}
        assert reasons == {
            "leaving-1d": "SystemExit: I want to go home",
            "killing": "KeyboardInterrupt: ",
        }
        assert "'leaving = leaving:PLUGINS' of leaving 1.0 is not used" in hub.log.read_text()
        wait_until(lambda: client.get("/readyz").status_code == 200, "it is ready", hub.log)
        hub.publish(raw(kill=thread))
        assert hub.process is not None
        deadline = time.monotonic() + 20
        while hub.process.poll() is None and time.monotonic() < deadline:
            hub.publish(raw())
            time.sleep(0.1)
        assert hub.process.returncode == 1
        log = hub.log.read_text()
        assert "statscache cannot go on: the thread" in log
        assert "has ended with SystemExit" in log
        assert "Traceback" in log
        ended = client.get("/readyz")
        assert ended.status_code == 503
        assert "has ended with SystemExit" in ended.json["checks"]["hub"]
        assert "s ago: the thread" in ended.json["checks"]["hub"]
        assert "the hub ended" in call(tmp_path, "status", uri=migrated_uri).stdout
        # The supervisor restarts it.
        hub.start()
        wait_until(lambda: client.get("/readyz").status_code == 200, "it is ready", hub.log)
        assert hub.stop(signal.SIGTERM) < 10
        assert hub.process.returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_plugin_that_never_comes_back(tmp_path: Path, migrated_uri: str) -> None:
    config = {
        "statscache.plugins.time_limit": timedelta(seconds=3),
        "statscache.producer.frequency": timedelta(seconds=0.1),
    }
    with started(tmp_path, migrated_uri, config) as hub:
        client = create_app(hub.config).test_client()
        # One that ends the transaction of all is refused, and quarantined; the others go on.
        hub.publish(raw(rollback=True))
        wait_until(lambda: counted(migrated_uri) == 1, "one is counted", hub.log)
        assert states(migrated_uri)["meddling"] == "failing"
        hub.publish(raw(sleep=True))
        hub.publish(raw())
        assert hub.process is not None
        assert hub.process.wait(timeout=30) == 1
        log = hub.log.read_text()
        assert "all counting waits for a plugin: sleeping-1d (for 3 s, at <Message 2026-" in log
        assert "a plugin does not end: sleeping-1d" in log
        assert "time.sleep(3600)" in log
        assert "the database has not answered" not in log
        why = client.get("/readyz").json["checks"]["hub"]
        assert "the plugin sleeping-1d does not end" in why
        # What the others had in hand is committed, and after a restart it does not hold them up.
        assert counted(migrated_uri) == 3
        hub.start()
        hub.publish(raw())
        wait_until(lambda: counted(migrated_uri) == 4, "they go on", hub.log)
        assert counted(migrated_uri, "leaving_1d") == 4
        assert counted(migrated_uri, "sleeping_1d") == 1
        assert states(migrated_uri)["sleeping-1d"] == "failing"
        assert states(migrated_uri)["leaving-1d"] == "active"
        assert hub.stop() < 10


@pytest.mark.long
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize("fault", ["end", "linger"])
def test_a_plugin_that_makes_the_server_end_the_session(
    tmp_path: Path, migrated_uri: str, fault: str
) -> None:
    name = make_url(migrated_uri).database
    execute(migrated_uri, f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '1s'")
    config = {"statscache.producer.frequency": timedelta(seconds=0.1)}
    with started(tmp_path, migrated_uri, config) as hub:
        hub.publish(raw(**{fault: True}))
        hub.publish(raw())
        wait_until(lambda: counted(migrated_uri) == 2, "the others go on", hub.log)
        assert states(migrated_uri)["meddling"] == "failing"
        assert {*states(migrated_uri).values()} == {"active", "failing"}
        status = call(tmp_path, "status", uri=migrated_uri).stdout
        assert "the connection to the database was lost in its turn, twice in a row" in status
        assert "lost in the turn of meddling" in hub.log.read_text()


@pytest.mark.long
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_plugin_that_keeps_the_interpreter_to_itself(tmp_path: Path, migrated_uri: str) -> None:
    config = {
        "statscache.plugins.time_limit": timedelta(seconds=1),
        "statscache.producer.frequency": timedelta(seconds=0.1),
    }
    with started(tmp_path, migrated_uri, config) as hub:
        hub.publish(raw(backtrack=True))
        assert hub.process is not None
        assert hub.process.wait(timeout=60) == 1
        assert 'faulty.py", line' in hub.log.read_text()
