"""The OpenAPI document: valid, complete, and true of every answer.

``STATSCACHE_OPENAPI=100`` asks every operation in so many ways, other ones every time; without it
those of one dataset of each shape are asked in a few.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import Case, CheckContext, GenerationMode, Response

from statscache.app.application import build_app
from statscache.app.routes.openapi import PROBLEM_SCHEMA
from statscache.plugins import Aggregate
from statscache.plugins.installed.discovery import Dataset
from tests.support.api_fixture import Sizes, api_fixture, things
from tests.support.bundled import NOW
from tests.support.examples import tried
from tests.support.full_app import FullApp
from tests.support.routes import ROUTES

EXAMPLES = int(os.environ.get("STATSCACHE_OPENAPI", "0"))
FEW = 2

JSON, CSV, NDJSON = "application/json", "text/csv", "application/x-ndjson"

TIMES = ("-7d", "now", "-1d-12h", "2015-10", "2015-10-20T06:00:00+01:00", "1445000000.5", "0")
ZONE_NAMES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns")


@pytest.fixture(scope="module")
def document(full_app: FullApp) -> dict[str, Any]:
    answer = full_app.client().get("/openapi.json")
    assert answer.content_type == JSON
    found: dict[str, Any] = answer.json
    return found


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, Any]:
    """By path; there is nothing but GET."""
    assert all(set(item) == {"get"} for item in document["paths"].values())
    return {path: item["get"] for path, item in document["paths"].items()}


def tags(full_app: FullApp) -> tuple[set[str], set[str]]:
    """Of the finest dataset of each shape, and of the coarsest one."""
    by_shape: dict[Any, list[Dataset]] = {}
    for dataset in sorted(full_app.installed.datasets.values(), key=width):
        by_shape.setdefault(shape(dataset), []).append(dataset)
    assert len(by_shape) >= 6
    finest = {datasets[0].ident for datasets in by_shape.values()}
    return finest | {"service"}, {datasets[-1].ident for datasets in by_shape.values()}


@pytest.fixture(scope="module")
def chosen(full_app: FullApp, operations: dict[str, Any]) -> dict[str, Any]:
    """The operations of the finest and the coarsest dataset of each shape; or all."""
    finest, coarsest = tags(full_app)
    return {
        path: operation
        for path, operation in operations.items()
        if EXAMPLES or operation["tags"][0] in finest | coarsest
    }


def shape(dataset: Dataset) -> Any:
    """What makes a dataset be asked in another way than others."""
    columns = {name: str(each.type) for name, each in dataset.model.__table__.columns.items()}
    is_aggregate = isinstance(dataset.plugin, Aggregate)
    keys: Any = columns
    if is_aggregate:
        # What is told of people is told in another way; other roles make no difference here.
        keys = [(key.type, key.role == "user") for key in dataset.plugin.keys]
    return is_aggregate, dataset.schedule is not None, str(keys), dataset.layout is not None


def width(dataset: Dataset) -> float:
    return 0.0 if dataset.schedule is None else dataset.schedule.interval.total_seconds()


def is_endless(operation: dict[str, Any]) -> bool:
    return "text/event-stream" in operation["responses"]["200"]["content"]


def schema_of(operation: dict[str, Any], media_type: str, status: str = "200") -> Any:
    return operation["responses"][status]["content"][media_type]["schema"]


def test_the_document_is_valid_and_complete(
    full_app: FullApp, document: dict[str, Any], operations: dict[str, Any], chosen: dict[str, Any]
) -> None:
    if full_app.uri.startswith("sqlite"):
        # It takes long, and the other document is the same.
        paths = {path: document["paths"][path] for path in chosen}
        OpenAPIV31SpecValidator({**document, "paths": paths}).validate()
    for reference in references(document):
        here: Any = document
        for part in reference.removeprefix("#/").split("/"):
            here = here[part.replace("~1", "/").replace("~0", "~")]
        assert here, reference
    for operation in operations.values():
        for parameter in operation["parameters"]:
            assert parameter["schema"].get("enum", True), operation["operationId"]
    names = Counter(operation["operationId"] for operation in operations.values())
    assert names.most_common(1)[0][1] == 1


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            assert value["$ref"].startswith("#/")
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_address_has_an_operation(full_app: FullApp, operations: dict[str, Any]) -> None:
    expected = {route.rule for route in ROUTES if "<" not in route.rule}
    client = full_app.client()
    for entry in client.get("/api/plugins").json["plugins"]:
        expected |= set(entry["links"].values())
    assert set(operations) == expected
    # What is not there would not be answered.
    for route, dataset in itertools.product(ROUTES, full_app.installed.datasets.values()):
        if "<ident>" in route.rule and "<column>" not in route.rule:
            address = route.rule.replace("<ident>", dataset.ident)
            if address not in operations:
                # Of one window that nobody can merge there may be an answer, of others not.
                assert client.get(address).status_code in (400, 404), address


def test_every_example_works(full_app: FullApp, chosen: dict[str, Any]) -> None:
    client = full_app.client()
    shown = set()
    for path, operation in chosen.items():
        for parameter in operation["parameters"]:
            if "example" not in parameter or is_endless(operation):
                continue
            example = parameter["example"]
            Draft202012Validator(parameter["schema"]).validate(example)
            answer = client.get(path, query_string={parameter["name"]: example})
            assert answer.status_code == 200, (path, parameter["name"], answer.text)
            shown.add(parameter["name"])
    assert {"start", "stop", "resolution", "tz", "points", "compare", "limit", "q"} <= shown


def test_all_examples_work_together(full_app: FullApp, chosen: dict[str, Any]) -> None:
    """Tools fill in all of them at once, and people leave some of them out."""
    finest, _ = tags(full_app)
    client = full_app.client()
    shown = set()
    for path, operation in chosen.items():
        if is_endless(operation):
            continue
        examples = {
            each["name"]: each["example"] for each in operation["parameters"] if "example" in each
        }
        # All of them at once on the coarsest, too.
        is_tried = EXAMPLES or operation["tags"][0] in finest
        pairs = itertools.combinations(examples, 2) if is_tried else ()
        needed = {each["name"] for each in operation["parameters"] if each.get("required")}
        for names in (set(examples), *map(set, pairs)):
            query = {name: examples[name] for name in names | needed}
            answer = client.get(path, query_string=query)
            assert answer.status_code == 200, (path, query, answer.text)
        shown.add(frozenset(examples))
    assert any({"start", "stop", "resolution", "points", "tz"} <= names for names in shown)


def test_the_document_is_of_what_the_operator_offers(
    full_app: FullApp, chosen: dict[str, Any]
) -> None:
    settings = full_app.service.settings
    few = replace(settings, people=replace(settings.people, lists=False), datagrepper_endpoint=None)
    client = build_app(few, full_app.installed, clock=lambda: NOW).test_client()
    paths = client.get("/openapi.json").json["paths"]
    shown = set()
    for path, item in paths.items():
        operation = item["get"]
        needed = {
            each["name"]: each["example"]
            for each in operation["parameters"]
            if each.get("required")
        }
        if path in chosen and not is_endless(operation):
            answer = client.get(path, query_string=needed)
            assert answer.status_code == 200, (path, answer.text)
            shown.update(needed)
    assert shown == {"q", "user"}
    assert not [path for path in paths if path.endswith("/messages")]
    assert [path for path in chosen if path.endswith("/messages")]


@pytest.mark.parametrize(
    ("hours", "zone"), [(24, "UTC"), (6, "UTC"), (1, "Europe/Berlin"), (0.5, "Asia/Kolkata")]
)
def test_the_examples_are_those_of_what_the_plugin_has(
    migrated_uri: str, hours: float, zone: str
) -> None:
    class Only(Sizes):
        resolutions = (timedelta(hours=hours),)

    with api_fixture(migrated_uri, Only) as api:
        api.count(things(("a", 1)))
        found = set()
        for path, item in api.client.get("/openapi.json").json["paths"].items():
            operation = item["get"]
            named = {
                each["name"]: each["example"]
                for each in operation["parameters"]
                if "example" in each
            }
            if "tz" not in named:
                continue
            for query in (named, {"tz": named["tz"]}):
                answer = api.client.get(path, query_string=query)
                assert answer.status_code == 200, (path, query, answer.text)
            found.add(named["tz"])
        assert found == {zone}


def test_a_resolution_and_points(full_app: FullApp) -> None:
    address = "/api/volume-1h/series?start=-1d&stop=now"
    found = {
        query: full_app.client().get(f"{address}{query}").json["resolution"]
        for query in ("", "&points=300", "&points=300&resolution=3h", "&points=2&resolution=3h")
    }
    assert list(found.values())[0::2] == ["1h", "3h"]
    assert found["&points=2&resolution=3h"] in ("day", "1d")


def test_where_nobody_says_by_which_column(full_app: FullApp) -> None:
    client = full_app.client()
    for ident, column in (("volume-by-category-1h", "category"), ("volume-by-topic-1h", "topic")):
        series = client.get(f"/api/{ident}/series?start=-1d&top=2").json
        assert (series["by"], len(series["series"])) == (column, 3)
        assert client.get(f"/api/{ident}/top?start=-1d").json["by"] == column
    refused = client.get("/api/volume-1h/series?top=2")
    assert refused.status_code == 400
    assert "nothing to tell apart" in refused.get_json(force=True)["detail"]


def test_every_answer_fits_its_schema(full_app: FullApp, chosen: dict[str, Any]) -> None:
    client = full_app.client()
    routes = {route.name: route for route in ROUTES}
    told: Counter[str] = Counter()
    for path, operation in chosen.items():
        route = routes[operation["operationId"].partition(".")[0]]
        content = operation["responses"]["200"]["content"]
        if JSON not in content:
            continue
        answer = client.get(path + route.example)
        assert (answer.status_code, answer.content_type) == (200, JSON), (path, answer.text)
        Draft202012Validator(content[JSON]["schema"]).validate(answer.json)
        script = client.get(f"{path}{route.example or '?'}&callback=a.b")
        assert script.content_type.partition(";")[0] in content
        assert script.data.startswith(b"/**/a.b(")
        told[route.name] += len(rows_of(path, route.name, answer.json))
        if CSV in content:
            check_table(client, path, route, content, answer.json)
    # What holds nothing fits every schema.
    assert all(told[name] for name in ("rows", "series", "top", "values", "plugins"))


def test_every_page_is_there(full_app: FullApp, operations: dict[str, Any]) -> None:
    client = full_app.client()
    for path, operation in operations.items():
        if "text/html" in operation["responses"]["200"]["content"]:
            selects = any(each["name"] == "select" for each in operation["parameters"])
            for query in ("", "select=timestamp") if selects else ("",):
                address = f"{path}?{query}"
                answer = client.get(address, headers={"Accept": "text/html"})
                assert answer.status_code == 200, (address, answer.text)
                assert answer.content_type == "text/html; charset=utf-8"
                assert "</html>" in answer.text
            if selects:
                # As in other formats.
                for name, text in (("cursor", "x"), ("rows_per_page", "all")):
                    refused = client.get(path, query_string={name: text, "format": "html"})
                    assert refused.status_code == 400
                    assert json.loads(refused.data)["parameter"] == name


def rows_of(path: str, name: str, value: Any) -> list[Any]:
    if name == "rows":
        assert value, path
        return list(value)
    if name == "series":
        return [each for one in value["series"] for each in one["values"] if each]
    return list(value.get(name, ())) if isinstance(value, dict) else []


def check_table(client: Any, path: str, route: Any, content: dict[str, Any], value: Any) -> None:
    """CSV and NDJSON have the same rows, of which those of JSON are the first page."""
    texts = {}
    for media_type in (CSV, NDJSON):
        answer = client.get(path + route.example, headers={"Accept": media_type})
        assert answer.status_code == 200, (path, answer.text)
        assert answer.content_type.partition(";")[0] == media_type
        assert media_type in content
        texts[media_type] = answer.get_data(as_text=True)
    header, *table = csv.reader(io.StringIO(texts[CSV], newline=""))
    objects = [json.loads(line) for line in texts[NDJSON].split("\n")[:-1]]
    assert len(objects) == len(table), path
    for cells, row in zip(table, objects, strict=True):
        assert list(row) == header
        assert cells == ["" if each is None else str(each) for each in row.values()], path
    if route.name == "rows":
        assert objects[: len(value)] == value
        Draft202012Validator(content[JSON]["schema"]).validate(objects)


def test_every_event_fits_its_schema(full_app: FullApp, operations: dict[str, Any]) -> None:
    threads = {"wsgi.multithread": True}
    for path, operation in operations.items():
        if not is_endless(operation):
            continue
        query = {"rows": "true"} if path.endswith("-1d/events") else {}
        answer = full_app.client().get(path, query_string=query, environ_overrides=threads)
        assert answer.status_code == 200
        assert answer.content_type == "text/event-stream; charset=utf-8"
        first = next(answer.iter_encoded()).decode()
        answer.close()
        schema = operation["responses"]["200"]["content"]["text/event-stream"]["x-event-data"]
        data = [line[6:] for line in first.splitlines() if line.startswith("data: ")]
        assert data, path
        for each in data:
            Draft202012Validator(schema).validate(json.loads(each))


def test_what_is_not_ready_fits_its_schema(full_app: FullApp, operations: dict[str, Any]) -> None:
    later = build_app(full_app.service.settings, full_app.installed, clock=lambda: NOW + 86_400)
    answer = later.test_client().get("/readyz")
    assert answer.status_code == 503
    Draft202012Validator(schema_of(operations["/readyz"], JSON, "503")).validate(answer.json)


def says_what_is_wrong(_context: CheckContext, response: Response, case: Case) -> None:
    """A refusal names a parameter that was given, or is missing."""
    if response.status_code < 400:
        return
    problem = json.loads(response.content)
    Draft202012Validator(PROBLEM_SCHEMA).validate(problem)
    assert problem["status"] == response.status_code
    if response.status_code == 400:
        declared = {parameter.name for parameter in case.operation.query}
        known = {name[:80] for name in {*case.query, *declared}}
        assert problem.get("parameter") in known or "more than 200" in problem["detail"]


@pytest.fixture(scope="module")
def asked(full_app: FullApp) -> list[Any]:
    """The operations of the finest dataset of each shape; or all."""
    config = schemathesis.Config.from_dict(
        {
            "checks": {
                # Which parameters go together is more than a schema can say.
                "positive_data_acceptance": {"enabled": False},
                "negative_data_rejection": {"expected-statuses": ["400", "406", "414"]},
            }
        }
    )
    schema = schemathesis.openapi.from_wsgi("/openapi.json", full_app.app, config=config)
    found = [result.ok() for result in schema.get_all_operations()]
    finest, _ = tags(full_app)
    return [operation for operation in found if EXAMPLES or operation.tags[0] in finest]


@pytest.mark.parametrize("mode", GenerationMode)
def test_whatever_is_asked_is_answered_as_declared(asked: list[Any], mode: GenerationMode) -> None:
    statuses: Counter[int] = Counter()
    for operation in asked:
        if mode is GenerationMode.NEGATIVE and not operation.query:
            continue

        @tried(FEW, EXAMPLES)
        @given(
            case=operation.as_strategy(generation_mode=mode),
            plausible=st.fixed_dictionaries(
                {
                    "start": st.sampled_from(TIMES),
                    "stop": st.sampled_from(TIMES),
                    "tz": st.sampled_from(ZONE_NAMES),
                }
            ),
        )
        def ask(case: Case, plausible: dict[str, str]) -> None:
            if mode is GenerationMode.POSITIVE:
                # Most texts are neither a zone nor a range.
                case.query |= {name: plausible[name] for name in plausible if name in case.query}
            response = case.call_and_validate(
                headers={"Accept-Encoding": "identity"}, additional_checks=[says_what_is_wrong]
            )
            statuses[response.status_code] += 1

        ask()
    assert max(statuses) < 500
    if mode is GenerationMode.POSITIVE:
        # Otherwise it would say little.
        assert statuses[200] > sum(statuses.values()) / 3, statuses
