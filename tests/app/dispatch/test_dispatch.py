"""What all routes have in common: canonical queries, ETags, the cache, compression, one moment."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import flask
import orjson
import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, text

from statscache.app.application import Application
from statscache.app.dispatch.answer_cache import AnswerCache
from statscache.app.dispatch.dispatcher import Dispatcher
from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.dispatch.route_table import RouteTable
from statscache.app.http.answer import Answer, Lifetime
from statscache.app.http.problems import Problem
from statscache.app.http.request import Request
from statscache.app.http.response import Response
from statscache.app.state import row_reader
from statscache.app.state.transaction import ReadTransaction
from statscache.database import tables
from statscache.database.connection import Database
from statscache.database.definitions import create_shadow, swap
from tests.support.api_fixture import ApiFixture, api_fixture, things
from tests.support.messages import NOON

ROWS = "/api/sizes-1h"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def api(migrated_uri: str) -> Iterator[ApiFixture]:
    with api_fixture(migrated_uri) as found:
        found.count(things(("a", 1), ("b", 2)))
        yield found


def request(path: str, query: str = "", **more: str) -> Request:
    fields = {"accept": "", "accept_encoding": ""} | more
    return Request("http", "localhost", "", path, query, **fields)


def test_what_is_kept_is_sent_without_reading_the_table(api: ApiFixture) -> None:
    first = api.client.get(ROWS)
    with api.statements() as made:
        again = api.client.get(ROWS)
        etag = {"If-None-Match": first.headers["ETag"]}
        unchanged = api.client.get(ROWS, headers=etag)
        # Another worker has not even the answer.
        other = api.worker()
    with api.statements(other) as made_there:
        elsewhere = other.test_client().get(ROWS, headers=etag)
    assert (again.data, dict(again.headers)) == (first.data, dict(first.headers))
    for answer in (unchanged, elsewhere):
        assert (answer.status_code, answer.data) == (304, b"")
        assert answer.headers["ETag"] == first.headers["ETag"]
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Accept" in answer.headers["Vary"]
    assert not [statement for statement, _ in made + made_there if "sizes_1h" in statement]


def test_what_has_changed_is_sent_anew(api: ApiFixture) -> None:
    first = api.client.get(ROWS)
    api.count(things(("a", 1)))
    second = api.client.get(ROWS, headers={"If-None-Match": first.headers["ETag"]})
    assert second.status_code == 200
    assert second.headers["ETag"] != first.headers["ETag"]
    assert second.json[1] == {"timestamp": NOON, "thing": "a", "size": 1, "volume": 2}
    # Nothing else has.
    log = api.client.get("/api/log").headers["ETag"]
    api.count(things(at=NOON + 7200))
    assert api.client.get("/api/log").headers["ETag"] == log


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("{}", 304),
        ("W/{}", 304),
        ('"other", {}', 304),
        ('"other",{},"more"', 304),
        ("*", 304),
        ('"other"', 200),
        ("", 200),
        ("nonsense", 200),
        ('"' + "x" * 5_000 + '"', 200),
    ],
)
def test_validators_in_all_their_forms(api: ApiFixture, header: str, status: int) -> None:
    etag = api.client.get(ROWS).headers["ETag"]
    for _ in range(2):
        headers = {"If-None-Match": header.format(etag)}
        assert api.client.get(ROWS, headers=headers).status_code == status
        assert api.client.head(ROWS, headers=headers).status_code == status


SAME = (
    ("?", "?order=desc", "?page=1", "?_=1", "?_=2", "?wait=0", "?&&", "?format=json"),
    ("?start=0&order=asc", "?order=asc&start=1970", "?start=1970-01-01T00:00Z&order=asc"),
    ("?thing=a&thing=b", "?thing=b&thing=a", "?thing=b&thing=a&thing=b"),
    ("?start=-2h", "?start=now-2h", "?start=-120m", "?start=2023-11-15T10:00", "?start=1700042400"),
    ("?thing=%61", "?thing=a", "?%74hing=a"),
    ("?stop=2023-11-15T13:00", "?stop=now", "?stop=2023-11-15T14:00%2b01:00"),
)


def test_queries_that_ask_the_same_share_an_answer(api: ApiFixture) -> None:
    etags = set()
    for number, queries in enumerate(SAME, 1):
        found = {api.client.get(ROWS + query).headers["ETag"] for query in queries}
        assert len(found) == 1, queries
        etags |= found
        assert len(api.app.extensions["statscache"].answers) == number
    assert len(etags) == len(SAME)


def test_relative_times_share_an_answer_within_a_step(api: ApiFixture) -> None:
    def etag(client: FlaskClient) -> str:
        return str(client.get(f"{ROWS}?start=-1d").headers["ETag"])

    clients = [api.client, api.worker().test_client()]
    api.now = NOON
    first = {etag(client) for client in clients}
    api.now = NOON + 3599.9
    assert {etag(client) for client in clients} == first
    assert len(first) == 1
    api.now = NOON + 3600
    second = {etag(client) for client in clients}
    assert len(second) == 1
    assert second != first


def test_every_representation_has_an_etag_of_its_own(api: ApiFixture) -> None:
    etags = [
        api.client.get(path, headers=headers).headers["ETag"]
        for path, headers in (
            (ROWS, {}),
            (ROWS, {"Accept": "text/csv"}),
            (ROWS, {"Accept": "application/x-ndjson"}),
            (ROWS, {"Accept-Encoding": "gzip"}),
            (f"{ROWS}?order=asc", {}),
            (f"{ROWS}?select=thing", {}),
            (f"{ROWS}?not_thing=a", {}),
            (f"{ROWS}?thing=a", {}),
            ("/api/latest-sizes", {}),
            ("/api/", {}),
        )
    ]
    assert len(set(etags)) == len(etags)
    assert all(etag.startswith('"') and etag.endswith('"') for etag in etags)


def test_another_configuration_makes_other_etags(api: ApiFixture, migrated_uri: str) -> None:
    etag = api.client.get(ROWS).headers["ETag"]
    assert api.worker().test_client().get(ROWS).headers["ETag"] == etag
    with api_fixture(migrated_uri, default_rows_per_page=1) as other:
        assert other.client.get(ROWS).headers["ETag"] != etag


def test_a_database_that_was_made_anew_makes_other_etags(api: ApiFixture) -> None:
    etag = api.client.get(ROWS).headers["ETag"]
    revision = tables.revision
    with Database(api.uri).begin() as connection:
        connection.execute(revision.update().values(changed_at=revision.c.changed_at + 1))
    assert api.worker().test_client().get(ROWS).headers["ETag"] != etag


def test_what_nobody_tells_of_is_not_kept(api: ApiFixture) -> None:
    with Database(api.uri).begin() as connection:
        connection.execute(tables.revision.delete())
    answer = api.client.get(ROWS)
    assert "ETag" not in answer.headers
    with Database(api.uri).begin() as connection:
        connection.execute(text("UPDATE sizes_1h SET volume = 77"))
    assert {row["volume"] for row in api.client.get(ROWS).json} == {77}


def test_bodies_are_compressed_where_it_is_wanted_and_worth_it(api: ApiFixture) -> None:
    api.count(things(*((f"thing {n}", n) for n in range(90))))
    plain = api.client.get(ROWS)
    assert "Content-Encoding" not in plain.headers
    for header in ("gzip", "gzip, deflate, br", "deflate, gzip;q=0.5"):
        for _ in range(2):
            answer = api.client.get(ROWS, headers={"Accept-Encoding": header})
            assert answer.headers["Content-Encoding"] == "gzip"
            assert "Accept-Encoding" in answer.headers["Vary"]
            assert int(answer.headers["Content-Length"]) == len(answer.data) < len(plain.data) / 3
            assert gzip.decompress(answer.data) == plain.data
    for header in ("identity", "br", "gzip;q=0", "x-gzippy"):
        answer = api.client.get(ROWS, headers={"Accept-Encoding": header})
        assert answer.data == plain.data
    small = api.client.get(f"{ROWS}?limit=1", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in small.headers
    assert len(small.json) == 1


def test_jsonp_is_made_from_what_is_kept(api: ApiFixture) -> None:
    answers = api.app.extensions["statscache"].answers
    plain = api.client.get(ROWS)
    for number in range(3):
        name = f"jQuery{number}.done"
        accepted = {"Accept-Encoding": "gzip", "Accept": "*/*"}
        answer = api.client.get(f"{ROWS}?callback={name}&_={number}", headers=accepted)
        assert answer.data == b"/**/" + name.encode() + b"(" + plain.data + b");"
        assert answer.content_type == "application/javascript; charset=utf-8"
        assert int(answer.headers["Content-Length"]) == len(answer.data)
    assert len(answers) == 1


def test_head_is_get_without_the_body(api: ApiFixture) -> None:
    for path in (ROWS, "/api/", f"{ROWS}?format=csv"):
        for _ in range(2):
            head, get = api.client.head(path), api.client.get(path)
            assert head.status_code == 200
            assert head.data == b""
            assert dict(head.headers) == dict(get.headers)


def test_open_ranges_are_kept_for_seconds_by_others(api: ApiFixture) -> None:
    def seconds(path: str) -> int:
        header = api.client.get(path).headers["Cache-Control"]
        kind, age = header.split(", max-age=")
        assert kind == "public"
        return int(age)

    assert seconds(ROWS) == 60
    assert seconds("/api/latest-sizes") == 5
    assert seconds(f"{ROWS}?start=0&stop=2023-11-15") == 60
    assert seconds("/api/") == 300
    # Reconciled up to the end of the last window that is in the range.
    with Database(api.uri).begin() as connection:
        connection.execute(tables.lane.update().values(history_start=0.0, watermark=NOON + 3600))
    api.count(things(("a", 1)))
    with Database(api.uri).begin() as connection:
        connection.execute(tables.lane.update().values(history_start=0.0, watermark=NOON + 3600))
    assert seconds(f"{ROWS}?stop={NOON}") == 3600
    assert seconds(f"{ROWS}?stop={NOON + 3600}") == 60
    assert seconds("/api/latest-sizes?stop=2020") == 5
    assert seconds(f"/api/log?stop={NOON}") == 5


def custom(api: ApiFixture, *routes: Route) -> Dispatcher:
    """A dispatcher of other routes, on the same service."""
    application = api.app.extensions["statscache"]
    answers = AnswerCache(application.settings.cache_bytes)
    table = RouteTable(flask.Flask(__name__), routes)
    return Dispatcher(application.service, table, answers, lambda: api.now)


def route(answer: Any, **more: Any) -> Route:
    return Route("/x/<ident>", "x", "A route.", answer, **more)


def test_what_is_wanted_at_once_is_computed_once(api: ApiFixture) -> None:
    computed: list[float] = []
    barrier = threading.Barrier(6)

    def answer(call: Call) -> Answer:
        computed.append(1)
        # As long as it takes the others to come, if they do.
        threading.Event().wait(0.5)
        return Answer({"rows": call.connection.scalar(text("SELECT count(*) FROM sizes_1h"))})

    dispatcher = custom(api, route(answer))

    def ask(_number: int) -> object:
        barrier.wait()
        response = dispatcher.respond(request("/x/sizes-1h"))
        return response.body

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(ask, range(6))) == {b'{"rows":2}'}
    assert len(computed) == 1


def test_what_takes_too_long_is_a_422(migrated_uri: str) -> None:
    endless = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT (i + 1) & 1023 FROM n) "
        "SELECT count(*) FROM n"
    )
    timeout = timedelta(milliseconds=50)
    with api_fixture(migrated_uri, statement_timeout=timeout) as api:
        api.count(things(("a", 1)))
        dispatcher = custom(api, route(lambda call: Answer(call.connection.scalar(endless))))
        for _ in range(2):
            with pytest.raises(Problem) as refused:
                dispatcher.respond(request("/x/sizes-1h"))
            assert refused.value.status == 422
            assert "narrow the range" in refused.value.detail
        # The connections are as good as before.
        assert api.client.get(ROWS).status_code == 200


def test_the_state_of_a_route_is_in_its_etag(api: ApiFixture) -> None:
    state = {"coverage": 1}
    asked: list[Any] = []

    def answer(_call: Call) -> Answer:
        asked.append(1)
        return Answer(dict(state))

    dispatcher = custom(api, route(answer, state=lambda call, snapshot: state["coverage"]))

    def etag() -> str:
        return dict(dispatcher.respond(request("/x/sizes-1h")).headers)["ETag"]

    first = etag()
    assert etag() == first
    assert len(asked) == 1
    state["coverage"] = 2
    # It is asked for when something was committed.
    api.count(things(("other", 1)))
    assert etag() != first


def test_a_clock_ends_what_is_kept(api: ApiFixture) -> None:
    dispatcher = custom(api, route(lambda call: Answer(call.now), clock=True))

    def body() -> bytes:
        response = dispatcher.respond(request("/x/sizes-1h"))
        assert isinstance(response, Response)
        return response.body

    assert body() == b"%d" % NOON
    api.now += 3599
    assert body() == b"%d" % NOON
    api.now += 1
    assert body() == b"%d" % (NOON + 3600)


def test_a_page_for_people_stands_at_the_same_address(api: ApiFixture) -> None:
    page = Route(
        "/x/<ident>",
        "x_page",
        "For people.",
        lambda call: Answer(body=f"<p>{call.dataset.ident}"),
        formats=("html",),
        scope=Scope.NOTHING,
    )
    dispatcher = custom(api, route(lambda call: Answer([1]), page=page))
    for accept, query, body in (
        (BROWSER, "", b"<p>sizes-1h"),
        ("", "format=html", b"<p>sizes-1h"),
        (BROWSER, "format=json", b"[1]"),
        (BROWSER, "callback=x", b"/**/x([1]);"),
        ("*/*", "", b"[1]"),
        ("", "", b"[1]"),
    ):
        response = dispatcher.respond(request("/x/sizes-1h", query, accept=accept))
        assert response.body == body, (accept, query)
    with pytest.raises(Problem, match="is not a parameter"):
        dispatcher.respond(request("/x/sizes-1h", "start=1", accept=BROWSER))


def test_nothing_is_kept_of_what_depends_on_everything(api: ApiFixture) -> None:
    numbers = iter(range(10))
    dispatcher = custom(
        api,
        route(lambda call: Answer(next(numbers), lifetime=Lifetime.NONE), scope=Scope.EVERYTHING),
    )
    for number in range(3):
        response = dispatcher.respond(request("/x/sizes-1h"))
        assert response.body == b"%d" % number
        headers = dict(response.headers)
        assert headers["Cache-Control"] == "no-store"
        assert "ETag" not in headers


def test_several_answers_may_be_of_one_moment(api: ApiFixture) -> None:
    application = api.app.extensions["statscache"]
    with ReadTransaction(application.service.database.begin) as transaction:
        first = application.dispatcher.respond(request(ROWS), transaction=transaction)
        api.count(things(("a", 1)))
        second = application.dispatcher.respond(request(ROWS, "order=asc"), transaction=transaction)
        assert orjson.loads(second.body) == orjson.loads(first.body)[::-1]
    third = application.dispatcher.respond(request(ROWS))
    assert third.body != first.body
    assert api.client.get(ROWS).data == third.body


def test_workers_and_the_hub_never_serve_a_mixture(api: ApiFixture) -> None:
    """An ETag stands for one body in all processes; and a batch is seen as a whole or not."""
    apps = [api.app, api.worker()]
    bodies: dict[str, bytes] = {}
    lock = threading.Lock()
    is_over = threading.Event()
    mixtures: list[Any] = []

    def read(number: int) -> int:
        client = apps[number % 2].test_client()
        newest, seen = 0, 0
        while not is_over.is_set() or seen == 0:
            answer = client.get(f"{ROWS}?select=thing,size,volume")
            volumes = {row["volume"] for row in answer.json}
            with lock:
                same = bodies.setdefault(answer.headers["ETag"], answer.data) == answer.data
            if not same or len(volumes) != 1 or min(volumes) < newest:
                mixtures.append((newest, answer.json))
            newest, seen = max(volumes), seen + 1
        return seen

    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(read, number) for number in range(4)]
        for _ in range(30):
            api.engine.count([things(("a", 1), ("b", 2))])
        is_over.set()
        assert all(done.result() for done in reading)
    assert not mixtures
    for app in apps:
        app.extensions["statscache"].revisions.confirm()
    assert {row["volume"] for row in api.client.get(ROWS).json} == {31}


def test_what_is_remembered_of_requests_is_bounded(api: ApiFixture) -> None:
    plans = api.app.extensions["statscache"].dispatcher._planned
    for query, headers in (
        ("?thing=" + "x" * 1_600, {}),
        ("", {"Accept": "text/csv, " + "x/y, " * 400}),
        ("", {"Accept-Encoding": "gzip, " + "x" * 1_600}),
    ):
        assert api.client.get(ROWS + query, headers=headers).status_code == 200
        assert len(plans) == 0
    api.client.get(ROWS)
    assert len(plans) == 1


def test_addresses_with_odd_hosts_are_escaped(api: ApiFixture) -> None:
    api.count(*(things((f"t{n}", n)) for n in range(5)))
    headers = {"Host": 'a">, <b'}
    answer = api.client.get(f"{ROWS}?rows_per_page=2&thing=%3E%22", headers=headers)
    assert answer.status_code in (200, 400)
    assert '">,' not in answer.headers.get("Link", "")
    answer = api.client.get(f"{ROWS}?rows_per_page=2", headers={"Host": "stats.example:8080"})
    assert answer.headers["Link"].startswith("<http://stats.example:8080/api/sizes-1h?")
    answer = api.client.get(f"{ROWS}?rows_per_page=2", headers={"Host": "[::1]:80"})
    assert answer.headers["Link"].startswith("<http://[::1]:80/api/")


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "path",
    [
        "/api/sizes-1h",
        f"/api/sizes-1h/series?start={NOON}&stop={NOON + 3600}",
        f"/api/batch?q=/api/sizes-1h/top%3Fby=thing%26start={NOON}%26stop={NOON + 3600}",
        "/api/sizes-1h?format=ndjson",
    ],
)
def test_a_table_that_is_replaced_is_never_read_in_part(
    api: ApiFixture, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written into the new table after the answer began cannot be seen in it."""
    monkeypatch.setattr(row_reader, "ROWS_PER_PORTION", 1)
    expected = api.client.get(path).data
    app = api.worker()
    table = api.installed.datasets["sizes-1h"].model.__table__
    writer = Database(api.uri)
    replaced: list[bool] = []

    def replace(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if replaced or "FROM sizes_1h" not in statement:
            return
        replaced.append(True)
        with writer.begin() as connection:
            create_shadow(connection, table, "shadow_of_sizes")
            connection.execute(text("INSERT INTO shadow_of_sizes SELECT * FROM sizes_1h"))
            swap(connection, table, "shadow_of_sizes")

    service: Application = app.extensions["statscache"]
    event.listen(service.service.database.database.engine, "before_cursor_execute", replace)
    assert app.test_client().get(path).data == expected
    assert replaced
    writer.dispose()
