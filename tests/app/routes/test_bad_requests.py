"""Whatever is sent to whichever route: it is refused with the reason, and nothing breaks."""

from __future__ import annotations

import base64
import itertools
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import orjson
import pytest
from flask.testing import FlaskClient
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from statscache.app.dispatch.route import Route
from statscache.app.http import cursors
from statscache.app.http.parameters import LONGEST_QUERY, MOST_PAIRS, Kind, Parameter, filters_of
from statscache.app.http.response import COMMON_HEADERS
from statscache.app.routes.batch import MOST_QUERIES
from statscache.app.routes.health import READYZ
from statscache.database.connection import Database
from statscache.errors import DatabaseUnavailable
from statscache.plugins.installed.discovery import Dataset
from tests.support.databases import migrated, table
from tests.support.full_app import FullApp
from tests.support.routes import ROUTES
from tests.support.servers import Server

IDENTS = ("volume-by-user-1h", "wiki-edits-by-title-1d", "release-engineering-event-logs")
"""Of an aggregate, of a classic plugin, and of latest values, which have a layout."""

THREADS = {"wsgi.multithread": True}
"""Events are for servers whose clients can wait."""

NONSENSE = (
    *("", "+", "0", "-1", "1e400", "NaN", "inf", "-inf", "1000000000", "1000000001", "9" * 19),
    *("9" * 400, "-" + "9" * 400, "1_000", "0x10", "+1", "true", "null", "a,a", ","),
    *("%D9%A1%D9%A2", "%EF%BC%91"),  # digits of other scripts
    *("%00", "a%00b", "%ff", "%c0%80", "%ed%a0%80", "%zz", "%", "%F0%9F%90%9F", "%F4%8F%BF%BF"),
    *("x" * 2_000, "x" * 10_000, "%25" * 2_000, "a" + "%CC%81" * 300),
    *("%3Cscript%3Ealert(1)%3C/script%3E", "alert(1)//", "a.b;alert(1)", "a%0d%0aSet-Cookie:b=c"),
    *("'%3B+DROP+TABLE+volume_by_user_1h%3B--", "'+OR+''%3D'", "%22%3B--", "$1", "%25s", "{{7*7}}"),
    *("0001-01-01", "9999-12-31", "9999-12-31T23:59:59-23:59", "-999999999y-999999999M"),
    *(
        "all",
        "html",
        "user",
        "volume",
        "Asia/Kolkata",
        "../../etc/passwd",
        "..%2F..%2Fetc%2Fpasswd",
    ),
    *("//evil.example/api/volume-1d", "https://evil.example/api/", "/api/%2562atch?q=/api/"),
    *("/api/volume-1d?start=%2500", "/api/volume-by-user-1h?%25ff", "/metrics", "/api/..%2Fx"),
)
"""As the query has it, percent-escaped or not."""

HEADERS = (
    *(("Accept", value) for value in ("", ",", "*", "/", "x", "*/*;q=x", "text/html;q=-1", "a/b")),
    *(("Accept", value) for value in ("*/*;q=" + "9" * 400, "\xff\xfe", "a/b," * 500)),
    *(("Accept-Encoding", value) for value in (",", "gzip;q=x", "*;q=0", "gzip;q=inf", "\xff")),
    *(("If-None-Match", value) for value in ("", '"', "W/", "*,", '"a', '"' * 999, "\xff", "*")),
    *(("Last-Event-ID", value) for value in ("", "-", "0-0", "f" * 8 + "-" + "f" * 99, "\xff")),
    *(("Last-Event-ID", value) for value in ("00000000-" + "1." * 999 + "1", "-1", "'; --")),
    *(("Cache-Control", value) for value in ("no-cache", "\xff", "max-age=x")),
    *(("Range", value) for value in ("bytes=0-1", "bytes=9-1", "x")),
    *(("Content-Length", value) for value in ("0", "5")),
    *(("X-Forwarded-Host", value) for value in ("evil.example",)),
    *(("Origin", value) for value in ("null", "\xff", "https://evil.example")),
)


@pytest.fixture(scope="module")
def full_app(full_app: FullApp) -> Iterator[FullApp]:
    """The API; nothing in its database changes, whatever it is asked."""
    before = dump(full_app.uri)
    yield full_app
    assert dump(full_app.uri) == before


def dump(uri: str) -> dict[str, Any]:
    """All rows of all tables."""
    database = Database(uri)
    with database.begin() as connection:
        names = inspect(connection).get_table_names()
    database.dispose()
    assert len(names) > 30
    # What cannot be compared with others may be NULL.
    return {name: sorted(map(repr, table(uri, name))) for name in names}


@pytest.fixture
def client(full_app: FullApp) -> FlaskClient:
    return full_app.client()


def dataset_of(full_app: FullApp, route: Route) -> Dataset:
    """The first one that the route is for."""
    datasets = [full_app.installed.datasets[ident] for ident in IDENTS]
    return next(dataset for dataset in datasets if route.applies(dataset))


def address_of(full_app: FullApp, route: Route) -> str:
    address = route.rule
    if "<ident>" in address:
        address = address.replace("<ident>", dataset_of(full_app, route).ident)
    return address.replace("<column>", "user")


def parameters_of(full_app: FullApp, route: Route) -> list[Parameter]:
    found = [*route.all_parameters]
    if route.filterable:
        found += filters_of(dataset_of(full_app, route)).values()
    return found


def required(route: Route) -> str:
    """What every query of a route must have."""
    parameters = [one for one in route.all_parameters if one.is_required]
    return "".join(f"&{one.name}={quote(one.example or '', safe='')}" for one in parameters)


def get(client: FlaskClient, address: str, **more: Any) -> Any:
    """An answer, of which no more than the first piece is read if it does not end."""
    answer = client.get(address, environ_overrides=THREADS, **more)
    if (answer.content_type or "").startswith("text/event-stream"):
        answer.close()
    return answer


def check(answer: Any, parameter: str | None = None, *, may_be: tuple[int, ...] = ()) -> None:
    """That it is an answer, or a refusal with the reason, which names ``parameter``."""
    said = (answer.request.url[:300], answer.status)
    assert answer.status_code < 500 or answer.status_code in may_be, said
    for name, value in COMMON_HEADERS:
        assert answer.headers[name] == value, said
    if answer.status_code < 400 or answer.status_code in may_be:
        return
    assert answer.content_type == "application/problem+json", said
    assert len(answer.data) < 8_000, said
    if answer.request.method == "HEAD":
        return
    problem = orjson.loads(answer.data)
    assert problem["status"] == answer.status_code, said
    assert len(problem["detail"]) > 10, said
    if answer.status_code == 400 and parameter is not None:
        # Where a range is too long, the cure is another resolution.
        is_range = parameter in ("start", "stop") and "buckets" in problem["detail"]
        at_fault = "resolution" if is_range else parameter
        assert problem["parameter"] == at_fault, (*said, problem)
        assert at_fault in problem["detail"], (*said, problem)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_parameter_takes_any_nonsense(
    full_app: FullApp, client: FlaskClient, route: Route
) -> None:
    address = address_of(full_app, route)
    may_be = (503,) if route is READYZ else ()
    for parameter in parameters_of(full_app, route):
        rest = "" if parameter.is_required else required(route)
        # Any text can be filtered by, alike on all routes, and each is another answer.
        is_filter = parameter not in route.all_parameters and route.name != "rows"
        for nonsense in NONSENSE[:: 4 if is_filter else 1]:
            query = f"{address}?{parameter.name}={nonsense}{rest}"
            check(get(client, query), parameter.name, may_be=may_be)
        twice = get(client, f"{address}?{parameter.name}=1&{parameter.name}=2{rest}")
        check(twice, parameter.name)
        if not parameter.repeatable:
            assert twice.status_code == 400, parameter.name
        if len(parameter.name) > 1:
            # Names are told apart by their case, and by nothing that looks alike.
            for name in (parameter.name.upper(), f"{parameter.name}%00", f"{parameter.name}%5B%5D"):
                assert get(client, f"{address}?{name}=1").status_code == 400, name


@pytest.mark.parametrize(
    "route", [one for one in ROUTES if "<ident>" in one.rule], ids=lambda route: route.name
)
def test_what_has_no_answer_is_refused_alike_whatever_is_asked(
    full_app: FullApp, client: FlaskClient, route: Route
) -> None:
    for ident in IDENTS:
        dataset = full_app.installed.datasets[ident]
        if route.applies(dataset):
            continue
        address = route.rule.replace("<ident>", ident).replace("<column>", "user")
        queries = [f"{one.name}={text}" for one in route.all_parameters for text in values_of(one)]
        for query in ("", *queries):
            answer = get(client, f"{address}?{query}")
            check(answer)
            assert answer.status_code in (400, 404, 406), (address, query)
            batch = get(client, f"/api/batch?q={quote(f'{address}?{query}', safe='')}")
            (found,) = batch.json["answers"]
            assert found["status"] in (400, 404), (address, query)
            # A batch takes no other format.
            if found["status"] == answer.status_code and "format" not in query:
                assert found["body"]["detail"] == orjson.loads(answer.data)["detail"]
            if query in ("compare=previous", "compare=year"):
                assert answer.data == get(client, address).data


def values_of(parameter: Parameter) -> list[str]:
    """Values that a parameter takes, or that others take, as the query has them."""
    known = parameter.kind.schema.get("enum", []) if isinstance(parameter.kind, Kind) else []
    some = [*known, *(one for one in (parameter.example,) if one), "1", "now", "volume", "UTC"]
    return [quote(text, safe="") for text in some]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_refuses_what_it_does_not_know(
    full_app: FullApp, client: FlaskClient, route: Route
) -> None:
    address = address_of(full_app, route)
    # All routes refuse them at the same full_app.
    for nonsense in NONSENSE[::4]:
        unknown = get(client, f"{address}?{nonsense}=1")
        check(unknown)
        if unknown.status_code == 400:
            assert orjson.loads(unknown.data)["parameter"] is not None
    long = get(client, f"{address}?_={'x' * LONGEST_QUERY}")
    check(long)
    assert long.status_code == 414
    many = get(client, f"{address}?" + "&".join(["_=1"] * (MOST_PAIRS + 1)))
    check(many)
    assert many.status_code == 400


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "<" in route.rule], ids=lambda route: route.name
)
def test_every_part_of_an_address_takes_any_nonsense(
    full_app: FullApp, client: FlaskClient, route: Route
) -> None:
    for part, nonsense in itertools.product(("ident", "column"), NONSENSE):
        if f"<{part}>" not in route.rule:
            continue
        # What a query may have as it is would end an address here.
        escaped = quote(nonsense, safe="%+/")
        address = route.rule.replace(f"<{part}>", escaped)
        if part == "column":
            address = address.replace("<ident>", IDENTS[0])
        answer = get(client, address.replace("<column>", "user"))
        check(answer)
        is_there = nonsense == "user" and part == "column"
        # Some lead to another route, or to the same one with one slash less.
        leads_elsewhere = not nonsense or "/" in nonsense or answer.status_code == 308
        assert is_there or leads_elsewhere or answer.status_code == 404, address


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_takes_any_header(full_app: FullApp, client: FlaskClient, route: Route) -> None:
    address = address_of(full_app, route)
    for name, value in HEADERS:
        answer = get(client, address, headers={name: value})
        check(answer)
        is_match = name == "If-None-Match" and value == "*"
        assert answer.status_code in (200, 304 if is_match else 200, 400, 406), (name, value)
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_reads_only(full_app: FullApp, client: FlaskClient, route: Route) -> None:
    address = address_of(full_app, route) + route.example
    told, head = get(client, address), client.head(address, environ_overrides=THREADS)
    check(told)
    assert told.status_code == 200
    assert head.status_code == told.status_code
    varies = {"Content-Length"} if route.name == "metrics" else set()
    assert dict(head.headers).keys() == dict(told.headers).keys()
    assert {*head.headers} - {*told.headers} <= {(n, head.headers[n]) for n in varies}
    assert head.data == b""
    options = client.options(address)
    check(options)
    assert options.status_code == 200
    assert options.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    assert set(options.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
        refused = client.open(address, method=method, data=b"x" * 10_000)
        check(refused)
        assert refused.status_code == 405, method
        assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def forged(ident: str, *content: Any) -> str:
    """A cursor that has the right digest, which is no secret."""
    octets = orjson.dumps(content) if len(content) != 1 else content[0]
    signed = cursors._digest(octets, ident, "desc") + octets
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()


KEYS = (
    *(None, True, -1, 0, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1e308, -1e308, 0.5, "", "a\0b"),
    *("x" * 900, "\U0010ffff", [], [5], [None], ["x"], ["0001-01-01"], ["9999-12-31T23:59:59.9"]),
    *(["2015-01-01T00:00:00+23:59"], ["0001-01-01T00:00:00+23:59"], {}, {"a": 1}, [[]]),
)


@pytest.mark.parametrize("ident", IDENTS)
def test_forged_cursors_lead_nowhere(full_app: FullApp, client: FlaskClient, ident: str) -> None:
    types = full_app.service.service.datasets.last.rows[ident].key_types
    fitting: list[Any] = [
        {float: 1e9, int: 5, str: "a"}.get(type_, ["2015-01-01"]) for type_ in types
    ]
    texts = [forged(ident, b""), forged(ident, b"{}"), forged(ident, b"[1e999,1]"), "A" * 2_000]
    texts += [forged(ident, b"[" * 600 + b"]" * 600), forged(ident, b"\xff"), "=" * 9, "%00"]
    texts.append(forged(IDENTS[IDENTS.index(ident) - 1], 1, *fitting))
    for place_of_key, key in itertools.product(range(len(fitting) + 1), KEYS):
        content = [1, *fitting]
        content[place_of_key] = key
        texts.append(forged(ident, *content))
    for cursor in texts:
        for query in ("", "&rows_per_page=1000000000", "&limit=1", "&format=csv"):
            check(client.get(f"/api/{ident}?cursor={cursor}{query}"), "cursor")
    assert client.get(f"/api/{ident}?cursor={forged(ident, 1, *fitting)}").status_code == 200


def test_a_batch_takes_any_nonsense(client: FlaskClient) -> None:
    readable = [text for text in NONSENSE if is_readable(text)]
    for first in range(0, len(readable), MOST_QUERIES):
        some = readable[first : first + MOST_QUERIES]
        answer = get(client, "/api/batch?" + "&".join(f"q={text}" for text in some))
        assert answer.status_code == 200, answer.text
        for found in answer.json["answers"]:
            assert found["status"] in (200, 400, 404), found["q"]
            if found["status"] != 200:
                assert found["body"]["status"] == found["status"]
                assert len(found["body"]["detail"]) > 10


def is_readable(text: str) -> bool:
    """Whether it is a text at all, and not too long for one."""
    octets = unquote_to_bytes(text)
    return b"\0" not in octets and len(text) <= 2_000 and is_utf8(octets)


def is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


RAW = (
    *(b"/api/volume-1d?start=%zz", b"/api/%zz", b"/api/volume-1d?%", b"/api/\xff", b"/api/%ff"),
    *(b"/api/volume-1d?start=\xff", b"/api/volume-1d?a=\x01", b"/api/\0", b"//evil.example/api/"),
    *(b"http://evil.example/api/volume-1d", b"localhost:80", b"*", b"/api/../metrics", b"/api//x"),
    *(b"/static/../routes.py", b"/static/..%2f..%2froutes.py", b"/api/x%2Fseries", b"/api\\x"),
    *(b"/api/volume-1d?callback=a%0d%0aX:y", b"/api/volume-1d?rows_per_page=1&_=%0d%0aX:y"),
    *(b"/api/volume-1d?_=" + b"x" * 6_000, b"/api/" + b"x" * 100_000),
)
"""Addresses, as they are sent."""

RAW_HEADERS = (
    *(b"Accept: \xff\xfe", b"Accept: a\x01b", b"If-None-Match: \xff", b"If-None-Match: \0"),
    *(b"Host: \xff", b'Host: a">,<b', b"Last-Event-ID: \xff", b"Accept-Encoding: gzip;q=\xff"),
    *(b"Content-Length: -1", b"Content-Length: x", b"Expect: nonsense", b"Range: bytes=9-1"),
    *(b"Upgrade: websocket", b"Cookie: " + b"a=b;" * 1_000),
)


@pytest.mark.parametrize("name", ["serve", "gunicorn", "events"])
def test_servers_survive_what_no_client_sends(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    with migrated(request, "sqlite", tmp_path) as uri, Server(name, tmp_path, uri, config={}) as it:
        requests = [b"GET %b HTTP/1.1\r\nHost: localhost\r\n" % address for address in RAW]
        requests += [b"GET /api/ HTTP/1.1\r\n%b\r\n" % header for header in RAW_HEADERS]
        requests += [b"%b /api/ HTTP/1.1\r\nHost: x\r\n" % m for m in (b"BREW", b"TRACE", b"\xff")]
        for sent in (*requests, b"\x16\x03\x01\0"):
            answer = ask(it.port, sent + b"Connection: close\r\n\r\n")
            # Some hang up on what is no HTTP.
            assert re.match(rb"HTTP/1\.[01] [1-4]\d\d |$", answer), (sent[:100], answer[:200])
            assert b"\r\nX:" not in answer
            if b"problem+json" in answer:
                assert b"access-control-allow-origin: *" in answer.lower()
        # No address; a server refuses it, or does not look at what it does not need.
        answer = ask(it.port, b"GET http://[ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert re.match(rb"HTTP/1\.1 (400|200) ", answer), answer[:200]
        assert b"200 OK" in ask(it.port, b"GET http://evil.example/api/volume-1d HTTP/1.0\r\n\r\n")


def ask(port: int, sent: bytes) -> bytes:
    """What a server says until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with suppress(ConnectionError):
            connection.sendall(sent)
        pieces = []
        with suppress(ConnectionError):
            while piece := connection.recv(65_536):
                pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO volume_1d (timestamp, volume) VALUES (1, 1)",
        "UPDATE volume_1d SET volume = 1",
        "CREATE TABLE nonsense (a INTEGER)",
        "DROP TABLE volume_1d",
    ],
)
def test_the_transaction_of_an_answer_cannot_write(full_app: FullApp, statement: str) -> None:
    with (
        pytest.raises((DBAPIError, DatabaseUnavailable), match=r"(?i)read.?only"),
        full_app.service.service.database.begin() as connection,
    ):
        connection.execute(text(statement))
