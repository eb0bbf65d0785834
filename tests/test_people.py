"""People who are to appear nowhere, and accounts that are no people."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from statscache.app import create_app
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.errors import ConfigurationError
from statscache.message import Message
from statscache.people import People
from statscache.plugins import Aggregate, Key, Value
from statscache.plugins.aggregate import Aggregate as AnyAggregate
from statscache.plugins.installed import discovery
from tests.support.databases import table
from tests.support.messages import NOON, message
from tests.support.routes import ROUTES

HIDDEN = "ralph"
NAME = re.compile(rf"(?<![a-z0-9_]){HIDDEN}(?![a-z0-9_])", re.IGNORECASE)


def commit(user: str, repo: str = "datanommer", **more: Any) -> Message:
    body = {"commit": {"username": user, "repo": repo, "stats": {"files": {}}}}
    return message(msg=body, **more)


def fork(owner: str) -> Message:
    return message(
        "io.pagure.prod.pagure.issue.new",
        msg={"agent": "toshio", "project": {"name": "x", "parent": {}, "user": {"name": owner}}},
    )


MESSAGES = [
    commit("ralph"),
    commit("Ralph", timestamp=NOON + 90),
    commit("ralphbean"),
    commit("toshio"),
    commit("bodhi"),
    fork("ralph"),
    fork("ralphbean"),
    message("io.pagure.prod.pagure.issue.new", msg={"agent": "ralph", "project": {"name": "y"}}),
]


def configured(uri: str, **more: Any) -> dict[str, Any]:
    keys = {f"statscache.people.{name}": value for name, value in more.items()}
    return {"statscache.sqlalchemy.uri": uri} | keys


def count(config: dict[str, Any], messages: list[Message] = MESSAGES) -> None:
    engine = Engine.from_settings(Settings.from_config(config), discovery.discover(config))
    engine.open()
    engine.count(messages)
    engine.close()


def addresses(config: dict[str, Any]) -> list[str]:
    """Every route of every ident, with each of its formats, and with the name asked for."""
    installed = discovery.discover(config)
    found = []
    for route in ROUTES:
        if "events" in route.rule:
            continue
        for ident, dataset in installed.datasets.items():
            if ident.endswith(("-15s", "-1m", "-15m", "-1h")):
                continue  # as the days
            plugin = dataset.plugin
            keys = [key.name for key in plugin.keys] if isinstance(plugin, AnyAggregate) else []
            for key in keys or [""]:
                rule = route.rule.replace("<ident>", ident).replace("<column>", key)
                query = [f"format={name}" for name in route.offered] if route.offered[1:] else [""]
                names = {parameter.name for parameter in route.parameters}
                if "by" in names and key:
                    query += [f"by={key}", f"by={key}&top=5"]
                if "start" in names:
                    query = [f"{part}&start={NOON - 99_999}&stop={NOON + 99_999}" for part in query]
                found += [f"{rule}?{part}".rstrip("?").replace("?&", "?") for part in query]
    return sorted(set(found))


@pytest.mark.parametrize(
    ("is_stored", "backend"), [(True, "sqlite"), (False, "postgresql")], indirect=["backend"]
)
def test_a_hidden_name_is_nowhere(migrated_uri: str, *, is_stored: bool) -> None:
    """Whether it was stored before it was hidden, or never."""
    hiding = configured(migrated_uri, hidden=[HIDDEN.title()])
    count(configured(migrated_uri) if is_stored else hiding)
    client = create_app(hiding).test_client()
    open_client = create_app(configured(migrated_uri)).test_client()
    seen = leaks = 0
    for address in addresses(hiding):
        answer = client.get(address)
        # No hub has listened here, so it is not ready.
        assert answer.status_code < 500 or address == "/readyz", (address, answer.text)
        assert not NAME.search(answer.text), (address, answer.text)
        seen += answer.status_code == 200
        leaks += bool(NAME.search(open_client.get(address).text))
    assert seen > 60
    # Without hiding the name would be in very many of them: the test finds what it looks for.
    assert (leaks > 10) is is_stored
    # Others who are called alike, and the rows of everybody, are still there.
    day = "/api/volume-by-user-1d"
    assert {row["user"] for row in client.get(day).json} == {"ralphbean", "toshio"}
    forks = client.get("/api/number-of-contribution-per-project-to-pagure.io-1d").json
    assert {row["project"] for row in forks} == {"forks/ralphbean/x", "y"}
    for asked in (HIDDEN, "Ralph", RETURNED):
        assert client.get(f"{day}?user={asked}").json == []


SOMEBODY = "toshio"
"""Whose name stands in no project, as that of an owner."""

NAMES = (SOMEBODY, "pingou")


def lists(text: str) -> list[str]:
    return [name for name in NAMES if re.search(rf"\b{name}\b", text)]


def test_where_people_are_not_listed_no_route_tells_who_there_is(migrated_uri: str) -> None:
    config = configured(migrated_uri, bots=[], lists=False)
    count(config, [*MESSAGES, commit("pingou")])
    open_client = create_app(configured(migrated_uri, bots=[])).test_client()
    client = create_app(config).test_client()
    asked = addresses(config)
    rows = "/api/volume-by-user-1d"
    asked += [f"{rows}?{query}" for query in ("not_user=ralph", "select=volume", "order=asc")]
    asked += [f"{rows}?rows_per_page=all&format={name}" for name in ("csv", "ndjson")]
    asked += [f"{rows}/series?by=user&not_user=ralph", f"{rows}/values/user?q=to"]
    asked += [f"/api/batch?q={rows}&q={rows}/top&q={rows}/series%3Fby=user"]
    refused = told = 0
    for address in asked:
        answer = client.get(address)
        assert not lists(answer.text), (address, answer.text)
        assert answer.status_code in (200, 400, 403, 404) or address == "/readyz", address
        if answer.status_code == 403:
            refused += 1
            told += bool(lists(open_client.get(address).text))
    assert refused > 20
    # Where they are listed, these do: the test finds what it looks for, and no more is refused.
    assert told > refused - 5, (told, refused)
    problem = client.get(rows).get_json(force=True)
    assert problem["parameter"] == "user"
    assert "statscache.people.lists" in problem["detail"]


def test_events_come_without_the_rows_of_people_who_are_not_listed(migrated_uri: str) -> None:
    count(configured(migrated_uri))
    for more, is_told in (({"lists": False}, False), ({}, True)):
        client = create_app(configured(migrated_uri, **more)).test_client()
        for address in ("/api/volume-by-user-1d/events?rows=true", "/api/events?rows=true"):
            answer = client.get(address, multithread=True)
            text = next(answer.iter_encoded()).decode()
            answer.close()
            assert '"ident":"volume-by-user-1d"' in text
            assert bool(lists(text)) is is_told


def test_numbers_are_given_of_people_who_are_named(migrated_uri: str) -> None:
    config = configured(migrated_uri, lists=False)
    count(config)
    client = create_app(config).test_client()
    open_client = create_app(configured(migrated_uri)).test_client()
    rows = "/api/volume-by-user-1d"
    span = f"start={NOON - 99_999}&stop={NOON + 99_999}"
    for query in (
        f"?user={SOMEBODY}&user=ralph",
        f"?user={SOMEBODY}&format=csv&rows_per_page=all",
        f"/series?by=user&user={SOMEBODY}&{span}",
        f"/top?user={SOMEBODY}&{span}",
        f"/summary?user={SOMEBODY}&{span}",
        f"/summary?{span}",
        f"/badge?user={SOMEBODY}&{span}",
    ):
        answer = client.get(rows + query)
        assert answer.status_code == 200, answer.text
        assert answer.data == open_client.get(rows + query).data
    # So the documents say, and show.
    found = client.get("/openapi.json").json["paths"]
    required = {
        parameter["name"]
        for parameter in found[rows]["get"]["parameters"]
        if parameter.get("required")
    }
    assert required == {"user"}
    assert f"{rows}/values/user" not in found
    page = client.get(rows, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "whom this server does not list" in page.text
    assert "?user=somebody" in page.text


NOBODY = "nalph"
"""Nobody is called so."""

RETURNED = f"{HIDDEN}@example.org"


def like_nobody(text: str) -> str:
    """The same of nobody; somebody else's name begins so, and long labels end within it."""
    for letter, another in ((HIDDEN[0], NOBODY[0]), (HIDDEN[0].upper(), NOBODY[0].upper())):
        text = re.sub(f"{letter}(?={HIDDEN[1:-1]}({HIDDEN[-1]}(?!bean)|\u2026))", another, text)
    return text


def asking(name: str) -> list[str]:
    """Queries that name somebody, of every kind of column, on every route that has filters."""
    span = f"start={NOON - 99_999}&stop={NOON + 99_999}"
    user, project = "volume-by-user-1d", "number-of-contribution-per-project-to-pagure.io-1d"
    found = []
    for ident, column, value in (
        (user, "user", name),
        (user, "user", name.title()),
        (user, "user", f"{name}@example.org"),
        (user, "user", f"{SOMEBODY}&user={name}"),
        (project, "project", f"forks/{name}/x"),
    ):
        for tail in (
            *("?", "?format=csv&", "?format=ndjson&rows_per_page=all&", "?format=html&"),
            *(f"/summary?{span}&", f"/series?{span}&by={column}&", f"/top?{span}&by={column}&"),
            *(f"/messages?{span}&", f"/badge?{span}&"),
        ):
            found.append(f"/api/{ident}{tail}{column}={value}")
            found.append(f"/api/{ident}{tail}not_{column}={value}")
    return found


@pytest.mark.parametrize("is_stored", [True, pytest.param(False, marks=pytest.mark.long)])
def test_who_is_hidden_is_answered_like_nobody(migrated_uri: str, *, is_stored: bool) -> None:
    archive = {"statscache.datagrepper.endpoint": "https://archive.example/"}
    hiding = configured(migrated_uri, hidden=[f"{HIDDEN.title()}@fedoraproject.org"]) | archive
    count(
        configured(migrated_uri) if is_stored else hiding,
        [*MESSAGES, commit(RETURNED), commit(RETURNED.title())],
    )
    app = create_app(hiding)
    client = app.test_client()
    searched: list[tuple[str, Any]] = []
    engine = app.extensions["statscache"].service.database.database.engine

    def note(_connection: Any, _cursor: Any, text: str, parameters: Any, *_rest: Any) -> None:
        # What the hub says of itself is read again once in a while.
        if "FROM statscache_" not in text:
            searched.append((text, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    for address in asking(HIDDEN):
        # What all such answers share is kept from now on.
        client.get(like_nobody(address).replace(NOBODY, "zalph").replace(NOBODY.title(), "Zalph"))
        searched.clear()
        answer = client.get(address)
        made, values = [text for text, _ in searched], texts(searched)
        assert answer.status_code == 200, answer.text
        searched.clear()
        other = client.get(like_nobody(address))
        # The same work is done: what is looked for is what no row has, in either case.
        assert made == [text for text, _ in searched], address
        assert len(values) == len(texts(searched))
        for value, like_it in zip(values, texts(searched), strict=True):
            assert value == like_it or like_nobody(value) == f"{like_it}@", (value, like_it)
        assert like_nobody(answer.text) == other.text, address
        tagged = [name for name, _ in answer.headers]
        assert tagged == [name for name, _ in other.headers]
        for name, text in answer.headers:
            assert name == "ETag" or like_nobody(text) == other.headers[name]
        # Nor is it repeated, but for what was typed into a page, or as what a badge is of.
        if "format=html" not in address and not re.search("/badge.*project=", address):
            assert not NAME.search(answer.text), address


def texts(searched: list[tuple[str, Any]]) -> list[str]:
    """The texts among the parameters of statements."""
    found = [p.values() if isinstance(p, dict) else p or () for _, p in searched]
    return [value for values in found for value in values if isinstance(value, str)]


def test_somebody_who_has_rows_is_told_of(migrated_uri: str) -> None:
    archive = {"statscache.datagrepper.endpoint": "https://archive.example/"}
    config = configured(migrated_uri, hidden=[HIDDEN]) | archive
    count(config)
    client = create_app(config).test_client()
    span = f"start={NOON - 99_999}&stop={NOON + 99_999}"
    found = client.get(f"/api/volume-by-user-1d/messages?{span}&user={SOMEBODY}&user={NOBODY}").json
    assert f"user={SOMEBODY}&" in found["search"]
    assert NOBODY not in found["search"]
    badge = client.get(f"/api/volume-by-user-1d/badge?{span}&user={SOMEBODY}").json
    assert badge["label"] == f"volume, by user: {SOMEBODY}"


def test_what_was_stored_is_deleted_when_the_hub_starts(migrated_uri: str) -> None:
    count(configured(migrated_uri))
    before = table(migrated_uri, "statscache_revision")
    assert NAME.search(str(table(migrated_uri, "volume_by_user_1d")))
    count(configured(migrated_uri, hidden=[HIDDEN]), [])
    after = table(migrated_uri, "statscache_revision")
    engine = sa.create_engine(migrated_uri)
    names = [name for name in sa.inspect(engine).get_table_names() if name != "statscache_rejected"]
    engine.dispose()
    assert len(names) > 20
    for name in names:
        assert not NAME.search(str(table(migrated_uri, name))), name
    assert len(table(migrated_uri, "volume_by_user_1d")) == 3
    changed = {row[0] for row in after} if before != after else set()
    assert "volume-by-user-1d" in changed


def test_answers_with_another_list_have_another_tag(migrated_uri: str) -> None:
    count(configured(migrated_uri))
    tags = set()
    for more in ({}, {"hidden": [HIDDEN]}, {"hidden": [HIDDEN, "toshio"]}, {"bots": ["toshio"]}):
        client = create_app(configured(migrated_uri, **more)).test_client()
        tags.add(client.get("/api/volume-by-user-1d").headers["ETag"])
    assert len(tags) == 4


def test_bots_are_stored_and_left_out(migrated_uri: str) -> None:
    count(configured(migrated_uri))
    address = "/api/volume-by-user-1d"

    def users(**more: Any) -> set[str]:
        rows = create_app(configured(migrated_uri, **more)).test_client().get(address).json
        return {row["user"] for row in rows}

    everybody = {"ralph", "Ralph", "ralphbean", "toshio"}
    assert users() == everybody
    assert users(bots=["toshio"]) == everybody - {"toshio"} | {"bodhi"}
    assert users(bots=[]) == everybody | {"bodhi"}


class Newest(Aggregate):
    name, summary, description = "newest", "newest", "For tests."
    keys: ClassVar[tuple[Key, ...]] = (Key("package", role="package"),)
    values: ClassVar[tuple[Value, ...]] = (Value("text", "newest", str),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["package"], json.dumps(message.msg))]


def test_packages_may_be_called_like_people(database_uri: str) -> None:
    config = configured(database_uri, hidden=["python"])
    source = discovery.Source("test", "test", "1")
    installed = discovery.load([(source, lambda: Newest)], config)
    dataset = installed.datasets["newest"]
    people = People.from_config(config)
    refuse = people.refusal(dataset.plugin)  # type: ignore[arg-type]
    assert refuse is not None
    assert not refuse(("python", '{"owner": "pythonista"}'))
    assert refuse(("kernel", '{"owner": "python"}'))
    database = Database(database_uri)
    with database.begin() as connection:
        dataset.model.__table__.create(connection)
        for package, text in (("python", "x"), ("kernel", "by Python."), ("vim", "by python-sig")):
            values = {"timestamp": 1.0, "package": package, "text": text}
            connection.execute(sa.insert(dataset.model.__table__).values(values))
        assert people.purge(connection, dataset)
        assert not people.purge(connection, dataset)
    database.dispose()
    assert [row[1] for row in table(database_uri, "newest")] == ["python"]


@pytest.mark.parametrize("value", ["ralph", [""], [3], {"a": 1}])
def test_a_list_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"statscache\.people\.hidden"):
        People.from_config({"statscache.people.hidden": value})


@pytest.mark.parametrize("key", ["lists", "rankings"])
def test_a_switch_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"statscache\.people\.{key} must be True"):
        People.from_config({f"statscache.people.{key}": "off"})
