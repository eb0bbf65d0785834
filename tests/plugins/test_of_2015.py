"""The contract of 2015, name by name, as the plugins, tests and WSGI files of then use it."""

from __future__ import annotations

import json
import logging
import queue
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import statscache.app
import statscache.utils
from statscache.config import URI_VARIABLE
from statscache.plugins import CategorizedModel, Future, Queue, asynchronous, threads
from tests.support.commands import call
from tests.support.configuration import configure
from tests.support.databases import table
from tests.support.datagrepper import Datagrepper
from tests.support.distributions import distribute
from tests.support.messages import NOON, message

LOOKING_UP = """
import datetime
import threading

import sqlalchemy as sa

from statscache.plugins import AsyncPlugin, BaseModel, Schedule
from statscache.plugins.schedule import Schedule as TheSame
from statscache.plugins.threads import Future, Queue, asynchronous


class Model(BaseModel):
    __tablename__ = "data_looked_up"
    user = sa.Column(sa.UnicodeText, nullable=False)


class LookUp(AsyncPlugin):
    name = "looked up"
    summary = description = "what another service says"
    interval = datetime.timedelta(days=1)
    model = Model

    def __init__(self, *args, **kwargs):
        super(LookUp, self).__init__(*args, **kwargs)
        assert Schedule is TheSame and isinstance(self.queue, Queue)
        assert self.schedule.days == 1 and self.schedule.__json__() == 86400
        self.rows = []
        self.answered = threading.Event()
        self.answered.set()

    def launch(self, session):
        assert not self.launched
        super(LookUp, self).launch(session)
        assert self.launched

    def fill(self, session):
        self.queue.dequeue().on_success(self.work)

    def process(self, message):
        now = datetime.datetime.fromtimestamp(message["timestamp"])
        assert self.schedule.time_to_fire(now=now) == datetime.timedelta(hours=12)
        if self.launched:
            self.answered.clear()
            self.queue.enqueue((self.schedule.next(now=now), message["msg"]["agent"]))

    def work(self, item):
        self.rows.append(Model(timestamp=item[0], user=item[1]))
        self.answered.set()

    def update(self, session):
        self.answered.wait(10)
        session.add_all(self.rows)
        session.commit()
        self.rows = []
"""


def test_an_asynchronous_plugin(
    tmp_path: Path, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = distribute(tmp_path / "site", "looking_up", LOOKING_UP, lookup="LookUp")
    monkeypatch.syspath_prepend(site)
    configure(tmp_path)
    raw = message(timestamp=NOON, msg={"agent": "ralph"}).raw
    (tmp_path / "a.jsonl").write_text(json.dumps(raw) + "\n")
    done = call(tmp_path, "replay", "a.jsonl", uri=migrated_uri)
    assert (done.returncode, "0 rejected" in done.stdout) == (0, True), done
    (row,) = table(migrated_uri, "data_looked_up")
    assert (str(row[1])[:19], row[2]) == ("2023-11-16 00:00:00", "ralph")


def resolved(future: Future) -> Any:
    """What a future comes to."""
    answer: queue.Queue[Any] = queue.Queue()
    future.on_success(lambda value: answer.put(("value", value)))
    future.on_failure(lambda failure: answer.put(("error", failure)))
    return answer.get(timeout=10)


def test_a_future_is_computed_in_a_thread() -> None:
    @asynchronous
    def double(number: int, *, plus: int = 0) -> tuple[int, str]:
        return 2 * number + plus, threading.current_thread().name

    kind, (number, name) = resolved(double(4, plus=1))
    assert (kind, number) == ("value", 9)
    assert name != threading.current_thread().name
    assert resolved(Future.compute(len, on_success=str)("abc")) == ("value", "3")


def test_handlers_are_called_in_their_order(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    future = Future()
    future.on_failure(seen.append)
    future.on_success(lambda value: value + 1)
    future.on_success(lambda value: seen.append(value) or 1 / 0)  # type: ignore[func-returns-value]
    future.on_success(seen.append)
    future.on_failure(lambda failure: seen.append(failure) or "mended")  # type: ignore[func-returns-value]
    future.fire(1)
    value, failure = seen
    assert value == 2
    assert isinstance(failure.error, ZeroDivisionError)
    assert failure.stack[-1].function == "<lambda>"
    assert resolved(future) == ("value", "mended")
    # It would not be noticed otherwise.
    assert "division by zero" in caplog.text


def test_a_future_is_resolved_once() -> None:
    future = Future.success(7, on_success=[str])
    assert resolved(future) == ("value", "7")
    for resolve in (lambda: future.fire(8), lambda: future.fail(ValueError("late"))):
        with pytest.raises(Future.AlreadyResolvedError):
            resolve()
    kind, failure = resolved(Future.failure(ValueError("no")))
    assert (kind, str(failure.error), failure.stack) == ("error", "no", [])
    gone = Future()
    gone.quit()
    assert isinstance(resolved(gone)[1].error, Future.CancellationError)


def test_what_fails_in_a_thread_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, threads.__name__):
        _, failure = resolved(Future.compute(int)("nonsense"))
    assert isinstance(failure.error, ValueError)
    assert "nonsense" in caplog.text


def test_a_queue_lets_nobody_wait() -> None:
    items = Queue(size=1, backlog=2)
    items.enqueue("a")
    with pytest.raises(Queue.OverflowError):
        items.enqueue("b")
    assert resolved(items.dequeue()) == ("value", "a")
    first, second = items.dequeue(), items.dequeue()
    with pytest.raises(Queue.UnderflowError):
        items.dequeue()
    # Who has quit gets nothing, and nothing is lost.
    first.quit()
    items.enqueue("c")
    assert resolved(second) == ("value", "c")
    items.join()


class Collated(CategorizedModel):
    __tablename__ = "contract_collated"


def test_rows_are_collated_by_time_and_category() -> None:
    moments = [datetime(2023, 11, 15, 12), datetime(2023, 11, 15, 13)]
    rows = [
        Collated(timestamp=moments[1], category="git", scalar=3),
        Collated(timestamp=moments[0], category="bodhi", scalar=1),
        Collated(timestamp=moments[0], category="git", scalar=2),
    ]
    assert Collated.collate(rows) == {
        NOON + 3600: {"git": 3, "bodhi": 0},
        NOON: {"git": 2, "bodhi": 1},
    }
    assert list(Collated.collate(iter(rows))) == [NOON + 3600, NOON]


def test_what_plugins_imported_from_utils(
    tmp_path: Path, datagrepper: Datagrepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configure(tmp_path, **{"statscache.datagrepper.endpoint": datagrepper.url + "raw"})
    sent = [message(timestamp=NOON + number) for number in range(250)]
    datagrepper.add(sent)
    start = datetime.fromtimestamp(NOON, UTC).replace(tzinfo=None)
    stop = datetime.fromtimestamp(NOON + 200, UTC)
    lists = list(statscache.utils.datagrep(start, stop, quantum=50))
    assert max(map(len, lists)) == 50
    assert [raw["msg_id"] for some in lists for raw in some] == [m.id for m in sent[:200]]

    uri = f"sqlite:///{tmp_path / 'models.db'}"
    statscache.utils.create_tables(uri)
    session = statscache.utils.init_model(uri)
    session.add(Collated(timestamp=start, category="git", scalar=3))
    session.commit()
    assert session.scalars(sa.select(Collated.scalar)).all() == [3]
    session.remove()

    site = distribute(
        tmp_path / "site",
        "looking_up_again",
        LOOKING_UP.replace("data_looked", "data_again"),
        lookup="LookUp",
    )
    monkeypatch.syspath_prepend(site)
    (plugin,) = statscache.utils.init_plugins({})
    assert plugin.ident == "looked-up-1d"

    class Hub:
        consumers = (object(),)

    with pytest.raises(ValueError, match="has no consumer of statscache"):
        statscache.utils.find_stats_consumer(Hub())
    StatscacheConsumer = type("StatscacheConsumer", (), {})  # noqa: N806
    Hub.consumers = (object(), consumer := StatscacheConsumer())
    assert statscache.utils.find_stats_consumer(Hub()) is consumer


def test_wsgi_files_have_the_application(
    tmp_path: Path, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URI_VARIABLE, migrated_uri)
    scope: dict[str, Any] = {}
    try:
        exec("import statscache.app\napplication = statscache.app.app", scope)
        answer = scope["application"].test_client().get("/api/")
        assert "volume-1d" in answer.json
        assert statscache.app.app is scope["application"]
    finally:
        vars(statscache.app).pop("app", None)
