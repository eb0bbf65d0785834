"""What is served while the definition of a plugin changes: the tables, as they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from sqlalchemy import event, text

from statscache.app.application import build_app
from statscache.catchup.loop import CatchUp
from statscache.config import Settings
from statscache.database.announcements import announce
from statscache.database.connection import Database
from statscache.database.definitions import create_shadow, definition_of, swap
from statscache.plugins import Aggregate, BasePlugin, CategorizedModel, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed, Source
from tests.support.hub_fixture import POLLING, TODAY, HubFixture
from tests.support.messages import message

DAY = 86_400
CONFIG = {
    "statscache.people.hidden": ["shy"],
    "statscache.datagrepper.endpoint": "http://localhost/raw",
}


class Votes(Aggregate):
    name, summary, description = "votes", "votes", "For tests."
    keys: Any = (Key("user", "user"), Key("thing"))
    values: Any = (Value("votes"),)
    resolutions = (timedelta(minutes=15), timedelta(hours=1), timedelta(days=1))

    def rows(self, message: Any) -> list[tuple[Any, ...]]:
        return [(message.msg["who"], message.msg["thing"], 1)]


class VotesRenamed(Votes):
    keys = (Key("person", "user"), Key("thing"))
    values = (Value("ballots"),)


class LatestVote(Votes):
    name = "latest vote"
    resolutions = ()


class LatestVoteRenamed(VotesRenamed):
    name = "latest vote"
    resolutions = ()


class LogModel(CategorizedModel):
    metadata = sa.MetaData()
    __tablename__ = "stored_log"


class OtherLogModel(CategorizedModel):
    metadata = sa.MetaData()
    __tablename__ = "stored_log"

    weight: Any = sa.Column(sa.Float, nullable=False)


class Log(BasePlugin):
    name, summary, description = "log", "log", "For tests."
    model: Any = LogModel
    more: Any = {}  # noqa: RUF012

    def process(self, message: dict[str, Any]) -> None:
        self.seen = [*getattr(self, "seen", []), message]

    def update(self, session: Any) -> None:
        for raw in self.__dict__.pop("seen", []):
            when = datetime.fromtimestamp(raw["timestamp"], UTC).replace(tzinfo=None)
            thing = raw["msg"]["thing"]
            session.add(self.model(timestamp=when, category=thing, scalar=1, **self.more))


class LogRenamed(Log):
    model = OtherLogModel
    more = {"weight": 0.5}  # noqa: RUF012


FORMER = (Votes, LatestVote, Log)
LATTER = (VotesRenamed, LatestVoteRenamed, LogRenamed)
MESSAGES = [
    message(timestamp=TODAY - DAY + number, msg={"who": who, "thing": thing})
    for number, (who, thing) in enumerate(
        [("ralph", "a"), ("ralph", "b"), ("shy", "a"), ("toshio", "a")]
    )
]


def load(classes: tuple[type, ...]) -> Installed:
    return discovery.load([(Source("test", "test", "1"), lambda: classes)], CONFIG)


def api(hub_fixture: HubFixture, classes: tuple[type, ...]) -> flask.Flask:
    settings = Settings.from_config({"statscache.sqlalchemy.uri": hub_fixture.uri} | CONFIG)
    return build_app(settings, load(classes))


def count(hub_fixture: HubFixture, classes: tuple[type, ...]) -> None:
    engine = hub_fixture.open(*classes)
    CatchUp(engine, hub_fixture.archive(MESSAGES), POLLING).run_until_complete()
    engine.close()
    hub_fixture.engines.remove(engine)


def addresses(who: str, count: str) -> list[str]:
    span = f"start={TODAY - DAY}&stop={TODAY}"
    return [
        f"/api/votes-1h?{who}=ralph&thing=a",
        f"/api/votes-15m?select=timestamp,{count}&format=csv",
        "/api/votes-1d?format=ndjson&rows_per_page=all",
        f"/api/votes-1h/series?{span}&by={who}&select={count}&resolution=1d",
        f"/api/votes-15m/summary?{span}&thing=a",
        f"/api/votes-1d/top?{span}&by=thing&{who}=ralph",
        "/api/votes-1d/values/thing",
        f"/api/votes-1d/messages?{who}=ralph",
        "/api/log/values/category",
        "/api/votes-1d/badge",
        "/api/votes-1d?format=html",
        f"/api/latest-vote?{who}=ralph",
        "/api/plugins/votes-1d",
        f"/api/batch?q=/api/votes-1d/top%3Fby=thing%26{span.replace('&', '%26')}&q=/api/log",
        "/openapi.json",
        "/",
    ]


def test_the_table_is_served_as_it_is_by_either_release(hub_fixture: HubFixture) -> None:
    count(hub_fixture, FORMER)
    # The hub has begun to count again: until it has finished, the former rows are served.
    hub_fixture.open(*LATTER)
    apps = [api(hub_fixture, FORMER), api(hub_fixture, LATTER)]
    for address in addresses("user", "votes"):
        answers = [app.test_client().get(address) for app in apps]
        assert [answer.status_code for answer in answers] == [200, 200], address
        assert b"shy" not in answers[1].data, address
    client = apps[1].test_client()
    assert client.get("/api/votes-1d?thing=b").json == [
        {"timestamp": TODAY - DAY, "user": "ralph", "thing": "b", "votes": 1}
    ]
    assert client.get(f"/api/votes-1h/top?by=thing&start={TODAY - DAY}").json["top"][0] == {
        "key": "a",
        "value": 2,
        "share": pytest.approx(2 / 3),
    }
    assert {tuple(row) for row in client.get("/api/log").json} == {
        ("timestamp", "category", "scalar")
    }
    assert client.get("/api/votes-1d?person=ralph").status_code == 400
    columns = client.get("/api/plugins/votes-1d").json["columns"]
    assert [column.get("role") for column in columns if column["kind"] == "key"] == ["user", None]

    count(hub_fixture, LATTER)
    for app in apps:
        app.extensions["statscache"].revisions.confirm()
    for address in addresses("person", "ballots"):
        answers = [app.test_client().get(address) for app in apps]
        assert [answer.status_code for answer in answers] == [200, 200], address
        assert b"shy" not in answers[0].data, address
    client = apps[0].test_client()
    assert client.get("/api/votes-1d?thing=b").json == [
        {"timestamp": TODAY - DAY, "person": "ralph", "thing": "b", "ballots": 1}
    ]
    assert client.get("/api/log?limit=1").json[0]["weight"] == 0.5
    assert client.get("/api/votes-1d?user=ralph").status_code == 400


class VotesModel(CategorizedModel):
    metadata = sa.MetaData()
    __tablename__ = "votes_1d"


class ClassicVotes(Log):
    """The same ident, by a plugin of the other kind."""

    name = "votes"
    interval = timedelta(days=1)
    model = VotesModel


class DailyVotes(Votes):
    resolutions = (timedelta(days=1),)


@pytest.mark.parametrize(
    ("former", "latter"), [(ClassicVotes, DailyVotes), (DailyVotes, ClassicVotes)]
)
def test_a_plugin_may_become_one_of_the_other_kind(
    hub_fixture: HubFixture, former: type, latter: type
) -> None:
    columns = {ClassicVotes: "category", DailyVotes: "thing"}
    count(hub_fixture, (former,))
    hub_fixture.open(latter)
    apps = [api(hub_fixture, (each,)) for each in (former, latter)]
    for served in (former, latter):
        if served is latter:
            count(hub_fixture, (latter,))
            for app in apps:
                app.extensions["statscache"].revisions.confirm()
        column = columns[served]
        for path in (
            f"/api/votes-1d?{column}=a",
            f"/api/votes-1d/series?start={TODAY - 2 * DAY}&stop={TODAY + DAY}&by={column}",
            "/api/votes-1d?format=html",
            "/api/plugins",
        ):
            answers = [app.test_client().get(path) for app in apps]
            assert [answer.status_code for answer in answers] == [200, 200], (path, answers[0].text)
            assert answers[0].text.count("thing") == answers[1].text.count("thing")


@pytest.mark.parametrize(
    "path",
    [
        "/api/votes-1d?thing=b",
        f"/api/votes-1d/series?start={TODAY - DAY}&stop={TODAY}",
        "/api/batch?q=/api/votes-1d%3Fthing=b",
        "/api/votes-1d?format=ndjson&rows_per_page=all",
    ],
)
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_table_that_changes_under_an_answer(hub_fixture: HubFixture, path: str) -> None:
    count(hub_fixture, FORMER)
    app = api(hub_fixture, FORMER)
    dataset = load(LATTER).datasets["votes-1d"]
    writer = Database(hub_fixture.uri)
    tried: list[bool] = []

    def replace(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if tried or "votes_1d" not in statement:
            return
        tried.append(True)
        with writer.begin() as connection:
            create_shadow(connection, dataset.model.__table__, "other_votes")
            connection.execute(text("INSERT INTO other_votes SELECT * FROM votes_1d"))
            swap(connection, dataset.model.__table__, "other_votes")
            connection.execute(
                text("UPDATE statscache_plugin SET definition = :new WHERE ident = 'votes-1d'"),
                {"new": definition_of(dataset)},
            )
            announce(connection, ["votes-1d"])

    event.listen(
        app.extensions["statscache"].service.database.database.engine,
        "before_cursor_execute",
        replace,
    )
    answer = app.test_client().get(path)
    assert answer.status_code == 200
    assert tried
    # Either is an answer, and the half of one is none.
    expected = app.test_client().get(path)
    assert answer.data == expected.data
    assert app.test_client().get("/api/votes-1d?person=ralph").status_code == 200
    writer.dispose()
