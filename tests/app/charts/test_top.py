"""The largest keys: compared with an earlier range, with small charts, and of latest values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from statscache.message import Message
from statscache.plugins import Key
from tests.support.charts import (
    DAY,
    MERGES,
    Latest,
    Visits,
    counted,
    get,
    visits,
)
from tests.support.databases import BACKENDS


class Sites(Latest):
    """By one key alone."""

    name = "sites"
    keys = (Key("site"),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(row[0], *row[3:]) for row in super().rows(message)]


MESSAGES = visits(600, seed=5)
RANGE: dict[str, Any] = {"start": "2023-10", "stop": "2023-12", "resolution": "month"}


@pytest.fixture(scope="module", params=BACKENDS)
def client(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[FlaskClient]:
    """The API on a database that no test changes."""
    with counted(request, tmp_path_factory, MESSAGES, Visits, Latest, Sites) as charts:
        yield charts.client()


@pytest.mark.parametrize("compare", ["previous", "year"])
@pytest.mark.parametrize("more", [{"select": "visits"}, {"select": "longest"}, {"count": "user"}])
def test_each_row_is_compared_as_a_summary_of_it_is(
    client: FlaskClient, compare: str, more: dict[str, str]
) -> None:
    query = RANGE | more | {"compare": compare, "tz": "Europe/Berlin"}
    found = get(client, "/api/visits-1h/top", by="site", **query)
    assert len(found["top"]) > 3
    for row in found["top"]:
        alone = get(client, "/api/visits-1d/summary", site=row["key"], **query)
        assert row["value"] == alone["value"]
        for name in ("compared", "previous", "change"):
            assert row[name] == alone[name], name
        for name in ("compared_start", "compared_stop", "previous_start", "previous_stop"):
            assert found[name] == alone[name]
        assert found["previous_state"] == alone["previous_state"]


@pytest.mark.parametrize("more", [{"select": "visits"}, {"select": "mood"}, {"count": "gate"}])
def test_the_numbers_of_each_row_are_those_of_a_series(
    client: FlaskClient, more: dict[str, str]
) -> None:
    query = {"start": "2023-10", "stop": "2023-12", "by": "site", "tz": "Asia/Kathmandu"} | more
    found = get(client, "/api/visits-1h/top", points=10, limit=3, **query)
    series = get(client, "/api/visits-1h/series", points=10, **query)
    assert found["resolution"] == series["resolution"] == "week"
    assert found["times"] == series["times"]
    lines = {line["key"]["site"]: line for line in series["series"]}
    for row in found["top"]:
        assert row["values"] == lines[row["key"]]["values"]
        assert row["value"] == lines[row["key"]]["total"]
    assert len(found["top"]) == 3
    days = get(client, "/api/visits-1h/top", points=100, resolution="1d", limit=3, **query)
    assert days["resolution"] == "1d"
    assert len(days["top"][0]["values"]) == 61
    assert "values" not in get(client, "/api/visits-1h/top", **query)["top"][0]


def test_what_was_before_the_beginning_is_unknown(client: FlaskClient) -> None:
    found = get(
        client, "/api/visits-1d/top", start=0, stop="2023-12", resolution="year", compare="previous"
    )
    assert found["previous_state"] == "missing"
    assert found["top"]
    for row in found["top"]:
        assert [row[name] for name in ("compared", "previous", "change")] == [None] * 3


def test_the_work_of_one_answer_is_bounded(client: FlaskClient) -> None:
    answer = client.get("/api/visits-15m/top?points=10000&limit=1000&start=2023-11&stop=2023-12")
    assert answer.status_code == 400
    assert "50000 numbers" in answer.json["detail"]


def test_csv_has_a_column_for_each_bucket(client: FlaskClient) -> None:
    query = RANGE | {"compare": "previous", "points": 2, "format": "csv"}
    answer = client.get("/api/visits-1d/top", query_string=query)
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header[:6] == ["site", "visits", "_share", "_compared", "_previous", "_change"]
    assert [int(name) for name in header[6:]] == [1696118400, 1698796800]
    assert all(int(row[1]) == sum(int(cell) for cell in row[6:]) for row in rows)


@pytest.mark.parametrize("column", sorted(MERGES))
@pytest.mark.parametrize(
    ("ident", "by"), [("latest", "site"), ("latest", "gate"), ("sites", "site")]
)
def test_the_largest_of_latest_values(
    client: FlaskClient, column: str, ident: str, by: str
) -> None:
    found = get(client, f"/api/{ident}/top", by=by, select=column, limit=4)
    amounts = {
        key: MERGES[column]([one for one in MESSAGES if one.msg[by] == key])
        for key in {one.msg[by] for one in MESSAGES}
    }
    largest = sorted(amounts.items(), key=lambda item: (-item[1], item[0]))
    assert [(row["key"], row["value"]) for row in found["top"]] == largest[:4]
    assert (found["total"], found["keys"]) == (MERGES[column](MESSAGES), len(amounts))
    assert (found["resolution"], found["start"], found["stop"]) == (None, None, None)
    summary = get(client, "/api/latest/summary", select=column)
    assert (summary["value"], summary["merge"]) == (found["total"], found["merge"])
    only = get(client, "/api/latest/summary", select=column, gate=1, not_site="a")
    rows = [one for one in MESSAGES if one.msg["gate"] == 1 and one.msg["site"] != "a"]
    assert only["value"] == MERGES[column](rows)


def test_latest_values_have_neither_buckets_nor_a_past(client: FlaskClient) -> None:
    for query in ("points=5", "resolution=1d", "compare=year"):
        answer = client.get(f"/api/latest/top?{query}")
        assert answer.status_code == 400
        assert answer.json["parameter"] == query.partition("=")[0]
    recent = get(client, "/api/latest/top", start=1.7e9 - 30 * DAY)
    assert recent["start"] == 1.7e9 - 30 * DAY
