"""Parameters, filters and the selection of columns: declared, parsed strictly, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from statscache.app.http.parameters import START, TEXT, Parameter, parse, split
from statscache.app.http.problems import Problem
from statscache.plugins.columns import QUERY_PARAMETERS
from tests.support.api_fixture import ApiFixture, api_fixture, things
from tests.support.messages import NOON
from tests.support.routes import ROUTES

IDENTS = ("sizes-1h", "latest-sizes", "log")


@pytest.fixture
def api(migrated_uri: str) -> Iterator[ApiFixture]:
    with api_fixture(migrated_uri) as found:
        found.count(
            things(("a", 1), ("b", 2), at=NOON),
            things(("a", 2), ("c", -3), ("a", 0), at=NOON + 3600),
            things(('x"; DROP TABLE log --', 5), ("\U0001f41f", 6), ("", 7), at=NOON + 7200),
        )
        yield found


def found(api: ApiFixture, ident: str, **parameters: Any) -> list[tuple[Any, ...]]:
    answer = api.client.get(f"/api/{ident}", query_string=MultiDict(parameters))
    assert answer.status_code == 200, answer.data
    return sorted((row["thing"], row["size"]) for row in answer.json)


def refused(api: ApiFixture, address: str, parameter: str) -> dict[str, Any]:
    answer = api.client.get(address)
    assert answer.status_code == 400, answer.data
    problem: dict[str, Any] = answer.get_json(force=True)
    assert problem["parameter"] == parameter
    return problem


@pytest.mark.parametrize("ident", IDENTS[:2])
def test_filters_by_key(api: ApiFixture, ident: str) -> None:
    assert found(api, ident, thing="a") == [("a", 0), ("a", 1), ("a", 2)]
    assert found(api, ident, thing=["b", "c"]) == [("b", 2), ("c", -3)]
    assert found(api, ident, thing=["a", "b"], size="2") == [("a", 2), ("b", 2)]
    assert found(api, ident, size=["-3", "7"]) == [("", 7), ("c", -3)]
    assert found(api, ident, thing="nothing") == []
    assert found(api, ident, thing="") == [("", 7)]
    assert found(api, ident, thing="\U0001f41f") == [("\U0001f41f", 6)]
    assert found(api, ident, thing='x"; DROP TABLE log --') == [('x"; DROP TABLE log --', 5)]
    assert found(api, ident, not_thing=["a", ""], not_size="6") == [
        ("b", 2),
        ("c", -3),
        ('x"; DROP TABLE log --', 5),
    ]
    assert found(api, ident, thing="a", not_size=["0", "1"]) == [("a", 2)]


def test_filters_of_classic_plugins(api: ApiFixture) -> None:
    def log(**parameters: Any) -> list[Any]:
        answer = api.client.get("/api/log", query_string=MultiDict(parameters))
        assert answer.status_code == 200, answer.data
        return [(row["category"], row["detail"]) for row in answer.json]

    assert sorted(log(category=["b", "c"])) == [("b", "size 2"), ("c", "size -3")]
    assert sorted(log(detail="size 2")) == [("a", "size 2"), ("b", "size 2")]
    # What has no detail has another one.
    assert ("a", None) in log(category="a", not_detail="size 2")
    assert ("a", "size 2") not in log(category="a", not_detail="size 2")
    allowed = refused(api, "/api/log?message=text", "message")["allowed"]
    assert {"category", "not_category", "detail", "not_detail"} <= set(allowed)
    assert not {"message", "weight", "id", "timestamp"} & set(allowed)


def test_filters_combine_with_ranges_and_pages(api: ApiFixture) -> None:
    assert found(api, "sizes-1h", thing="a", start=NOON + 3600) == [("a", 0), ("a", 2)]
    answer = api.client.get("/api/sizes-1h?thing=a&thing=b&rows_per_page=3")
    assert answer.headers["X-Link-Count"] == "2"
    assert len(answer.json) == 3


REFUSED = (
    ("/api/sizes-1h?size=x", "size"),
    ("/api/sizes-1h?size=1.5", "size"),
    ("/api/sizes-1h?size=9223372036854775808", "size"),
    ("/api/sizes-1h?not_size=", "not_size"),
    ("/api/sizes-1h?volume=1", "volume"),
    ("/api/sizes-1h?timestamp=1", "timestamp"),
    ("/api/sizes-1h?not_volume=1", "not_volume"),
    ("/api/sizes-1h/layout?thing=a", "thing"),
    ("/api/?thing=a", "thing"),
    ("/api/sizes-1h?thing=%00", "thing"),
    ("/api/sizes-1h?thing=%ff", "thing"),
    ("/api/sizes-1h?thing=%ed%a0%80", "thing"),
    ("/api/sizes-1h?thing=%c0%80", "thing"),
    ("/api/sizes-1h?%ff=1", "\ufffd"),
    ("/api/sizes-1h?thing=" + "x" * 2_001, "thing"),
    ("/api/sizes-1h?" + "&".join(f"thing={n}" for n in range(101)), "thing"),
    ("/api/sizes-1h?=1", ""),
    ("/api/sizes-1h?select=", "select"),
    ("/api/sizes-1h?select=thing,thing", "select"),
    ("/api/sizes-1h?select=nothing", "select"),
    ("/api/sizes-1h?select=thing,,size", "select"),
    ("/api/sizes-1h?select=thing&select=size", "select"),
    ("/api/log?select=id", "select"),
    ("/api/sizes-1h?start=1440000000000", "start"),
    ("/api/sizes-1h?stop=-7x", "stop"),
    ("/api/sizes-1h?format=json&format=csv", "format"),
)


def test_what_is_refused(api: ApiFixture) -> None:
    for address, parameter in REFUSED:
        problem = refused(api, address, parameter)
        assert repr(parameter) in problem["detail"], address
        assert len(problem["detail"]) < 500, address


def test_the_largest_filters_are_taken(api: ApiFixture) -> None:
    for size in (2**63 - 1, -(2**63)):
        assert found(api, "sizes-1h", size=str(size)) == []
    assert found(api, "sizes-1h", thing=[str(n) for n in range(100)]) == []
    assert found(api, "sizes-1h", thing="x" * 2_000) == []


def test_queries_are_bounded_as_a_whole(api: ApiFixture) -> None:
    answer = api.client.get("/api/sizes-1h?" + "&".join(["thing=" + "x" * 1_999] * 9))
    assert answer.status_code == 414
    assert answer.content_type == "application/problem+json"
    answer = api.client.get("/api/sizes-1h?" + "&".join("a" * 201))
    assert answer.status_code == 400
    assert "200" in answer.get_json(force=True)["detail"]


def test_unknown_parameters_list_the_filters_too(api: ApiFixture) -> None:
    allowed = refused(api, "/api/sizes-1h?thingy=1", "thingy")["allowed"]
    assert {"thing", "not_thing", "size", "not_size", "start", "select", "cursor"} <= set(allowed)


def test_select_says_which_columns_and_in_which_order(api: ApiFixture) -> None:
    get = api.client.get
    rows = get("/api/sizes-1h?select=volume,thing&thing=b").json
    assert [list(row.items()) for row in rows] == [[("volume", 1), ("thing", "b")]]
    text = get("/api/sizes-1h?select=size,timestamp&thing=b&format=csv").get_data(as_text=True)
    assert text == f"size,timestamp\r\n2,{NOON:.0f}\r\n"
    text = get("/api/log?select=weight&category=b&format=ndjson").get_data(as_text=True)
    assert text == '{"weight":0.5}\n'
    rows = get("/api/latest-sizes?select=timestamp&thing=b").json
    assert rows == [{"timestamp": int(NOON)}]


def test_ndjson_is_a_row_a_line(api: ApiFixture) -> None:
    for address, accept in (
        ("/api/sizes-1h?thing=a&order=asc&format=ndjson", "*/*"),
        ("/api/sizes-1h?thing=a&order=asc", "application/x-ndjson"),
    ):
        answer = api.client.get(address, headers={"Accept": accept})
        assert answer.content_type == "application/x-ndjson"
        lines = answer.get_data(as_text=True).splitlines()
        assert lines[0] == f'{{"timestamp":{NOON:.0f},"thing":"a","size":1,"volume":1}}'
        assert len(lines) == 3


def test_times_relative_to_the_present(api: ApiFixture) -> None:
    api.now = NOON + 3600 + 59 * 60
    # The present is rounded down to the hour; only "now" is the end of the one that is open.
    assert found(api, "sizes-1h", start="-1h") == found(api, "sizes-1h", start=NOON)
    assert found(api, "sizes-1h", stop="-1h") == found(api, "sizes-1h", stop=NOON)
    assert found(api, "sizes-1h", start="-30m") == found(api, "sizes-1h", start=NOON)
    assert found(api, "sizes-1h", start="-0h") == found(api, "sizes-1h", start=NOON + 3600)
    assert found(api, "sizes-1h", start="now") == found(api, "sizes-1h", start=NOON + 7200)
    assert found(api, "sizes-1h", stop="now") == found(api, "sizes-1h", stop=NOON + 7200)
    assert found(api, "sizes-1h", start="2023-11-15T13:00", stop="2023-11-16") == found(
        api, "sizes-1h", start=NOON + 3600
    )
    assert found(api, "sizes-1h", start="2023-12") == []
    for cut in ("-1h", "-0h", "now", "-59m", NOON, NOON + 1, NOON + 3601, "2023-11-15T13:30"):
        parts = found(api, "sizes-1h", start=cut) + found(api, "sizes-1h", stop=cut)
        assert sorted(parts) == sorted(found(api, "sizes-1h")), cut


def test_no_column_can_be_called_like_a_parameter() -> None:
    """Nor could a filter by it be told from the parameter."""
    for route in ROUTES:
        if route.filterable:
            assert {parameter.name for parameter in route.all_parameters} <= QUERY_PARAMETERS


def test_every_parameter_has_what_the_documents_need() -> None:
    for route in ROUTES:
        for parameter in route.all_parameters:
            assert parameter.summary.endswith("."), (route.name, parameter.name)


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=8))
def test_what_browsers_encode_is_read_back(pairs: list[tuple[str, str]]) -> None:
    pairs = [(n.encode("utf-8", "replace").decode(), t.replace("\0", "")) for n, t in pairs]
    pairs = [(name, text.encode("utf-8", "replace").decode()) for name, text in pairs]
    assert split(urlencode(pairs)) == pairs


@given(st.binary(max_size=60))
def test_any_query_is_read_or_refused(octets: bytes) -> None:
    parameters = (Parameter("a", TEXT, "Anything."), START)
    refusal = None
    try:
        values = parse(split(octets.decode("latin-1")), parameters).values
    except Problem as problem:
        refusal = problem
    if refusal is None:
        assert set(values) == {"a", "start"}
    else:
        assert (refusal.status, refusal.parameter is None) == (400, False)
