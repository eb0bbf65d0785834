"""Quantiles of bins: equal to those of the single numbers, up to the error that is declared."""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statscache.message import Message
from statscache.plugins import Aggregate, Key, Value
from tests.support.charts import (
    DAY,
    EDGES,
    HOUR,
    Visits,
    counted,
    get,
    label,
    refused,
)
from tests.support.databases import BACKENDS
from tests.support.messages import message

ERROR = 0.02
GROWTH = (1 + ERROR) / (1 - ERROR)
TIME_ZONE_NAMES = ("America/St_Johns", "Asia/Kathmandu", "Asia/Tokyo", "Europe/Berlin", "UTC")
few = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Middles(Key):
    """A key of bins whose middles the plugin computes."""

    type: type = float
    error: float = ERROR


def middle(number: float) -> float:
    """Of the logarithmic bin that ``number`` is in."""
    if number == 0:
        return 0.0
    edge_number = math.floor(math.log(abs(number)) / math.log(GROWTH))
    return math.copysign(GROWTH**edge_number * (1 + ERROR), number)


class Durations(Aggregate):
    name = "durations"
    summary = "how long builds took"
    description = "For tests."
    keys = (Key("package", role="package"), Middles("seconds"))
    values = (Value("builds"), Value("files"), Value("longest", "largest"))
    resolutions = (timedelta(minutes=15), timedelta(days=1))

    def __init__(self, config: Mapping[str, Any]) -> None:
        # What is read is the same, whoever makes the bins.
        self.has_own_rows = True
        self._make(config)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        body = message.msg
        return [(body["package"], middle(body["seconds"]), 1, body["files"], 1)]


class Sites(Visits):
    """Without bins."""

    topics = ("org.fedoraproject.prod.site.visit",)


def durations(count: int = 800) -> list[Message]:
    generator = random.Random(6)
    found = []
    for _ in range(count):
        edge = datetime.fromisoformat(generator.choice(EDGES)).timestamp()
        body = {
            "package": generator.choice(["bash", "kernel", "vim"]),
            "seconds": generator.choice([0, 1, 5.5, generator.lognormvariate(5, 2), -3]),
            "files": generator.randint(0, 4),
        }
        moment = edge + generator.choice((HOUR, DAY, 20 * DAY)) * generator.uniform(-1, 1)
        found.append(message("org.fedoraproject.prod.build", moment, body))
    return found


MESSAGES = durations()


@pytest.fixture(scope="module", params=BACKENDS)
def client(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[FlaskClient]:
    """The API on a database that no test changes."""
    with counted(request, tmp_path_factory, MESSAGES, Durations, Sites) as charts:
        yield charts.client()


def quantile(found: Sequence[Message], part: str, weight: str = "builds") -> float | None:
    """Of the single numbers: the smallest up to which that part of them lies."""
    weighed = sorted((one.msg["seconds"], one.msg.get(weight, 1)) for one in found)
    numbers = [number for number, times in weighed for _ in range(times)]
    if not numbers:
        return None
    return float(numbers[max(1, math.ceil(Fraction(part) * len(numbers))) - 1])


def is_near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= ERROR * abs(other) * (1 + 1e-9)


@given(
    edge=st.sampled_from(EDGES),
    zone=st.sampled_from(TIME_ZONE_NAMES),
    resolution=st.sampled_from(["1d", "week", "month"]),
    parts=st.lists(
        st.sampled_from(["0", "0.1", "0.5", "0.9", "0.99", "1"]), min_size=1, unique=True
    ),
    weight=st.sampled_from(["builds", "files"]),
)
@few
def test_quantiles_are_those_of_the_numbers(
    client: FlaskClient, edge: str, zone: str, resolution: str, parts: list[str], weight: str
) -> None:
    start = datetime.fromisoformat(edge).timestamp() - 40 * DAY
    query: dict[str, Any] = {"start": start, "stop": start + 40 * DAY, "resolution": resolution}
    query |= {"tz": zone, "quantile": ",".join(parts), "select": weight}
    answer = client.get("/api/durations-1d/series", query_string=query)
    if answer.status_code == 400:
        assert (answer.json["parameter"], zone) == ("tz", "America/St_Johns")
        return
    found = answer.json
    assert (found["weight"], found["error"]) == (weight, ERROR)
    inside = [one for one in MESSAGES if found["start"] <= one.timestamp < found["stop"]]
    for part, line in zip(parts, found["series"], strict=True):
        assert (line["quantile"], line["column"]) == (float(part), "seconds")
        for moment, value in zip(found["times"], line["values"], strict=True):
            own = [
                one
                for one in inside
                if label(one.timestamp, resolution, zone) == label(moment, resolution, zone)
            ]
            assert is_near(value, quantile(own, part, weight))
        assert is_near(line["total"], quantile(inside, part, weight))
    summary = get(client, "/api/durations-15m/summary", **query)
    assert summary["merge"] == "quantile"
    assert [(each["quantile"], each["value"]) for each in summary["quantiles"]] == [
        (line["quantile"], line["total"]) for line in found["series"]
    ]
    assert summary["value"] == summary["quantiles"][0]["value"]
    by = get(client, "/api/durations-15m/series", by="package", top=2, **query)
    for line in by["series"]:
        named = {each["key"]["package"] for each in by["series"] if each["key"] is not None}
        own = [
            one
            for one in inside
            if (
                one.msg["package"] not in named
                if line["key"] is None
                else one.msg["package"] == line["key"]["package"]
            )
        ]
        assert is_near(line["total"], quantile(own, f"{line['quantile']}", weight))


def test_keys_are_ranked_by_a_quantile(client: FlaskClient) -> None:
    query = {"start": "2023-01", "stop": "2024-01", "quantile": "0.9", "by": "package"}
    found = get(client, "/api/durations-1d/top", **query)
    inside = [one for one in MESSAGES if found["start"] <= one.timestamp < found["stop"]]
    assert len(found["top"]) == 3
    for row in found["top"]:
        own = [one for one in inside if one.msg["package"] == row["key"]]
        assert is_near(row["value"], quantile(own, "0.9"))
        assert row["share"] is None
    values = [row["value"] for row in found["top"]]
    assert values == sorted(values, reverse=True)
    assert (found["quantile"], found["error"]) == (0.9, ERROR)


def test_nothing_has_no_quantile(client: FlaskClient) -> None:
    query = {"start": "2012-06-01", "stop": "2012-06-03", "quantile": "0.5", "package": "none"}
    found = get(client, "/api/durations-1d/series", **query)
    assert found["series"][0]["values"] == [None, None]
    assert (found["missing"], found["series"][0]["total"]) == ([], None)
    found = get(client, "/api/durations-1d/summary", compare="previous", **query)
    assert (found["value"], found["state"]) == (None, "complete")
    assert found["quantiles"][0]["change"] is None


def test_bins_are_keys_and_their_sums_are_a_histogram(client: FlaskClient) -> None:
    query = {"start": "2023-10", "stop": "2023-12", "by": "seconds", "limit": 1000}
    found = get(client, "/api/durations-1d/top", **query)
    inside = [one for one in MESSAGES if found["start"] <= one.timestamp < found["stop"]]
    assert sum(row["value"] for row in found["top"]) == len(inside)
    zeros = [row["value"] for row in found["top"] if row["key"] == 0]
    assert zeros == [sum(one.msg["seconds"] == 0 for one in inside)]
    query = {"start": "2023-10", "stop": "2023-12", "by": "seconds", "top": 3, "select": "builds"}
    lines = get(client, "/api/durations-1d/series", **query)
    assert [line["key"]["seconds"] for line in lines["series"][:3]] == [
        row["key"] for row in found["top"][:3]
    ]


def test_csv_has_a_column_or_a_row_for_each(client: FlaskClient) -> None:
    query = {"start": "2023-10", "stop": "2023-12", "quantile": "0.5,.9", "format": "csv"}
    answer = client.get("/api/durations-1d/series", query_string=query)
    header, *_ = csv.reader(io.StringIO(answer.text))
    assert header == ["timestamp", "_quantile_0.5", "_quantile_0.9", "_state"]
    answer = client.get("/api/durations-1d/summary", query_string=query)
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header[0] == "quantile"
    assert [row[0] for row in rows] == ["0.5", "0.9"]


def test_what_does_not_go_together_is_refused(client: FlaskClient) -> None:
    path = "/api/durations-1d/series"
    for text in ("2", "-1", "0.5,", "", "half", "0.12345678", ",".join(["0.5"] * 11), "0.5,0.50"):
        assert refused(client, path, quantile=text)["parameter"] == "quantile", text
    assert refused(client, path, quantile="0.5", count="package")["parameter"] == "quantile"
    problem = refused(client, path, quantile="0.5", by="seconds")
    assert (problem["parameter"], problem["allowed"]) == ("by", ["package"])
    for select in ("longest", "builds,files"):
        problem = refused(client, path, quantile="0.5", select=select)
        assert (problem["parameter"], problem["allowed"]) == ("select", ["builds", "files"])
    assert refused(client, path, count="seconds")["allowed"] == ["package"]
    assert refused(client, "/api/durations-1d/top", quantile="0.5,0.9")["parameter"] == "quantile"
    problem = refused(client, "/api/visits-1d/series", quantile="0.5")
    assert (problem["parameter"], problem["allowed"]) == ("quantile", [])


def test_two_ways_to_write_a_quantile_are_one_query(client: FlaskClient) -> None:
    tags = {
        client.get(f"/api/durations-1d/series?start=2023-10&stop=2023-12&quantile={text}").headers[
            "ETag"
        ]
        for text in ("0.5", "0.50", ".5")
    }
    assert len(tags) == 1


def test_discovery_says_of_what_there_are_quantiles(client: FlaskClient) -> None:
    entry = get(client, "/api/plugins/durations-1d")
    (column,) = (each for each in entry["columns"] if each["name"] == "seconds")
    assert (column["type"], column["error"], column["filter"]) == ("number", ERROR, False)
    answers = {"count": ["package"], "quantile": ["seconds"], "hour_of_week": True}
    assert entry["answers"] == answers
    assert "quantile" in entry["examples"]
    for address in entry["examples"].values():
        get(client, address)
    page = client.get("/api/durations-1d", headers={"Accept": "text/html"}).text
    assert "series?quantile=0.5,0.9&amp;points=12" in page
    assert get(client, "/api/plugins/visits-1d")["answers"]["quantile"] == []
    document = get(client, "/openapi.json")["paths"]
    for ident, has_it in (("durations-1d", True), ("visits-1d", False)):
        names = [each["name"] for each in document[f"/api/{ident}/series"]["get"]["parameters"]]
        assert ("quantile" in names) is has_it
