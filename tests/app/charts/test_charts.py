"""Summaries, the largest keys and the values of a column; and what all charts are read by."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from statscache.app.charts import sources
from statscache.app.charts.calendar import Calendar, fixed, resolutions, time_zone
from statscache.app.charts.sources import SourceTable, Unfit
from statscache.app.routes import series, summary, top, values
from statscache.app.state.coverage import Coverage
from statscache.database import tables
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins import Aggregate, Row, Value
from statscache.plugins.installed import discovery
from tests.support.charts import (
    DAY,
    EDGES,
    HOUR,
    MERGES,
    UNTIL,
    ZONE_NAMES,
    ChartsFixture,
    Days,
    Latest,
    Visits,
    counted,
    get,
    label,
    refused,
    visit,
    visits,
)
from tests.support.databases import BACKENDS, migrated
from tests.support.paths import ROOT

MESSAGES = visits(600, seed=1)
NOON = datetime(2023, 11, 15, 12, tzinfo=UTC).timestamp()
MIDNIGHT = int(NOON) - 12 * HOUR
few = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=BACKENDS)
def charts(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[ChartsFixture]:
    """A database that no test changes."""
    with counted(request, tmp_path_factory, MESSAGES, Visits, Days, Latest) as charts:
        yield charts


@pytest.fixture(scope="module")
def client(charts: ChartsFixture) -> FlaskClient:
    return charts.client()


@pytest.fixture
def own(migrated_uri: str) -> ChartsFixture:
    """A database that the test may change."""
    return ChartsFixture(migrated_uri, Visits, Days)


@given(
    edge=st.sampled_from(EDGES),
    span=st.sampled_from([900, DAY, 30 * DAY, 500 * DAY]),
    zone=st.sampled_from(ZONE_NAMES),
    resolution=st.sampled_from(["15m", "1d", "month", "year"]),
    column=st.sampled_from(sorted(MERGES)),
    by=st.sampled_from(["site", "gate", "user"]),
    limit=st.integers(1, 9),
)
@few
def test_summary_and_top_equal_a_naive_recount(
    client: FlaskClient,
    edge: str,
    span: int,
    zone: str,
    resolution: str,
    column: str,
    by: str,
    limit: int,
) -> None:
    start = datetime.fromisoformat(edge).timestamp() - span / 2
    query = {"start": start, "stop": start + span, "tz": zone, "select": column}
    resolution = "1d" if span > 100 * DAY and resolution == "15m" else resolution
    query |= {"resolution": resolution}
    assume(label(start, resolution, zone) != label(start + span, resolution, zone))
    found = get(client, "/api/visits-1h/summary", **query)
    assert found["start"] <= start < found["stop"] <= start + span
    for end in (found["start"], found["stop"]):
        assert label(end - 1, query["resolution"], zone) != label(end, query["resolution"], zone)
    inside = [one for one in MESSAGES if found["start"] <= one.timestamp < found["stop"]]
    nothing = 0 if column == "visits" else None
    assert found["value"] == (MERGES[column](inside) if inside else nothing)
    top = get(client, "/api/visits-1h/top", by=by, limit=limit, **query)
    amounts = {
        key: MERGES[column]([one for one in inside if one.msg[by] == key])
        for key in {one.msg[by] for one in inside}
    }
    largest = sorted(amounts.items(), key=lambda item: (-item[1], item[0]))
    assert [(each["key"], each["value"]) for each in top["top"]] == largest[:limit]
    assert top["keys"] == len(amounts)
    assert top["total"] == found["value"]
    shares = [each["share"] for each in top["top"]]
    if column != "visits":
        assert set(shares) <= {None}
    elif limit >= len(amounts) > 0:
        assert sum(shares) == pytest.approx(1)


def test_summary_tells_zero_from_unknown_and_from_a_part(own: ChartsFixture) -> None:
    own.count([visit(NOON)])
    own.cover(MIDNIGHT + 5.5 * DAY, since=MIDNIGHT - DAY)
    client = own.client()
    for start, stop, value, state in (
        (-1, 1, 1, "complete"),
        (1, 3, 0, "complete"),
        (1, 6, 0, "partial"),
        (5, 6, 0, "partial"),
        (6, 8, None, "missing"),
        (-2, 1, 1, "partial"),
        (-4, -2, None, "missing"),
    ):
        query = {"start": MIDNIGHT + start * DAY, "stop": MIDNIGHT + stop * DAY}
        found = get(client, "/api/visits-1d/summary", **query)
        assert (found["value"], found["state"]) == (value, state), (start, stop)
        assert found["coverage"]["until"] == MIDNIGHT + 5 * DAY
        top = get(client, "/api/visits-1d/top", by="site", **query)
        assert (top["total"], top["state"], top["keys"]) == (value, state, value or 0)


def test_summary_compares_with_the_time_before(own: ChartsFixture) -> None:
    days = {-3: 3, -2: 1, -1: 4, 0: 2, 1: 3, -365: 7}
    own.count(visit(NOON + day * DAY) for day, count in days.items() for _ in range(count))
    own.cover(MIDNIGHT + 2 * DAY, since=MIDNIGHT - 370 * DAY)
    path, client = "/api/visits-1d/summary", own.client()
    found = get(client, path, start=MIDNIGHT, stop=MIDNIGHT + 2 * DAY, compare="previous")
    assert (found["value"], found["previous"], found["change"]) == (5, 5, 0)
    assert (found["previous_start"], found["previous_stop"]) == (MIDNIGHT - 2 * DAY, MIDNIGHT)
    assert found["previous_state"] == "complete"
    found = get(client, path, start=MIDNIGHT, stop=MIDNIGHT + DAY, compare="year")
    assert (found["previous"], found["previous_start"]) == (7, MIDNIGHT - 365 * DAY)
    assert found["change"] == pytest.approx(-5 / 7)
    # From nothing nothing can be a part.
    found = get(client, path, start=MIDNIGHT - 3 * DAY, stop=MIDNIGHT, compare="previous")
    assert (found["value"], found["previous"], found["change"]) == (8, 0, None)
    # What is not known is not nothing.
    found = get(client, path, start="2022-11-01", stop="2022-11-30", compare="previous")
    assert (found["state"], found["previous"]) == ("partial", None)
    assert (found["previous_state"], found["change"]) == ("missing", None)
    found = get(client, path, start="1970-01-01", stop="1970-01-02", compare="previous")
    assert (found["previous"], found["previous_start"]) == (None, None)
    query = {"start": "2023-11-13", "stop": "2023-11-20", "resolution": "week"}
    found = get(client, path, compare="year", **query)
    assert found["previous_start"] == datetime(2022, 11, 14, tzinfo=UTC).timestamp()
    # Of the week as much as has been counted.
    assert found["compared_stop"] - found["compared_start"] == 4 * DAY
    assert found["previous_stop"] - found["previous_start"] == 4 * DAY
    query = {"start": "2023-11", "stop": "2023-12", "tz": "Asia/Kolkata", "resolution": "month"}
    found = get(client, path, compare="previous", **query)
    october = datetime(2023, 9, 30, 18, 30, tzinfo=UTC).timestamp()
    assert found["previous_start"] == october
    assert "previous" not in get(client, path)


def test_an_open_range_is_compared_with_as_much_of_the_one_before(own: ChartsFixture) -> None:
    """A visit each ten minutes of two days, of which the second has come to 9:20."""
    own.count(visit(MIDNIGHT + n * 600) for n in range(6 * 24 + 56))
    own.cover(MIDNIGHT + DAY + 9.34 * HOUR, since=MIDNIGHT - 400 * DAY)
    client, day = own.client(), {"start": MIDNIGHT + DAY, "stop": MIDNIGHT + 2 * DAY}
    path = "/api/visits-1d/summary"
    found = get(client, path, compare="previous", select="visits", **day)
    assert (found["value"], found["state"]) == (56, "partial")
    # Rows of fifteen minutes are the narrowest.
    assert found["compared_start"] == day["start"]
    assert found["compared_stop"] == day["start"] + 9.25 * HOUR
    assert (found["previous_start"], found["previous_stop"]) == (
        MIDNIGHT,
        MIDNIGHT + 9.25 * HOUR,
    )
    assert (found["compared"], found["previous"], found["change"]) == (56, 56, 0)
    assert found["previous_state"] == "complete"
    # All the resolutions, and CSV, say the same.
    keys = ("compared", "compared_stop", "previous", "previous_stop", "change")
    for ident in ("visits-15m", "visits-1h"):
        same = get(client, f"/api/{ident}/summary", compare="previous", **day)
        assert [same[key] for key in keys] == [found[key] for key in keys]
    text = client.get(path, query_string=day | {"compare": "previous", "format": "csv"}).text
    [row] = csv.DictReader(io.StringIO(text))
    assert [float(row[key]) for key in keys] == [found[key] for key in keys]
    # Both days together, and the two before.
    found = get(client, path, start=MIDNIGHT, stop=MIDNIGHT + 2 * DAY, compare="previous")
    assert (found["compared"], found["previous"], found["change"]) == (200, 0, None)
    assert found["previous_stop"] == MIDNIGHT - 2 * DAY + DAY + 9.25 * HOUR
    # Of a year before, at the same time of day; of a range that is whole, all.
    found = get(client, path, compare="year", **day)
    assert found["previous_stop"] == day["start"] - 365 * DAY + 9.25 * HOUR
    found = get(client, path, start=MIDNIGHT, stop=MIDNIGHT + DAY, compare="previous")
    assert (found["compared_stop"], found["previous_stop"]) == (MIDNIGHT + DAY, MIDNIGHT)
    # What has not begun to be counted is compared with nothing.
    found = get(client, path, start=MIDNIGHT + 2 * DAY, stop=MIDNIGHT + 3 * DAY, compare="previous")
    assert [found[key] for key in keys] == [None] * 5
    # It grows with what has been counted, although no row was written.
    etags = {client.get(f"{path}?{urlencode(day | {'compare': 'previous'})}").headers["ETag"]}
    own.cover(MIDNIGHT + DAY + 9.6 * HOUR)
    answer = own.client().get(path, query_string=day | {"compare": "previous"})
    assert answer.headers["ETag"] not in etags
    assert answer.json["previous"] == 57


def test_a_comparison_is_no_finer_than_the_rows_that_both_ranges_have(own: ChartsFixture) -> None:
    own.count(visit(MIDNIGHT + n * 600) for n in range(6 * 24 + 58))
    own.cover(MIDNIGHT + DAY + 9.6 * HOUR, since=MIDNIGHT - 9 * DAY)
    # The quarters of an hour of the first day were deleted.
    pruned = update(tables.plugin).where(tables.plugin.c.ident == "visits-15m")
    own.execute(pruned.values(pruned_until=MIDNIGHT + 12 * HOUR))
    day = {"start": MIDNIGHT + DAY, "stop": MIDNIGHT + 2 * DAY}
    found = get(own.client(), "/api/visits-1d/summary", compare="previous", **day)
    assert found["compared_stop"] == day["start"] + 9 * HOUR
    assert (found["compared"], found["previous"]) == (54, 54)
    assert found["previous_state"] == "complete"
    # Where there are only days, those that have ended are compared.
    own.cover(MIDNIGHT + 1.5 * DAY)
    query = {"start": MIDNIGHT - DAY, "stop": MIDNIGHT + 2 * DAY, "compare": "previous"}
    found = get(own.client(), "/api/days-1d/summary", **query)
    assert (found["compared_stop"], found["previous_stop"]) == (MIDNIGHT + DAY, MIDNIGHT - 2 * DAY)


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_download_of_values_has_as_many_as_may_be_and_says_if_there_are_others(
    own: ChartsFixture, form: str
) -> None:
    header = int(form == "csv")
    own.count([visit(NOON, site=f"{number:04}") for number in range(1001)])
    client, path = own.client(), f"/api/visits-1d/values/site?format={form}"
    for query, count, has_more in (
        ("", 1000, True),
        ("&limit=30", 30, True),
        ("&q=00", 100, False),
    ):
        answer = client.get(path + query)
        assert len(answer.text.splitlines()) == count + header
        assert answer.headers.get("X-Has-More") == ("true" if has_more else None)


@pytest.mark.parametrize(
    ("until", "zone", "resolution", "start", "expected"),
    [
        # A month that is longer than the one before has come to where that has its end.
        ("2023-03-30T12:00Z", "UTC", "month", "2023-03", "2023-03-01T00:00Z"),
        ("2023-03-10T12:00Z", "UTC", "month", "2023-03", "2023-02-10T12:00Z"),
        # Days are as far as clocks say, though one was shorter: at three in the afternoon.
        ("2023-03-26T13:00Z", "Europe/Berlin", "1d", "2023-03-26", "2023-03-25T14:00Z"),
        ("2023-03-27T13:00Z", "Europe/Berlin", "1d", "2023-03-27", "2023-03-26T13:00Z"),
        ("2023-11-16T09:31Z", "Asia/Kolkata", "week", "2023-11-13", "2023-11-09T09:30Z"),
        ("2023-11-16T09:31Z", "UTC", "1h", "2023-11-16T09:00", "2023-11-16T08:30Z"),
    ],
)
def test_how_far_the_range_before_had_come(
    own: ChartsFixture, until: str, zone: str, resolution: str, start: str, expected: str
) -> None:
    own.count([visit(NOON)])
    own.cover(datetime.fromisoformat(until).timestamp(), since=MIDNIGHT - 700 * DAY)
    stop = {"month": "2023-04", "week": "2023-11-20", "1h": "2023-11-16T10:00"}.get(
        resolution, f"{start[:-1]}{int(start[-1]) + 1}"
    )
    query = {"start": start, "stop": stop, "tz": zone, "resolution": resolution}
    found = get(own.client(), "/api/visits-15m/summary", compare="previous", **query)
    assert found["previous_stop"] == datetime.fromisoformat(expected).timestamp()


def test_as_csv_and_ndjson(client: FlaskClient) -> None:
    query = {"start": "2010", "stop": "2024", "resolution": "year"}
    total = sum(one.msg["visits"] for one in MESSAGES if one.timestamp < UNTIL)
    whole = client.get("/api/visits-1d/summary", query_string=query | {"format": "csv"})
    [row] = csv.DictReader(io.StringIO(whole.text))
    assert (row["value"], row["state"], row["column"]) == (str(total), "complete", "visits")
    top = client.get("/api/visits-1d/top", query_string=query | {"format": "csv", "by": "site"})
    rows = list(csv.DictReader(io.StringIO(top.text)))
    assert sum(int(row["visits"]) for row in rows) == total
    assert list(rows[0]) == ["site", "visits", "_share"]
    names = client.get("/api/visits-1d/values/site?format=csv").text
    assert names.split() == ["site", *"abcdefgh"]
    assert client.get("/api/visits-1d/values/site?format=ndjson").text.startswith('{"site":"a"}\n')


def test_bad_queries(client: FlaskClient, own: ChartsFixture) -> None:
    problem = refused(client, "/api/visits-1d/top?by=mood")
    assert (problem["parameter"], problem["allowed"]) == ("by", ["site", "gate", "user"])
    assert "limit" in refused(client, "/api/visits-1d/top?by=site&limit=1001")["parameter"]
    assert "select" in refused(client, "/api/visits-1d/summary?select=visits,mood")["parameter"]
    assert "compare" in refused(client, "/api/visits-1d/summary?compare=decade")["parameter"]
    assert "tz" in refused(client, "/api/days-1d/summary?tz=Asia/Kolkata")["parameter"]
    problem = refused(client, "/api/visits-1d/values/mood", 404)
    assert problem["allowed"] == ["site", "gate", "user"]
    refused(client, "/api/visits-1d/values/" + "x" * 500, 404)
    assert "q" in refused(client, "/api/visits-1d/values/gate?q=1")["parameter"]
    # By the key of before people are not compared, and are listed all the same.
    own = ChartsFixture(own.uri, Visits, Days, **{"statscache.people.rankings": False})
    own.count([visit(NOON)])
    assert get(own.client(), "/api/visits-1d")[0]["user"]
    for path in ("top?by=user", "values/user", "values/user?q=ralph"):
        problem = refused(own.client(), f"/api/visits-1d/{path}", 403)
        assert "statscache.people.rankings" in problem["detail"]
    assert get(own.client(), "/api/visits-1d/top", by="site")["by"] == "site"
    assert get(own.client(), "/api/visits-1d/values/site")["values"] == ["a"]


# Typeahead.

LETTERS = "aAbBpPyY\u00e9\u00df\ud7ff\ue000\U0001f3a9\U0010ffff"
STORED = sorted(
    {
        one + two + three
        for one in LETTERS
        for two in LETTERS[::2]
        for three in ("", "y", "\U0010ffff")
    }
)


@pytest.fixture(scope="module", params=BACKENDS)
def names(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Any]:
    """Names that are stored, and the API."""
    with migrated(request, request.param, tmp_path_factory.mktemp("names")) as uri:
        charts = ChartsFixture(uri, Visits, Latest)
        charts.count(visit(NOON + number, site=name) for number, name in enumerate(STORED))
        yield STORED, charts.client()


@given(
    q=st.text(st.sampled_from(LETTERS + "%_"), max_size=3),
    limit=st.integers(1, 600),
    ident=st.sampled_from(["visits-1d", "visits-15m", "latest"]),
)
@few
def test_values_that_begin_so(names: Any, q: str, limit: int, ident: str) -> None:
    stored, client = names
    found = get(client, f"/api/{ident}/values/site", q=q, limit=limit)
    written = (q, q.lower(), q.upper(), q.capitalize())
    matching = [name for name in stored if name.startswith(written)]
    assert found["has_more"] == (len(matching) > limit)
    assert len(found["values"]) == min(limit, len(matching))
    assert set(found["values"]) <= set(matching)
    assert found["values"] == sorted(found["values"], key=lambda name: (name.casefold(), name))


def test_values_of_numbers_and_of_nothing(names: Any, own: ChartsFixture) -> None:
    _, client = names
    assert get(client, "/api/visits-1d/values/gate")["values"] == [1]
    own.count([])
    assert get(own.client(), "/api/visits-1d/values/site")["values"] == []


def test_a_table_that_is_not_there_yet(migrated_uri: str) -> None:
    client = ChartsFixture(migrated_uri, Visits).client()
    assert get(client, "/api/visits-1d/values/site")["values"] == []
    found = get(
        client, "/api/visits-1d/series", select="visits", start="2023-11-01", stop="2023-11-03"
    )
    assert found["series"][0]["values"] == [None, None]
    query = {"start": "2023-11-01", "stop": "2023-11-03", "by": "site"}
    assert get(client, "/api/visits-1d/series", **query)["series"] == []
    assert get(client, "/api/visits-1d/top", **query)["top"] == []
    assert get(client, "/api/visits-1d/summary")["value"] is None


# How it is read.


class Explained:
    """The plans of the statements that read the tables of a plugin."""

    def __init__(self, charts: ChartsFixture) -> None:
        self._place = charts
        self.client = charts.client()
        self._statements: list[tuple[str, Any]] = []
        service = self.client.application.extensions["statscache"]
        sa.event.listen(
            service.service.database.database.engine, "before_cursor_execute", self._note
        )

    def _note(self, _c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM visits_" in statement:
            self._statements.append((statement, parameters))

    def plans(self, path: str, **query: Any) -> str:
        self._statements.clear()
        get(self.client, path, **query)
        assert self._statements
        statements = list(self._statements)
        database = Database(self._place.uri)
        with database.begin() as connection:
            explain = "EXPLAIN QUERY PLAN "
            if database.backend == "postgresql":
                # So small a table it would rather scan.
                connection.exec_driver_sql("SET enable_seqscan = off")
                connection.exec_driver_sql("SET enable_bitmapscan = off")
                explain = "EXPLAIN "
            plans = [
                str(row)
                for statement, parameters in statements
                for row in connection.exec_driver_sql(explain + statement, parameters)
            ]
        database.dispose()
        return "\n".join(plans)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("series", {}),
        ("series", {"tz": "Asia/Kolkata", "resolution": "month"}),
        ("series", {"user": "ralph"}),
        ("series", {"by": "site", "site": ["a", "b"]}),
        ("series", {"by": "site", "top": 2, "select": "visits"}),
        ("series", {"select": "mood"}),
        ("summary", {"compare": "previous"}),
        ("top", {"by": "user"}),
        ("top", {"by": "user", "select": "mood"}),
        ("values/site", None),
        ("values/user", {"q": "r"}),
    ],
)
def test_everything_is_read_from_an_index(charts: ChartsFixture, path: str, query: Any) -> None:
    explained = Explained(charts)
    if query is not None and "q" not in query:
        query = query | {"start": "2023-01-01", "stop": "2023-04-01"}
    plans = explained.plans(f"/api/visits-1d/{path}", **(query or {}))
    assert "Seq Scan on visits" not in plans
    assert "SCAN visits" not in plans
    assert "Index" in plans or "SEARCH visits" in plans
    # An index of whole numbers is not searched for others.
    assert "double precision" not in plans
    assert "::numeric" not in plans


def test_one_person_is_found_by_the_index_of_people(charts: ChartsFixture) -> None:
    query = {"start": "2023-01-01", "stop": "2023-04-01", "user": "ralph", "select": "visits"}
    plans = Explained(charts).plans("/api/visits-1d/series", **query)
    assert "ix_visits_1d_user" in plans


# Of which tables.


class Plain(Aggregate):
    name, summary, description = "plain", "numbers", "For tests."
    values = (Value("n"),)
    resolutions = tuple(timedelta(seconds=width) for width in (900, 3600, 7200, 86_400, 604_800))

    def rows(self, _message: Message) -> tuple[Row, ...]:
        return ((1,),)


PLAIN = discovery.load([(discovery.Source("t", "t", "1"), lambda: Plain)], {})
ALWAYS = Coverage(since=0, until=5e9)


def sources_of(*widths: int) -> list[SourceTable]:
    return [
        SourceTable(dataset, table.width, table.offset, 0, ALWAYS, is_open=False)
        for table in reversed(PLAIN.aggregates[0].tables)
        if table.width in widths
        for dataset in [PLAIN.datasets[table.ident]]
    ]


@given(
    edge=st.sampled_from(EDGES),
    zone=st.sampled_from(ZONE_NAMES),
    resolution=st.sampled_from(["15m", "1h", "6h", "1d", "week", "month"]),
    count=st.integers(1, 40),
    widths=st.sets(st.sampled_from([3600, 7200, 86_400, 604_800])),
)
def test_whole_rows_make_every_bucket_once(
    edge: str, zone: str, resolution: str, count: int, widths: set[int]
) -> None:
    start = datetime.fromisoformat(edge).timestamp()
    width = resolutions([900])[resolution]
    calendar = Calendar(width, time_zone(zone))
    buckets = calendar.between(start, start + count * width.width, 100)
    parts = sources.divide(buckets, sources_of(900, *widths))
    found = [piece for part in parts for piece in part.pieces]
    assert sum(piece.stop - piece.start for piece in found) == sum(
        piece.stop - piece.start for piece in buckets.pieces
    )
    for part in parts:
        source, pieces = part.source, part.pieces
        for piece in pieces:
            assert (piece.start - source.offset) % source.width == 0
            assert (piece.stop - source.offset) % source.width == 0
            assert any(
                whole.start <= piece.start < piece.stop <= whole.stop
                for whole in buckets.pieces
                if whole.number == piece.number
            )
    ordered = sorted(found)
    assert all(one.stop <= other.start for one, other in itertools.pairwise(ordered))
    # The widest that there are: no piece holds a row of a wider source.
    widest = sources_of(900, *widths)
    for part in parts:
        source, pieces = part.source, part.pieces
        for wider in widest[: [each.width for each in widest].index(source.width)]:
            for start, stop, _ in pieces:
                first = start + (wider.offset - start) % wider.width
                assert first + wider.width > stop


def test_what_no_rows_can_give() -> None:
    days = Calendar(fixed(DAY), time_zone("Asia/Kathmandu")).between(NOON, NOON + DAY, 5)
    with pytest.raises(Unfit):
        sources.divide(days, sources_of(3600, 86_400))
    assert sources.divide(days, sources_of(900))


# What is kept.


def test_an_answer_stands_until_a_table_or_a_bucket_changes(own: ChartsFixture) -> None:
    own.count([visit(NOON)])
    own.cover(MIDNIGHT + 5.5 * DAY)
    path = f"/api/visits-1d/series?start={MIDNIGHT}&stop={MIDNIGHT + 10 * DAY}"
    first = own.client().get(path)

    def again() -> int:
        # Another process would say the same, and sees what was committed at once.
        tag = {"If-None-Match": first.headers["ETag"]}
        return own.client().get(path, headers=tag).status_code

    assert again() == 304
    # The hub goes on to listen: nothing that is told changes within the bucket.
    own.cover(MIDNIGHT + 5.75 * DAY)
    assert again() == 304
    own.cover(MIDNIGHT + 6.25 * DAY)
    assert again() == 200
    own.cover(MIDNIGHT + 5.75 * DAY)
    assert again() == 304
    # A narrower table, of which days of other zones are made.
    narrow = update(tables.revision).where(tables.revision.c.ident == "visits-15m")
    own.execute(narrow.values(revision=tables.revision.c.revision + 1))
    assert again() == 200


def test_how_long_an_answer_may_be_kept(own: ChartsFixture) -> None:
    own.count([visit(NOON)])
    own.cover(MIDNIGHT + 5.5 * DAY)
    for route, stop, seconds in (
        ("series", MIDNIGHT + 5 * DAY, 3600),
        ("series", MIDNIGHT + 6 * DAY, 60),
        ("summary", MIDNIGHT + 5 * DAY, 3600),
        ("top", MIDNIGHT + 6 * DAY, 60),
    ):
        query = {"start": MIDNIGHT, "stop": stop} | ({"by": "site"} if route == "top" else {})
        answer = own.client().get(f"/api/visits-1d/{route}", query_string=query)
        assert answer.headers["Cache-Control"] == f"public, max-age={seconds}"


def test_numbers_beyond_64_bits_are_rounded(own: ChartsFixture) -> None:
    own.count([visit(NOON, visits=2**62), visit(NOON + DAY, visits=2**62), visit(NOON, site="b")])
    own.cover()
    query = {"start": MIDNIGHT, "stop": MIDNIGHT + 4 * DAY}
    assert get(own.client(), "/api/visits-1d/summary", **query)["value"] == 2.0**63
    year = {"start": 2023, "stop": 2024, "resolution": "year"}
    found = get(own.client(), "/api/visits-1d/series", **year)
    assert found["series"][0]["values"] == [2.0**63]
    top = get(own.client(), "/api/visits-1d/top", by="site", **query)
    assert [each["value"] for each in top["top"]] == [2.0**63, 1]


def test_every_parameter_is_documented() -> None:
    document = (ROOT / "docs" / "api.rst").read_text()
    for route in (series.ROUTE, summary.ROUTE, top.ROUTE, values.ROUTE):
        assert f"GET {route.rule}``" in document
        for parameter in route.parameters:
            name = re.escape(parameter.name)
            assert re.search(rf"``([a-z]+``, ``)?{name}(``|=)", document), (route.name, name)


def test_sums_are_not_compiled(own: ChartsFixture) -> None:
    if own.uri.startswith("postgresql"):
        service = own.client().application.extensions["statscache"]
        with service.service.database.begin() as connection:
            assert connection.scalar(sa.text("SHOW jit")) == "off"
