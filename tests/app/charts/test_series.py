"""Series: equal to a naive recount in every zone, and honest about what is not known."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache, cmp_to_key
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, text, update

from statscache.app.application import build_app
from statscache.database import tables
from statscache.message import Message
from tests.support.charts import (
    DAY,
    EDGES,
    HOUR,
    MERGES,
    ZONE_NAMES,
    ChartsFixture,
    Days,
    Latest,
    Log,
    Moments,
    Stars,
    StarsModel,
    Visits,
    Weights,
    WeightsModel,
    counted,
    get,
    refused,
    visit,
)
from tests.support.charts import label as label_of
from tests.support.charts import visits as make_visits
from tests.support.databases import BACKENDS, migrated

MESSAGES = make_visits()
few = settings(max_examples=35, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=BACKENDS)
def client(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[FlaskClient]:
    """The API on a database that no test changes."""
    with counted(request, tmp_path_factory, MESSAGES, Visits, Days) as charts:
        yield charts.client()


@pytest.fixture
def charts(migrated_uri: str) -> ChartsFixture:
    return ChartsFixture(migrated_uri, Visits, Days)


RANGES = st.builds(
    lambda edge, before, span: (
        datetime.fromisoformat(edge).timestamp() - before,
        datetime.fromisoformat(edge).timestamp() - before + span,
    ),
    st.sampled_from(EDGES),
    st.integers(0, 3 * DAY),
    st.sampled_from([1, 900, 5 * HOUR, DAY, 4 * DAY, 45 * DAY, 400 * DAY]),
)


@given(
    range_=RANGES,
    zone=st.sampled_from(ZONE_NAMES),
    resolution=st.sampled_from(["15m", "1h", "6h", "1d", "week", "month", "year"]),
    ident=st.sampled_from(["visits-15m", "visits-1h", "visits-1d"]),
    column=st.sampled_from(sorted(MERGES)),
    user=st.sampled_from([(), ("ralph",), ("kevin", "ralph")]),
)
@few
def test_buckets_equal_a_naive_recount(
    client: FlaskClient,
    range_: tuple[float, float],
    zone: str,
    resolution: str,
    ident: str,
    column: str,
    user: tuple[str, ...],
) -> None:
    start, stop = range_
    if resolution == "15m":
        stop = min(stop, start + 40 * DAY)
    chosen = [one for one in MESSAGES if not user or one.msg["user"] in user]
    query = {"start": start, "stop": stop, "tz": zone, "resolution": resolution, "user": user}
    path = f"/api/{ident}/series"
    if label_of(start, resolution, zone) == label_of(stop, resolution, zone):
        assert "same bucket" in refused(client, f"{path}?{urlencode(query, True)}")["detail"]
        return
    found = get(client, path, select=column, fill="null", **query)
    expected: dict[Any, list[Message]] = {}
    for one in chosen:
        expected.setdefault(label_of(one.timestamp, resolution, zone), []).append(one)
    labels = [label_of(moment, resolution, zone) for moment in found["times"]]
    assert found["series"][0]["values"] == [
        MERGES[column](expected[each]) if each in expected else None for each in labels
    ]
    # No bucket of the range is left out, and each is there once; that of its end is not.
    assert len(set(labels)) == len(labels)
    assert found["start"] <= start
    assert found["stop"] <= stop
    end = label_of(stop, resolution, zone)
    assert end not in labels
    for one in MESSAGES:
        if start <= one.timestamp < stop:
            here = label_of(one.timestamp, resolution, zone)
            assert here == end or here in labels
    inside = [one for each in labels for one in expected.get(each, [])]
    assert found["series"][0]["total"] == (
        MERGES[column](inside) if inside else 0 if column == "visits" else None
    )


SPANS = st.sampled_from(["-0d", "-1h", "-90m", "-7d", "-14d", "-1d-12h", "-8d", "-1M"])
PLACES = st.floats(-9 * DAY, 2 * DAY).map(round) | st.sampled_from([0, 1, -DAY, HOUR, -900])


@pytest.fixture(scope="module")
def clocked(client: FlaskClient) -> Clocked:
    return Clocked(client)


class Clocked:
    """The same API at another time."""

    def __init__(self, client: FlaskClient) -> None:
        self.now = 0.0
        service = client.application.extensions["statscache"]
        app = build_app(service.settings, service.installed, clock=lambda: self.now)
        self._client = app.test_client()

    def cells(self, ident: str, **query: Any) -> list[tuple[int, Any]]:
        """The buckets of a range, with their numbers; none where that is refused as empty."""
        # What was understood at a later time is remembered, and no clock of a server goes back.
        query |= {"select": "visits", "_": self.now}
        answer = self._client.get(f"/api/{ident}/series", query_string=query)
        if answer.status_code == 400:
            problem = json.loads(answer.data)
            assert (problem["parameter"], "start" in problem["detail"]) in (
                ("start", True),
                ("stop", True),
            )
            return []
        found = json.loads(answer.data)
        return list(zip(found["times"], found["series"][0]["values"], strict=True))


@example(EDGES[6], 0.0, ["-14d", "-7d", "now"], "UTC", None, "visits-1d")
@given(
    edge=st.sampled_from(EDGES),
    since=st.floats(0, 3 * DAY),
    ends=st.lists(st.just("now") | SPANS | PLACES, min_size=3, max_size=3),
    zone=st.sampled_from(ZONE_NAMES),
    resolution=st.sampled_from([None, "15m", "1h", "6h", "1d", "week", "month", "year"]),
    ident=st.sampled_from(["visits-15m", "visits-1h", "visits-1d"]),
)
@settings(few, max_examples=30)
def test_the_parts_of_a_range_add_up_to_it(
    clocked: Clocked,
    edge: str,
    since: float,
    ends: list[str | int],
    zone: str,
    resolution: str | None,
    ident: str,
) -> None:
    """However its ends and the place where it is cut are said."""
    clocked.now = datetime.fromisoformat(edge).timestamp() + since
    said = [end if isinstance(end, str) else str(round(clocked.now) + end) for end in ends]
    query = {"tz": zone} | ({"resolution": resolution} if resolution else {})

    @cache
    def cells(start: str, stop: str) -> list[tuple[int, Any]]:
        return clocked.cells(ident, start=start, stop=stop, **query)

    def order(one: str, other: str) -> int:
        return len(cells(other, one)) - len(cells(one, other))

    first, cut, last = sorted(said, key=cmp_to_key(order))
    assert cells(first, cut) + cells(cut, last) == cells(first, last)
    # Without a stop it is up to now, with the bucket that is open.
    assert cells(first, "now") == clocked.cells(ident, start=first, **query)
    if found := cells("-1d", "now"):
        assert found[-1][0] <= clocked.now


@pytest.mark.parametrize("resolution", ["15m", "1d", "month"])
def test_totals_agree_across_zones(client: FlaskClient, resolution: str) -> None:
    middle = datetime.fromisoformat("2023-03-26T01:00:00Z").timestamp()
    reach = {"15m": 25 * DAY, "1d": 400 * DAY, "month": 4000 * DAY}[resolution]
    total = sum(m.msg["visits"] for m in MESSAGES if abs(m.timestamp - middle) < reach)
    assert total > 100
    for zone in ZONE_NAMES:
        query = {"start": middle - reach, "stop": middle + reach, "tz": zone, "select": "visits"}
        found = get(client, "/api/visits-1d/series", resolution=resolution, **query)
        # What the bucket of the start has before it, and that of the end after it.
        before, after = (
            sum(one.msg["visits"] for one in MESSAGES if low <= one.timestamp < high)
            for low, high in ((found["start"], middle - reach), (found["stop"], middle + reach))
        )
        assert found["series"][0]["total"] == total + before - after, zone


@given(
    range_=RANGES,
    zone=st.sampled_from(ZONE_NAMES),
    resolution=st.sampled_from(["1h", "1d", "month"]),
    by=st.sampled_from(["site", "gate", "user"]),
    top=st.none() | st.integers(1, 9),
    column=st.sampled_from(sorted(MERGES)),
    left_out=st.sampled_from(["", "ralph"]),
)
@few
def test_keys_and_the_rest_equal_a_naive_recount(
    client: FlaskClient,
    range_: tuple[float, float],
    zone: str,
    resolution: str,
    by: str,
    top: int | None,
    column: str,
    left_out: str,
) -> None:
    start, stop = range_[0], min(range_[1], range_[0] + 45 * DAY)
    assume(label_of(start, resolution, zone) != label_of(stop, resolution, zone))
    query = {"start": start, "stop": stop, "tz": zone, "resolution": resolution}
    query |= {"not_user": left_out} if left_out else {}
    query |= {"top": top} if top else {}
    found = get(client, "/api/visits-1h/series", by=by, select=column, fill="null", **query)
    labels = [label_of(moment, resolution, zone) for moment in found["times"]]
    inside = [
        one
        for one in MESSAGES
        if one.msg["user"] != left_out and label_of(one.timestamp, resolution, zone) in labels
    ]
    merge = MERGES[column]
    keys = sorted({one.msg[by] for one in inside})
    if top:
        amounts = {key: merge([one for one in inside if one.msg[by] == key]) for key in keys}
        keys = sorted(keys, key=lambda key: (-amounts[key], key))[:top]
    expected: dict[Any, list[Any]] = {key: [] for key in keys}
    rest = [one for one in inside if one.msg[by] not in keys]
    if rest:
        expected[None] = []
    for each in labels:
        here = [one for one in inside if label_of(one.timestamp, resolution, zone) == each]
        for key in expected:
            chosen = [
                one for one in here if (one.msg[by] == key if key is not None else one in rest)
            ]
            expected[key].append(merge(chosen) if chosen else None)
    assert {
        None if series["key"] is None else series["key"][by]: series["values"]
        for series in found["series"]
    } == expected
    assert [series["name"] for series in found["series"]] == [
        "other" if key is None else str(key) for key in expected
    ]


def test_a_series_per_column(client: FlaskClient) -> None:
    path, moment = "/api/visits-1d/series", MESSAGES[1].timestamp
    range_ = {"start": moment - DAY, "stop": moment + DAY}

    def names() -> list[str]:
        return [series["name"] for series in found["series"]]

    found = get(client, path, **range_)
    assert names() == ["visits", "shortest", "longest", "mood"]
    found = get(client, path, select="mood,visits", by="gate", **range_)
    assert names()[:2] == ["1 mood", "1 visits"]
    alone = get(client, path, select="mood", by="gate", **range_)
    assert [series["values"] for series in found["series"]][::2] == [
        series["values"] for series in alone["series"]
    ]


# What is known, and what is not.

NOON = datetime(2023, 11, 15, 12, tzinfo=UTC).timestamp()
MIDNIGHT = int(NOON) - 12 * HOUR


def test_missing_zero_and_open_buckets_are_told_apart(charts: ChartsFixture) -> None:
    charts.count([visit(NOON), visit(NOON + 2 * DAY), visit(NOON + 2 * DAY, site="b")])
    charts.execute(
        insert(tables.gap).values(
            lane=1, start=MIDNIGHT + 3.5 * DAY, stop=MIDNIGHT + 4.25 * DAY, missing=5, noticed_at=0
        )
    )
    charts.cover(MIDNIGHT + 5.5 * DAY, since=MIDNIGHT - DAY)
    client = charts.client()
    range_ = {"start": MIDNIGHT - 2 * DAY, "stop": MIDNIGHT + 7 * DAY}
    found = get(client, "/api/visits-1d/series", select="visits", **range_)
    assert found["times"] == [MIDNIGHT + number * DAY for number in range(-2, 7)]
    assert found["series"][0]["values"] == [None, 0, 1, 0, 2, 0, 0, 0, None]
    assert found["partial"] == [5, 6, 7]
    assert found["missing"] == [0, 8]
    # The end of what is covered, cut off at the last bucket that is complete.
    assert found["coverage"]["until"] == MIDNIGHT + 5 * DAY
    by_site = get(client, "/api/visits-1d/series", select="visits", by="site", **range_)
    assert [series["values"] for series in by_site["series"]] == [
        [None, 0, 1, 0, 1, 0, 0, 0, None],
        [None, 0, 0, 0, 1, 0, 0, 0, None],
    ]
    states = ["missing", *["complete"] * 4, *["partial"] * 3, "missing"]
    query = range_ | {"format": "csv", "select": "visits"}
    body = client.get("/api/visits-1d/series", query_string=query).text
    rows = list(csv.DictReader(io.StringIO(body)))
    assert [row["visits"] for row in rows] == ["", "0", "1", "0", "2", "0", "0", "0", ""]
    assert [row["_state"] for row in rows] == states
    query = range_ | {"format": "ndjson", "by": "site"}
    body = client.get("/api/visits-1d/series", query_string=query).text
    objects = [json.loads(line) for line in body.splitlines()]
    assert len(objects) == 18
    assert objects[0] == {
        "timestamp": MIDNIGHT - 2 * DAY,
        "site": "a",
        "visits": None,
        "shortest": None,
        "longest": None,
        "mood": None,
        "_state": "missing",
    }
    assert [each["_state"] for each in objects[::2]] == states
    # Days of another zone are complete up to their own midnight.
    found = get(client, "/api/visits-1d/series", select="visits", tz="Asia/Kolkata", **range_)
    assert found["partial"] == [1, 5, 6, 7]
    assert found["missing"] == [0, 8, 9][: len(found["missing"])]


def test_rows_of_a_time_that_is_not_covered_are_shown_and_said_to_be_a_part(
    charts: ChartsFixture,
) -> None:
    charts.count([visit(NOON), visit(NOON + DAY, site="b")], has_history=False)
    range_ = {"start": MIDNIGHT - DAY, "stop": MIDNIGHT + 2 * DAY, "select": "visits"}
    found = get(charts.client(), "/api/visits-1d/series", by="site", **range_)
    assert [series["values"] for series in found["series"]] == [[None, 1, None], [None, None, 1]]
    assert (found["partial"], found["missing"]) == ([1, 2], [0])


def test_a_bucket_opens_with_the_first_second_that_is_covered(charts: ChartsFixture) -> None:
    charts.count([visit(NOON)])
    for until, partial, missing in (
        (MIDNIGHT + DAY, [], [1]),
        (MIDNIGHT + DAY + 1, [1], []),
        (MIDNIGHT + 2 * DAY - 1, [1], []),
        (MIDNIGHT + 2 * DAY, [], []),
    ):
        charts.cover(until)
        query = {"start": MIDNIGHT, "stop": MIDNIGHT + 2 * DAY}
        found = get(charts.client(), "/api/visits-1d/series", **query)
        assert (found["partial"], found["missing"]) == (partial, missing)


def test_the_rest_is_not_taken_for_an_empty_key(charts: ChartsFixture) -> None:
    moment = MIDNIGHT + 10.0
    charts.count([visit(moment + n, site=site) for n, site in enumerate(["", "", "b", "c"])])
    charts.cover()
    client, query = charts.client(), f"start={MIDNIGHT}&stop={MIDNIGHT + DAY}&by=site&top=1"
    address = f"/api/visits-1d/series?{query}&select=visits&format="
    [empty, rest] = csv.DictReader(io.StringIO(client.get(f"{address}csv").text))
    assert (empty["site"], empty["visits"]) == ("", "2")
    assert (rest["site"], rest["visits"]) == ("other", "2")
    lines = client.get(f"{address}ndjson").text.splitlines()
    assert [json.loads(line)["site"] for line in lines] == ["", None]


def test_fill(charts: ChartsFixture) -> None:
    messages = [visit(NOON), visit(NOON + 2 * DAY), visit(NOON + 2 * DAY, seconds=3)]
    charts.count(messages)
    charts.cover(MIDNIGHT + 5 * DAY, since=MIDNIGHT - DAY)
    query = {"start": MIDNIGHT - 2 * DAY, "stop": MIDNIGHT + 4 * DAY}
    expected = {
        "": {"visits": [None, 0, 1, 0, 2, 0], "longest": [None, None, 1, None, 3, None]},
        "zero": {"visits": [None, 0, 1, 0, 2, 0], "longest": [None, 0, 1, 0, 3, 0]},
        "null": {"visits": [None, None, 1, None, 2, None]},
        "previous": {"visits": [None, None, 1, 1, 2, 2], "longest": [None, None, 1, 1, 3, 3]},
    }
    client = charts.client()
    for fill, values in expected.items():
        more = {"fill": fill} if fill else {}
        found = get(client, "/api/visits-1d/series", **query, **more)
        by_column = {series["column"]: series["values"] for series in found["series"]}
        assert by_column | values == by_column, fill


def test_without_a_range_it_is_that_of_the_last_hundred_buckets(charts: ChartsFixture) -> None:
    now = time.time()
    charts.count([visit(now)])
    charts.cover(now)
    path = "/api/visits-1d/series"
    found = get(charts.client(), path, select="visits")
    assert len(found["times"]) == 100
    assert found["start"] < now < found["stop"] + 1
    assert found["times"][-1] == now // DAY * DAY
    assert found["series"][0]["values"][-1] == 1
    assert found["partial"] == [99]
    assert len(get(charts.client(), f"{path}?start=-6d")["times"]) == 7
    # Of the days of Kolkata: six whole ones, without today.
    assert len(get(charts.client(), f"{path}?start=-6d&stop=-0d&tz=Asia/Kolkata")["times"]) == 6
    found = get(charts.client(), f"{path}?start=2023-11-01&stop=2023-12&tz=Asia/Kolkata")
    assert (len(found["times"]), found["start"]) == (30, 1698777000)


# Which tables it is made of.


def test_months_of_a_zone_are_made_of_days_and_what_is_left_at_their_ends(
    charts: ChartsFixture,
) -> None:
    charts.count(visit(NOON + number * HOUR) for number in range(24 * 60))
    charts.cover()
    query = {"start": "2023-11", "stop": "2024-01", "tz": "Asia/Kolkata", "resolution": "month"}
    found = get(charts.client(), "/api/visits-1d/series", select="visits", **query)
    # From 12:00 UTC of the 15th, which was 17:30, to the end of November, and all of December.
    assert found["series"][0]["values"] == [15 * 24 + 7, 31 * 24]
    # The narrow rows in the midst of the month are not read.
    november, december = MIDNIGHT + 2 * DAY, MIDNIGHT + 14 * DAY
    for name in ("visits_15m", "visits_1h"):
        charts.execute(
            text(f"DELETE FROM {name} WHERE timestamp BETWEEN {november} AND {december}")
        )
    charts.execute(text("UPDATE statscache_revision SET revision = revision + 1"))
    assert get(charts.client(), "/api/visits-1d/series", select="visits", **query) == found


def test_a_table_that_covers_less_is_not_read_where_a_narrower_one_covers_more(
    charts: ChartsFixture,
) -> None:
    charts.count([visit(NOON)])
    charts.cover()
    # The days were added later, without history.
    late = update(tables.plugin).values(since=MIDNIGHT + 10 * DAY)
    charts.execute(late.where(tables.plugin.c.ident == "visits-1d"))
    charts.execute(text("DELETE FROM visits_1d"))
    query = {"start": MIDNIGHT, "stop": MIDNIGHT + 2 * DAY, "select": "visits"}
    found = get(charts.client(), "/api/visits-1d/series", **query)
    assert (found["series"][0]["values"], found["missing"]) == ([1, 0], [])


def test_a_wider_table_that_was_never_written_is_not_read(charts: ChartsFixture) -> None:
    charts.count([visit(NOON)])
    charts.execute(text("DELETE FROM visits_1d"))
    charts.execute(text("DELETE FROM statscache_revision WHERE ident = 'visits-1d'"))
    query = {"start": MIDNIGHT, "stop": MIDNIGHT + DAY, "select": "visits", "resolution": "1d"}
    found = get(charts.client(), "/api/visits-1h/series", **query)
    assert found["series"][0]["values"] == [1]


def test_a_narrower_table_that_was_pruned_is_not_read(charts: ChartsFixture) -> None:
    charts.count([visit(NOON)])
    charts.cover()
    pruned = update(tables.plugin).values(pruned_until=MIDNIGHT + DAY)
    charts.execute(pruned.where(tables.plugin.c.ident == "visits-15m"))
    charts.execute(text("DELETE FROM visits_15m"))
    query = {"start": MIDNIGHT, "stop": MIDNIGHT + 2 * DAY, "select": "visits"}
    found = get(charts.client(), "/api/visits-15m/series", resolution="1h", **query)
    assert found["series"][0]["total"] == 1
    assert found["missing"] == []
    # Where there is nothing else, nobody knows: of the first day half an hour before midnight.
    zone = {"tz": "Asia/Kolkata", "resolution": "1d", "fill": "null"}
    found = get(charts.client(), "/api/visits-15m/series", **zone, **query)
    assert (found["partial"], found["missing"]) == ([0, 1], [])
    found = get(charts.client(), "/api/visits-15m/series", **query)
    assert found["missing"] == list(range(96))
    assert found["series"][0]["values"][:97] == [None] * 96 + [0]


# What is refused.


@pytest.mark.parametrize(
    ("query", "parameter", "detail", "allowed"),
    [
        ("?tz=Berlin", "tz", "name of a time zone", None),
        ("?tz=../../etc/passwd", "tz", "name of a time zone", None),
        ("?resolution=5m", "resolution", "must be one of 15m, 30m", ["15m", "year"]),
        ("?start=2015&stop=2023&resolution=month&points=5", "points", "even by the year", None),
        ("?start=2023-02&stop=2023-01", "start", "must be earlier than stop", None),
        ("?start=2023-02&stop=2023-02", "start", "must be earlier than stop", None),
        ("?start=9000", "start", "must be earlier than stop", None),
        ("?tz=Asia/Kolkata&stop=2101", "stop", "later than 2100", None),
        ("?start=1970&resolution=15m", "resolution", "more than 10000 buckets", ["week", "month"]),
        ("?start=1970&stop=9999&points=1", "points", "even by the year", None),
        ("?by=nothing", "by", "must be one of site, gate, user", ["site"]),
        ("?by=site&top=101", "top", "from 1 to 100", None),
        ("?by=site&top=0", "top", "from 1 to 100", None),
        ("?fill=nan", "fill", "zero, null, previous", ["zero"]),
        ("?select=note", "select", "visits, shortest, longest, mood", ["mood"]),
        ("?note=x", "note", "is not a parameter", ["user", "not_site"]),
        ("?gate=one", "gate", "whole number", None),
        ("?start=2023&stop=2024&resolution=1h&by=site", None, "more than 50000 numbers", None),
    ],
)
def test_bad_queries(
    client: FlaskClient, query: str, parameter: str | None, detail: str, allowed: list[str] | None
) -> None:
    problem = refused(client, f"/api/visits-1d/series{query}")
    assert problem.get("parameter") == parameter
    assert detail in problem["detail"]
    assert set(allowed or []) <= set(problem.get("allowed") or [])


def test_days_that_the_rows_cannot_give_are_refused_with_the_reason(client: FlaskClient) -> None:
    problem = refused(client, "/api/days-1d/series?tz=Asia/Kolkata")
    assert problem["parameter"] == "tz"
    assert "begin or end within rows of days-1d" in problem["detail"]
    assert problem["allowed"] == []
    # Where clocks show UTC they can.
    query = "start=2023-01-02&stop=2023-02-01&tz=Europe/London"
    assert get(client, f"/api/days-1d/series?{query}")["tz"] == "Europe/London"
    refused(client, "/api/days-1d/series?start=2023-06-01&stop=2023-06-03&tz=Europe/London")
    # Forty-four minutes and a half behind UTC.
    problem = refused(client, "/api/visits-15m/series?start=1971&stop=1971-02&tz=Africa/Monrovia")
    assert "begin or end within rows of visits-15m" in problem["detail"]
    found = get(client, "/api/visits-1d/series?start=2023-10&stop=2023-11&tz=Australia/Eucla")
    assert len(found["times"]) == 31


def test_more_series_than_can_be_drawn_are_refused(charts: ChartsFixture) -> None:
    charts.count(visit(NOON, site=f"{number:03}") for number in range(101))
    query = f"start={NOON}&stop={NOON + DAY}&by=site"
    problem = refused(charts.client(), f"/api/visits-1d/series?{query}")
    assert "say top, or filter by site" in problem["detail"]
    found = get(charts.client(), f"/api/visits-1d/series?{query}&top=2&select=visits")
    assert [series["values"] for series in found["series"]] == [[1], [1], [99]]
    found = get(charts.client(), f"/api/visits-1d/series?{query}&not_site=007&select=visits")
    assert len(found["series"]) == 100


def test_people_are_ranked_unless_the_operator_says_otherwise(client: FlaskClient) -> None:
    assert get(client, "/api/visits-1d/series?by=user&top=2")["by"] == "user"
    uri = client.application.extensions["statscache"].settings.uri
    wary = ChartsFixture(uri, Visits, Days, **{"statscache.people.rankings": False}).client()
    problem = refused(wary, "/api/visits-1d/series?by=user&top=2", 403)
    assert "statscache.people.rankings" in problem["detail"]
    assert get(wary, "/api/visits-1d/series?by=user")["by"] == "user"


def test_points_choose_the_finest_resolution_that_is_not_finer(client: FlaskClient) -> None:
    for points, resolution in ((1000, "1h"), (800, "1h"), (200, "6h"), (40, "1d"), (6, "week")):
        query = f"start=2023-10&stop=2023-11&points={points}"
        found = get(client, f"/api/visits-1d/series?{query}")
        assert found["resolution"] == resolution
        assert len(found["times"]) <= points
    found = get(client, "/api/days-1d/series?start=2023-10&stop=2023-11&points=1000")
    assert found["resolution"] == "1d"


# Classic plugins, and what has no buckets.


@pytest.fixture(scope="module", params=BACKENDS)
def classics(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[ChartsFixture]:
    with migrated(request, request.param, tmp_path_factory.mktemp("classics")) as uri:
        charts = ChartsFixture(uri, Latest, Log, Moments, Stars, Weights)
        fill_in(charts)
        yield charts


def fill_in(charts: ChartsFixture) -> None:
    charts.count([])

    def at(moment: float) -> datetime:
        return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)

    charts.execute(
        insert(WeightsModel).values(
            [{"timestamp": at(NOON + number * HOUR), "scalar": 10 + number} for number in range(3)]
        )
    )
    rows = [(1, "b", 1), (1, "a", 2), (2, "a", 3), (2, "a", 4), (3, "c", 5)]
    charts.execute(
        insert(StarsModel).values(
            [
                {"timestamp": at(MIDNIGHT + day * DAY), "category": category, "scalar": scalar}
                for day, category, scalar in rows
            ]
        )
    )
    charts.cover(MIDNIGHT + 4 * DAY)


def test_windows_of_classic_plugins_are_labelled_by_their_start(classics: ChartsFixture) -> None:
    query = {"start": NOON - 2 * HOUR, "stop": NOON + 3 * HOUR}
    found = get(classics.client(), "/api/weights-1h/series", **query)
    assert found["times"] == [NOON + number * HOUR for number in range(-2, 3)]
    # The row of noon is of the hour before it.
    assert found["series"][0]["values"] == [0, 10, 11, 12, 0]
    query = {"start": MIDNIGHT, "stop": MIDNIGHT + 5 * DAY}
    found = get(classics.client(), "/api/stars-1d/series", **query)
    assert found["series"][0]["values"] == [3, 7, 5, 0, None]
    found = get(classics.client(), "/api/stars-1d/series", by="category", top=2, **query)
    assert {series["name"]: series["values"] for series in found["series"]} == {
        "a": [2, 7, 0, 0, None],
        "c": [0, 0, 5, 0, None],
        "other": [1, 0, 0, 0, None],
    }
    found = get(classics.client(), "/api/stars-1d/series", not_category="a", **query)
    assert found["series"][0]["total"] == 6


def test_windows_of_classic_plugins_stay_as_they_are(classics: ChartsFixture) -> None:
    client = classics.client()
    problem = refused(client, "/api/stars-1d/series?resolution=week")
    assert problem["allowed"] == ["1d"]
    problem = refused(client, "/api/stars-1d/series?tz=Asia/Kolkata")
    assert "does not say how they are merged" in problem["detail"]
    found = get(client, "/api/weights-1h/series?start=2023-11-15&stop=2023-11-16&tz=Europe/Berlin")
    assert found["series"][0]["total"] == 33
    refused(client, "/api/weights-1h/series?tz=Asia/Kolkata")


@pytest.mark.parametrize("route", ["series", "summary", "top"])
@pytest.mark.parametrize(
    ("ident", "reason"),
    [
        ("log-1d", "has no column of numbers"),
        ("moments", "is not counted in buckets"),
        ("latest", "is not counted in buckets"),
    ],
)
def test_what_has_no_buckets_or_no_numbers(
    classics: ChartsFixture, route: str, ident: str, reason: str
) -> None:
    if ident == "latest" and route != "series":
        # Latest values have a sum, and largest keys.
        assert classics.client().get(f"/api/{ident}/{route}").status_code == 200
        return
    problem = refused(classics.client(), f"/api/{ident}/{route}", 404)
    assert reason in problem["detail"]
    assert f"/api/{ident}" in problem["detail"]
