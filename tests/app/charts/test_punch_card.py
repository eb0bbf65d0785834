"""The hours of a week: equal to a look at the clock, in zones of all kinds."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import charts as support
from tests.support.charts import (
    DAY,
    EDGES,
    HOUR,
    TIME_ZONE_NAMES,
    ChartsFixture,
    Days,
    Visits,
    counted,
    local,
    visit,
    visits,
)
from tests.support.databases import BACKENDS

MESSAGES = visits(900, seed=4)
MONDAY = datetime(2023, 11, 13, tzinfo=UTC).timestamp()
few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=BACKENDS)
def client(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[FlaskClient]:
    """The API on a database that no test changes."""
    with counted(request, tmp_path_factory, MESSAGES, Visits, Days) as charts:
        yield charts.client()


def get(client: FlaskClient, path: str, **query: Any) -> Any:
    return support.get(client, path, **{"resolution": "hour-of-week"} | query)


def refused(client: FlaskClient, path: str, **query: Any) -> dict[str, Any]:
    return support.refused(client, path, **{"resolution": "hour-of-week"} | query)


def cell(moment: float, zone: str) -> int:
    now = local(moment, zone)
    return now.weekday() * 24 + now.hour


@given(
    edge=st.sampled_from(EDGES),
    span=st.sampled_from([8 * DAY, 40 * DAY, 400 * DAY]),
    zone=st.sampled_from(TIME_ZONE_NAMES),
    key=st.sampled_from(["site", "user"]),
)
@few
def test_cells_are_those_that_clocks_show(
    client: FlaskClient, edge: str, span: int, zone: str, key: str
) -> None:
    start = datetime.fromisoformat(edge).timestamp() - span + DAY / 3
    query: dict[str, Any] = {"start": start, "stop": start + span, "tz": zone}
    path = "/api/visits-1h/series"
    answer = client.get(path, query_string={"resolution": "hour-of-week"} | query)
    if answer.status_code == 400:
        assert answer.json["parameter"] == "tz"
        # Clocks that are changed within a quarter of an hour.
        assert zone == "America/St_Johns"
        assert start < datetime(2011, 12, 1, tzinfo=UTC).timestamp()
        return
    found = answer.json
    assert (found["resolution"], found["times"], found["tz"]) == ("hour-of-week", None, zone)
    cells = [day * 24 + hour for day, hour in zip(found["weekdays"], found["hours"], strict=True)]
    assert cells == list(range(168))
    assert found["start"] <= start < found["stop"] <= start + span
    inside = [one for one in MESSAGES if found["start"] <= one.timestamp < found["stop"]]
    sums = Counter[int]()
    for one in inside:
        sums[cell(one.timestamp, zone)] += one.msg["visits"]
    (line,) = found["series"]
    assert (line["column"], line["total"]) == ("visits", sum(sums.values()))
    known = [number for number in cells if number not in found["missing"]]
    assert [line["values"][number] for number in known] == [sums[number] for number in known]
    assert {line["values"][number] for number in found["missing"]} <= {None}
    people: dict[int, set[str]] = defaultdict(set)
    for one in inside:
        people[cell(one.timestamp, zone)].add(one.msg[key])
    (line,) = get(client, path, count=key, **query)["series"]
    assert [line["values"][n] for n in known] == [len(people[n]) for n in known]
    assert line["total"] == len({one.msg[key] for one in inside})
    by = get(client, path, by="site", top=2, **query)
    of_all = [sum(values) for values in zip(*known_values(by, known), strict=True)]
    assert of_all == [sums[number] for number in known]
    filtered = get(client, path, not_site=["a", "b"], **query)["series"][0]
    assert filtered["total"] == sum(
        one.msg["visits"] for one in inside if one.msg["site"] not in "ab"
    )


def known_values(found: dict[str, Any], known: list[int]) -> list[list[int]]:
    lines = [[line["values"][number] for number in known] for line in found["series"]]
    return lines or [[0] * len(known)]


def test_a_cell_of_which_nothing_is_covered_is_not_zero(migrated_uri: str) -> None:
    charts = ChartsFixture(migrated_uri, Visits)
    charts.count([visit(MONDAY + 9 * HOUR), visit(MONDAY + 9.5 * HOUR)])
    charts.cover(MONDAY + DAY, since=MONDAY)
    client = charts.client()
    path, query = "/api/visits-15m/series", {"start": MONDAY, "stop": MONDAY + 14 * DAY}
    found = get(client, path, **query)
    (line,) = found["series"]
    assert line["values"] == [0] * 9 + [2] + [0] * 14 + [None] * 144
    assert (found["partial"], found["missing"]) == (list(range(24)), list(range(24, 168)))
    assert line["total"] == 2
    charts.cover(MONDAY + 14 * DAY, since=MONDAY)
    found = get(client, path, **query)
    assert (found["partial"], found["missing"]) == ([], [])
    # A day has only its own hours.
    found = get(client, path, start=MONDAY + DAY, stop=MONDAY + 2 * DAY)
    assert found["series"][0]["values"] == [None] * 24 + [0] * 24 + [None] * 120
    assert (found["partial"], found["missing"]) == ([], [*range(24), *range(48, 168)])


def test_an_hour_that_clocks_show_twice_counts_twice(migrated_uri: str) -> None:
    charts = ChartsFixture(migrated_uri, Visits)
    back = datetime(2023, 10, 29, 0, 30, tzinfo=UTC).timestamp()
    charts.count([visit(back), visit(back + HOUR), visit(back + 2 * HOUR)])
    charts.cover()
    query = {"start": back - 14 * DAY, "stop": back + 14 * DAY, "tz": "Europe/Berlin"}
    (line,) = get(charts.client(), "/api/visits-1d/series", **query)["series"]
    sunday = 6 * 24
    assert (line["values"][sunday + 2], line["values"][sunday + 3]) == (2, 1)


def test_only_what_has_an_answer_is_offered(client: FlaskClient) -> None:
    problem = refused(client, "/api/visits-1d/series", select="longest")
    assert (problem["parameter"], problem["allowed"]) == ("select", ["visits"])
    assert refused(client, "/api/visits-1d/series", points=9)["parameter"] == "points"
    assert refused(client, "/api/visits-1d/series", start=5, stop=6)["parameter"] == "stop"
    # Rows of days do not tell the hour.
    problem = refused(client, "/api/days-1d/series")
    assert problem["parameter"] == "resolution"
    assert "hour-of-week" not in problem["allowed"]
    for route in ("summary", "top", "badge"):
        assert refused(client, f"/api/visits-1d/{route}")["parameter"] == "resolution"


def test_csv_has_a_row_per_cell_and_key(client: FlaskClient) -> None:
    query = {"resolution": "hour-of-week", "start": "2023-10", "stop": "2023-11", "by": "gate"}
    answer = client.get("/api/visits-1d/series", query_string=query | {"format": "csv"})
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header == ["_weekday", "_hour", "gate", "visits", "_state"]
    assert len(rows) == 168 * len({row[2] for row in rows})
    assert rows[-1][:2] == ["6", "23"]
