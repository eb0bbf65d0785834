"""How many different keys there are: equal to a naive recount in every zone, and never a sum."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from statscache.database import tables
from statscache.message import Message
from statscache.plugins import CategorizedModel
from tests.support.charts import (
    DAY,
    EDGES,
    HOUR,
    TIME_ZONE_NAMES,
    ChartsFixture,
    Days,
    Latest,
    Log,
    LogModel,
    Visits,
    counted,
    get,
    label,
    refused,
    visit,
    visits,
)
from tests.support.databases import BACKENDS

MESSAGES = visits(900, seed=3)
NOON = datetime(2023, 11, 15, 12, tzinfo=UTC).timestamp()
MIDNIGHT = int(NOON) - 12 * HOUR
few = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=BACKENDS)
def client(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[FlaskClient]:
    """The API on a database that no test changes."""
    with counted(request, tmp_path_factory, MESSAGES, Visits, Days, Latest) as charts:
        yield charts.client()


@pytest.fixture
def own(migrated_uri: str) -> ChartsFixture:
    """A database that the test may change."""
    return ChartsFixture(migrated_uri, Visits, Days)


def distinct(
    found: list[Message], key: str, keep: Callable[[Message], bool] = lambda one: True
) -> int:
    return len({one.msg[key] for one in found if keep(one)})


def by_label(found: list[Message], resolution: str, zone: str) -> dict[Any, list[Message]]:
    buckets: dict[Any, list[Message]] = defaultdict(list)
    for one in found:
        buckets[label(one.timestamp, resolution, zone)].append(one)
    return buckets


@given(
    edge=st.sampled_from(EDGES),
    span=st.sampled_from([900, DAY, 30 * DAY, 400 * DAY]),
    zone=st.sampled_from(TIME_ZONE_NAMES),
    resolution=st.sampled_from(["15m", "6h", "1d", "week", "month", "year"]),
    key=st.sampled_from(["site", "gate", "user"]),
    filtered=st.booleans(),
)
@few
def test_series_and_summary_count_like_a_naive_recount(
    client: FlaskClient,
    edge: str,
    span: int,
    zone: str,
    resolution: str,
    key: str,
    filtered: bool,
) -> None:
    start = datetime.fromisoformat(edge).timestamp() - span / 2
    resolution = "1d" if span > 100 * DAY and resolution == "15m" else resolution
    assume(label(start, resolution, zone) != label(start + span, resolution, zone))
    query: dict[str, Any] = {"start": start, "stop": start + span, "tz": zone, "count": key}
    query |= {"resolution": resolution}
    if filtered:
        query |= {"not_site": "a"}
    answer = client.get("/api/visits-1h/series", query_string=query)
    if answer.status_code == 400:
        # Clocks that were changed within a quarter of an hour.
        assert answer.json["parameter"] == "tz"
        assert "exactly" in answer.json["detail"]
        return
    found = answer.json
    inside = [
        one
        for one in MESSAGES
        if found["start"] <= one.timestamp < found["stop"]
        and not (filtered and one.msg["site"] == "a")
    ]
    (line,) = found["series"]
    assert (found["count"], line["column"]) == (key, key)
    in_buckets = by_label(inside, resolution, zone)
    assert line["values"] == [
        None
        if number in found["missing"]
        else distinct(in_buckets[label(moment, resolution, zone)], key)
        for number, moment in enumerate(found["times"])
    ]
    assert line["total"] == distinct(inside, key)
    total = get(client, "/api/visits-15m/summary", **query)
    assert (total["value"], total["column"], total["merge"]) == (line["total"], key, "count")


@given(
    edge=st.sampled_from(EDGES),
    zone=st.sampled_from(["Asia/Kathmandu", "Europe/Berlin", "UTC"]),
    by=st.sampled_from(["site", "gate"]),
    top=st.integers(1, 9),
)
@few
def test_lines_of_keys_and_of_the_rest_count_for_themselves(
    client: FlaskClient, edge: str, zone: str, by: str, top: int
) -> None:
    start = datetime.fromisoformat(edge).timestamp() - 40 * DAY
    query = {"start": start, "stop": start + 40 * DAY, "resolution": "week", "tz": zone}
    query |= {"count": "user", "by": by}
    found = get(client, "/api/visits-1d/series", top=top, **query)
    inside = [one for one in MESSAGES if found["start"] <= one.timestamp < found["stop"]]
    counts = {
        key: distinct(inside, "user", lambda one, key=key: one.msg[by] == key)
        for key in {one.msg[by] for one in inside}
    }
    largest = sorted(counts, key=lambda key: (-counts[key], key))
    named = [line["key"][by] for line in found["series"] if line["key"] is not None]
    assert named == largest[:top]
    for line in found["series"]:
        own = [
            one
            for one in inside
            if (one.msg[by] in named if line["key"] is None else one.msg[by] == line["key"][by])
            != (line["key"] is None)
        ]
        assert line["total"] == distinct(own, "user")
        in_buckets = by_label(own, "week", zone)
        assert line["values"] == [
            distinct(in_buckets[label(moment, "week", zone)], "user") for moment in found["times"]
        ]
    ranked = get(client, "/api/visits-1d/top", limit=top, **query)
    assert [(row["key"], row["value"]) for row in ranked["top"]] == [
        (key, counts[key]) for key in largest[:top]
    ]
    # One person is at several sites: the parts do not make up the whole.
    assert {row["share"] for row in ranked["top"]} <= {None}
    assert (ranked["total"], ranked["keys"]) == (distinct(inside, "user"), len(counts))


def test_nothing_is_zero_where_it_is_covered_and_unknown_elsewhere(own: ChartsFixture) -> None:
    own.count([visit(NOON), visit(NOON, user="kevin"), visit(NOON + DAY)])
    own.cover(MIDNIGHT + 3.5 * DAY, since=MIDNIGHT - DAY)
    client = own.client()
    query = {"start": MIDNIGHT - 2 * DAY, "stop": MIDNIGHT + 5 * DAY, "count": "user"}
    found = get(client, "/api/visits-1d/series", **query)
    (line,) = found["series"]
    assert line["values"] == [None, 0, 2, 1, 0, 0, None]
    assert (found["missing"], found["partial"], line["total"]) == ([0, 6], [5], 2)
    found = get(client, "/api/visits-1d/series", fill="previous", **query)
    assert found["series"][0]["values"] == [None, None, 2, 1, 1, 1, None]
    found = get(client, "/api/visits-1d/summary", **query)
    assert (found["value"], found["state"]) == (2, "partial")
    query = {"start": MIDNIGHT + 2 * DAY, "stop": MIDNIGHT + 3 * DAY, "count": "user"}
    found = get(client, "/api/visits-1d/summary", compare="previous", **query)
    assert (found["value"], found["state"], found["previous"]) == (0, "complete", 1)
    assert found["change"] == -1
    query |= {"start": MIDNIGHT - 9 * DAY, "stop": MIDNIGHT - 8 * DAY}
    assert get(client, "/api/visits-1d/summary", **query)["value"] is None


def test_a_table_whose_rows_are_gone_is_replaced_by_one_that_has_them(own: ChartsFixture) -> None:
    own.count([visit(NOON), visit(NOON + DAY, user="kevin")])
    own.cover(MIDNIGHT + 9 * DAY, since=MIDNIGHT - 9 * DAY)
    for ident in ("visits-15m", "visits-1h"):
        table = own.installed.datasets[ident].model.__table__
        own.execute(delete(table).where(table.c.timestamp < MIDNIGHT + DAY))
        named = update(tables.plugin).where(tables.plugin.c.ident == ident)
        own.execute(named.values(pruned_until=MIDNIGHT + DAY))
    query = {"start": MIDNIGHT - 2 * DAY, "stop": MIDNIGHT + 5 * DAY, "resolution": "week"}
    found = get(own.client(), "/api/visits-15m/series", count="user", **query)
    assert found["series"][0]["values"] == [2]
    # Days of Kathmandu are not made of those of UTC: what is left is said to be a part.
    found = get(own.client(), "/api/visits-15m/series", count="user", tz="Asia/Kathmandu", **query)
    assert found["partial"] == [0]


def test_bots_and_hidden_people_are_not_counted(migrated_uri: str) -> None:
    config = {"statscache.people.hidden": ["kevin"], "statscache.people.bots": ["zodbot"]}
    charts = ChartsFixture(migrated_uri, Visits)
    users = ("ralph", "kevin", "zodbot", "toshio")
    charts.count([visit(NOON, user=user) for user in users])
    charts.cover()
    query = {"start": MIDNIGHT, "stop": MIDNIGHT + DAY, "count": "user"}
    path = "/api/visits-1d/summary"
    assert get(charts.client(), path, **query)["value"] == 3
    hiding = ChartsFixture(migrated_uri, Visits, **config).client()
    assert get(hiding, path, **query)["value"] == 2
    # A hidden name is as an unknown one.
    assert get(hiding, path, user="kevin", **query)["value"] == 0
    assert get(hiding, path, user="nobody", **query)["value"] == 0


def test_a_count_names_nobody(migrated_uri: str) -> None:
    charts = ChartsFixture(migrated_uri, Visits, **{"statscache.people.lists": False})
    charts.count([visit(NOON), visit(NOON, user="kevin")])
    charts.cover()
    client = charts.client()
    query = {"start": MIDNIGHT, "stop": MIDNIGHT + DAY}
    path = "/api/visits-1d"
    assert get(client, f"{path}/summary", count="user", **query)["value"] == 2
    assert get(client, f"{path}/series", count="user", by="site", **query)["series"]
    assert get(client, f"{path}/top", count="user", by="site", **query)["total"] == 2
    # By people is a list of people, whatever is counted.
    for route in ("series", "top"):
        problem = refused(client, f"{path}/{route}", 403, count="site", by="user", **query)
        assert problem["parameter"] == "user"
    found = get(client, f"{path}/series", count="site", by="user", user="ralph", **query)
    assert found["series"][0]["total"] == 1


def test_latest_values_are_counted_as_they_are(client: FlaskClient) -> None:
    path = "/api/latest/summary"
    newest: dict[tuple[Any, ...], float] = {}
    for one in MESSAGES:
        key = (one.msg["site"], one.msg["gate"], one.msg["user"])
        newest[key] = max(one.timestamp, newest.get(key, 0))
    found = get(client, path, count="site")
    assert found["value"] == len({key[0] for key in newest})
    assert (found["resolution"], found["tz"], found["start"], found["stop"]) == (None,) * 4
    assert (found["state"], found["merge"]) == ("complete", "count")
    found = get(client, path, count="site", user="ralph")
    assert found["value"] == len({key[0] for key in newest if key[2] == "ralph"})
    moment = sorted(newest.values())[len(newest) // 2]
    found = get(client, path, count="gate", start=moment)
    assert found["value"] == len({k[1] for k, when in newest.items() if when >= moment})
    assert found["start"] == moment
    assert get(client, path, count="user", site="nowhere")["value"] == 0


def test_what_does_not_go_together_is_refused(client: FlaskClient) -> None:
    path = "/api/visits-1d"
    problem = refused(client, f"{path}/series", count="site", by="site")
    assert (problem["parameter"], problem["allowed"]) == ("count", ["gate", "user"])
    problem = refused(client, f"{path}/series", count="visits")
    assert (problem["parameter"], problem["allowed"]) == ("count", ["site", "gate", "user"])
    for route in ("series", "summary", "top"):
        problem = refused(client, f"{path}/{route}", count="user", select="visits")
        assert problem["parameter"] == "select"
    problem = refused(client, f"{path}/series", count="user", top=3, by="user")
    assert problem["parameter"] == "count"
    problem = refused(client, "/api/latest/summary", count="user", resolution="1d")
    assert problem["parameter"] == "resolution"
    problem = refused(client, "/api/latest/summary", count="user", compare="year")
    assert problem["parameter"] == "compare"
    problem = refused(client, "/api/latest/summary", start=5, stop=4)
    assert problem["parameter"] == "start"
    refused(client, "/api/latest/series", 404, count="user")


def test_windows_of_classic_plugins_are_counted_together(migrated_uri: str) -> None:
    """How their numbers are merged is not known, but their keys are."""
    charts = ChartsFixture(migrated_uri, Log)
    charts.count([])
    charts.cover()
    rows = [(NOON, "a"), (NOON, "b"), (NOON + DAY, "b"), (NOON + DAY, "c")]
    for moment, category in rows:
        charts.execute(
            LogModel.__table__.insert().values(
                timestamp=datetime.fromtimestamp(moment + 12 * HOUR, UTC).replace(tzinfo=None),
                category=category,
                message="text",
            )
        )
    client = charts.client()
    query = {"start": MIDNIGHT, "stop": MIDNIGHT + 2 * DAY, "count": "category"}
    (line,) = get(client, "/api/log-1d/series", **query)["series"]
    assert (line["values"], line["total"]) == ([2, 2], 3)
    assert get(client, "/api/log-1d/summary", **query)["value"] == 3


class ShelvesModel(CategorizedModel):
    __tablename__ = "chart_shelves"

    count: Any = sa.Column(sa.Integer, nullable=False)


class Shelves(Log):
    """A classic plugin with a column that is called like a parameter."""

    name = "shelves"
    model = ShelvesModel


def test_a_column_of_a_classic_plugin_that_is_called_so_stays_a_filter(migrated_uri: str) -> None:
    charts = ChartsFixture(migrated_uri, Shelves)
    charts.count([])
    charts.cover()
    ended = datetime.fromtimestamp(MIDNIGHT + DAY, UTC).replace(tzinfo=None)
    for category, count, scalar in (("a", 3, 5), ("b", 4, 7)):
        row = {"category": category, "count": count, "scalar": scalar, "timestamp": ended}
        charts.execute(ShelvesModel.__table__.insert().values(row))
    client = charts.client()
    (row,) = get(client, "/api/shelves-1d", count=4)
    assert (row["category"], row["count"]) == ("b", 4)
    query = {"start": MIDNIGHT, "stop": MIDNIGHT + DAY, "select": "scalar"}
    found = get(client, "/api/shelves-1d/series", count=4, **query)
    assert found["series"][0]["values"] == [7]
    document = get(client, "/openapi.json")["paths"]["/api/shelves-1d/series"]["get"]
    names = [each["name"] for each in document["parameters"]]
    assert names.count("count") == 1
    assert get(client, "/api/plugins/shelves-1d")["answers"]["count"] == []


def test_csv_does_not_call_a_number_like_a_key(client: FlaskClient) -> None:
    query = {"start": "2023-10-29", "stop": "2023-10-31", "count": "user", "format": "csv"}
    answer = client.get("/api/visits-1d/series", query_string=query | {"by": "gate"})
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header == ["timestamp", "gate", "_count", "_state"]
    assert rows


def test_equal_queries_have_one_etag_and_others_another(client: FlaskClient) -> None:
    path = "/api/visits-1d/series?start=2023-10-29&stop=2023-10-31"
    tags = {
        client.get(f"{path}{more}").headers["ETag"] for more in ("", "&count=user", "&count=site")
    }
    assert len(tags) == 3
    one, other = (
        client.get(f"/api/visits-1d/series?{query}").headers["ETag"]
        for query in (
            "count=user&start=2023-10-29&stop=2023-10-31",
            "stop=2023-10-31&start=2023-10-29&count=user",
        )
    )
    assert one == other
