"""Errors of the API: one shape, on every route, with what to do; nonsense is never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from statscache.app import create_app
from statscache.database.connection import Database
from tests.support.databases import BACKENDS, migrated, upgrade


@pytest.fixture(scope="module", params=BACKENDS)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlaskClient]:
    with migrated(request, request.param, tmp_path_factory.mktemp("errors")) as uri:
        yield create_app({"statscache.sqlalchemy.uri": uri}).test_client()


def assert_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.data
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    problem: dict[str, Any] = answer.get_json(force=True)
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert len(problem["detail"]) > 10
    return problem


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        *(
            ("start", text)
            for text in ("abc", "", "nan", "inf", "-1", "1e400", "1e15", "1_0", "\uff11")
        ),
        *(("stop", text) for text in ("abc", "-inf", "2015-13-01", "\0", "1;DROP TABLE volume_1d")),
        *(("rows_per_page", text) for text in ("0", "-1", "abc", "", "1.5", "9" * 30, "1_0")),
        *(("page", text) for text in ("0", "-1", "x", "9" * 5000, "2147483648000", "\uff11")),
        *(("limit", text) for text in ("-1", "x", "9" * 30, "nan")),
        ("order", "sideways"),
        ("order", ""),
        ("format", "xml"),
        ("callback", "alert(1)//"),
        ("callback", ""),
        ("callback", "a b"),
        ("callback", "a..b"),
        ("callback", "a\n"),
        ("callback", "<script>"),
        ("callback", "x" * 129),
        ("nonsense", "1"),
        ("x" * 10_000, "1"),
        ("\0", "1"),
    ],
)
def test_a_bad_parameter_is_named(client: FlaskClient, parameter: str, text: str) -> None:
    answer = client.get("/api/volume-1d", query_string={parameter: text})
    problem = assert_problem(answer, 400)
    assert problem["parameter"] == parameter[:80]
    assert repr(parameter[:80]) in problem["detail"]
    assert "alert(1)" not in answer.get_data(as_text=True)
    assert len(answer.data) < 2000


def test_a_parameter_given_twice(client: FlaskClient) -> None:
    problem = assert_problem(client.get("/api/volume-1d?page=1&page=2"), 400)
    assert "more than once" in problem["detail"]


def test_unknown_parameters_list_the_known_ones(client: FlaskClient) -> None:
    problem = assert_problem(client.get("/api/?start=1"), 400)
    assert problem["allowed"] == ["format", "callback", "_"]
    problem = assert_problem(client.get("/api/volume-1d?strat=1"), 400)
    assert "start" in problem["allowed"]


def test_csv_with_a_callback(client: FlaskClient) -> None:
    problem = assert_problem(client.get("/api/volume-1d?format=csv&callback=a"), 400)
    assert problem["parameter"] == "callback"


@pytest.mark.parametrize("path", ["/api/volume-1", "/api/volume-1/layout"])
def test_an_unknown_ident_suggests_near_ones(client: FlaskClient, path: str) -> None:
    problem = assert_problem(client.get(path), 404)
    assert "volume-1d" in problem["allowed"]
    assert "/api/ lists" in problem["detail"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/x/y/z", "/api/%00", "/api/" + "x" * 5000, "/api/a%2Fb", "/%ff"]
)
def test_pages_that_are_not_there(client: FlaskClient, path: str) -> None:
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/api/", "/api/volume-1d", "/api/volume-1d/layout"])
def test_nothing_can_be_changed(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method)
    assert_problem(answer, 405)
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/api/", "/api/volume-1d", "/api/volume-1d/layout"])
def test_what_cannot_be_accepted(client: FlaskClient, path: str) -> None:
    problem = assert_problem(client.get(path, headers={"Accept": "application/xml"}), 406)
    assert "application/json" in problem["allowed"]


@pytest.mark.parametrize("path", ["/api/", "/api/volume-1d", "/api/volume-1d/layout", "/api/no"])
def test_other_origins_may_ask(client: FlaskClient, path: str) -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        answer = client.open(path, method=method, headers={"Origin": "https://example.org"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "X-Link-Count" in answer.headers["Access-Control-Expose-Headers"]
    assert answer.status_code == 200
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("path", ["/api/", "/api/volume-1d", "/api/no", "/nothing"])
def test_other_origins_may_send_any_header(client: FlaskClient, path: str) -> None:
    wanted = "cache-control,content-type,if-modified-since,x-requested-with"
    asked = {
        "Origin": "https://example.org",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": wanted,
    }
    answer = client.options(path, headers=asked)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Headers"] == wanted
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    assert "Access-Control-Request-Headers" in ", ".join(answer.headers.getlist("Vary"))
    assert client.options(path).headers["Access-Control-Allow-Headers"] == "*"


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("path", "status", "shown"),
    [
        ("/nothing", 404, "There is no such page"),
        ("/api/volume-1", 404, '<a href="/api/volume-1d">volume-1d</a>'),
        ("/api/volume-1d?strat=1", 400, "<code>start</code>"),
        ("/api/volume-1d?strat=1&format=html", 400, "<code>start</code>"),
        ("/api/volume-1d/series?start=%3Cscript%3E", 400, "&lt;script&gt;"),
        ("/reference?x=1", 400, "not a parameter of this route"),
    ],
)
def test_a_person_is_shown_what_is_wrong(
    client: FlaskClient, path: str, status: int, shown: str
) -> None:
    answer = client.get(path, headers={"Accept": BROWSER})
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert shown in answer.text
    assert "<script>" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "Accept" in answer.headers["Vary"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_programs_are_told_in_their_format(client: FlaskClient) -> None:
    for accept in ("*/*", "application/json", "application/json, text/html;q=0.9", ""):
        assert_problem(client.get("/api/volume-1", headers={"Accept": accept}), 404)
    for path in ("/api/volume-1d?strat=1&format=json", "/api/volume-1d?strat=1&callback=a"):
        assert_problem(client.get(path, headers={"Accept": BROWSER}), 400)


def test_a_person_is_told_that_the_database_is_away(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'later.db'}"
    client = create_app({"statscache.sqlalchemy.uri": uri}).test_client()
    answer = client.get("/", headers={"Accept": BROWSER})
    assert (answer.status_code, answer.mimetype) == (503, "text/html")
    assert int(answer.headers["Retry-After"]) > 0
    assert "statscache db upgrade" in answer.text


def test_a_database_that_is_not_there_yet(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'later.db'}"
    client = create_app({"statscache.sqlalchemy.uri": uri}).test_client()
    answer = client.get("/api/volume-1d")
    problem = assert_problem(answer, 503)
    assert "statscache db upgrade" in problem["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert not (tmp_path / "later.db").exists()
    # What needs no table is answered all the same, and everything behind an upgrade.
    assert client.get("/api/").status_code == 200
    upgrade(uri)
    assert client.get("/api/volume-1d").json == []


def test_a_database_without_tables(database_uri: str) -> None:
    if database_uri.startswith("sqlite"):
        Database(database_uri).engine.connect().close()
    client = create_app({"statscache.sqlalchemy.uri": database_uri}).test_client()
    problem = assert_problem(client.get("/api/volume-1d"), 503)
    assert "statscache db upgrade" in problem["detail"]
    for path in ("/api/volume-1d", "/readyz", "/api/batch?q=/api/volume-1d"):
        assert_secret(client.get(path), str(make_url(database_uri).database))


def assert_secret(answer: Any, *secrets: str) -> None:
    """That strangers are not told where the database is, nor as whom it is used."""
    assert answer.status_code == 503
    assert not [secret for secret in secrets if secret in answer.text], answer.text


@pytest.mark.parametrize("path", ["/api/volume-1d", "/api/plugins", "/readyz", "/metrics"])
def test_where_the_database_is_stands_in_the_log_alone(
    path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = "postgresql://someone:secret@127.0.0.1:1/tables"
    answer = create_app({"statscache.sqlalchemy.uri": uri}).test_client().get(path)
    assert_secret(answer, "secret", "someone", "127.0.0.1", "port", "tables")
    assert "port 1 failed" in caplog.text
    assert "secret" not in caplog.text
    (tmp_path / "secret.db").write_text("no database")
    for name in ("secret.db", "secret_too.db"):
        uri = f"sqlite:///{tmp_path / name}"
        answer = create_app({"statscache.sqlalchemy.uri": uri}).test_client().get(path)
        assert answer.status_code >= 500
        assert "secret" not in answer.text


def test_the_api_cannot_write(migrated_uri: str) -> None:
    database = Database(migrated_uri, read_only=True)
    with pytest.raises(Exception, match=r"(?i)read.?only"), database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM volume_1d")


NAMES = [
    *("start", "stop", "order", "limit", "page", "rows_per_page", "callback", "format", "_"),
    *("cursor", "select", "user", "not_user", "category", "not_category", "wait"),
]
names = st.sampled_from(NAMES)
texts = (
    st.text(max_size=30)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["-7d", "now", "2015-10", "all", "csv", "ndjson", "asc", "user", "timestamp"])
)
idents = st.sampled_from(["volume-1d", "volume-by-user-1h", "release-engineering-event-logs"])


@settings(max_examples=150)
@given(
    ident=idents,
    path=st.sampled_from(["", "/layout"]),
    query=st.dictionaries(names | texts, texts, max_size=4),
)
def test_no_query_makes_a_5xx(
    client: FlaskClient, ident: str, path: str, query: dict[str, str]
) -> None:
    query = {key: value.encode("utf-8", "replace").decode() for key, value in query.items()}
    query = {key.encode("utf-8", "replace").decode(): value for key, value in query.items()}
    answer = client.get(f"/api/{ident}{path}", query_string=query)
    assert answer.status_code in (200, 400, 404)
    if answer.status_code != 200:
        assert_problem(answer, answer.status_code)
