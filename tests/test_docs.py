"""The documents are held to the code: what there is is documented, and what is documented is so."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import flask
import pytest
from docutils import nodes
from flask.testing import FlaskClient

from statscache import plugins, testing
from statscache.app import create_app
from statscache.app.charts import ranges
from statscache.app.dispatch.route import Route
from statscache.app.http import problems, response
from statscache.app.http.parameters import LONGEST_QUERY
from statscache.app.live import long_poll
from statscache.app.routes import badge, batch, openapi, series, top, values
from statscache.app.state import coverage, filters, row_reader
from statscache.cli import statscache as command_line
from statscache.config import Settings
from statscache.message import Message
from statscache.plugins import Aggregate, BasePlugin
from statscache.plugins.installed import discovery
from tests.support import bundled
from tests.support.databases import migrated
from tests.support.documents import (
    API,
    DOCUMENTS,
    OPERATING,
    PLUGINS,
    README,
    document,
    listed,
    literals,
    section,
    terms,
)
from tests.support.paths import ROOT
from tests.support.routes import ROUTES

SERVER = "http://127.0.0.1:8080"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_well_formed(name: str) -> None:
    assert document(name).astext()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_documents_name_exist(name: str) -> None:
    file = re.compile(
        r"(?:[\w.-]+/)*[\w.-]+\.(?:py|rst|toml|ini|wsgi|jsonl|css)|[\w-]+/(?:[\w-]+/)*"
    )
    for text in literals(name):
        if file.fullmatch(text):
            places = (ROOT / text, (ROOT / name).parent / text)
            assert any(place.exists() for place in places), text


# The API.


def described(route: Route) -> nodes.section:
    return section(API, f"GET {route.rule}")


def test_every_route_is_documented_and_nothing_else() -> None:
    titles = [node[0].astext() for node in document(API).findall(nodes.section)]
    documented = [title for title in titles if title.startswith("GET ")]
    assert sorted(documented) == sorted(f"GET {route.rule}" for route in ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_parameter_is_documented_and_nothing_else(route: Route) -> None:
    shared = listed(section(API, "Formats"), "Parameter")
    documented = listed(described(route), "Parameter")
    parameters = [parameter.name for parameter in route.all_parameters]
    assert sorted(documented) == sorted(set(parameters) - set(shared))
    text = described(route).astext()
    assert ("Takes Filters" in text) == route.filterable
    assert not (route.filterable and not document(API).nameids.get("filters"))


def test_shared_parameters_are_those_that_no_route_declares() -> None:
    shared = set(listed(section(API, "Formats"), "Parameter"))
    everywhere = {parameter.name for route in ROUTES for parameter in route.all_parameters}
    declared = {parameter.name for route in ROUTES for parameter in route.parameters}
    assert shared == everywhere - declared
    assert set(listed(section(API, "Filters"), "Parameter")) == {"<column>", "not_<column>"}


def keys(schema: Mapping[str, Any], told: dict[int, str], path: str = "") -> Iterator[str]:
    """The keys of an answer, such as ``series[].name``; but of objects that were told already."""
    if schema.get("type") == "array" or "items" in schema:
        yield from keys(schema["items"], told, f"{path}[]")
        return
    for choice in schema.get("oneOf", ()):
        yield from keys(choice, told, path)
    properties = schema.get("properties", {})
    if told.setdefault(id(properties), path) != path:
        return
    for name, value in properties.items():
        inner = f"{path}.{name}" if path else name
        yield inner
        yield from keys(value, told, inner)


def schema_of(route: Route, app: flask.Flask) -> Mapping[str, Any]:
    if not callable(route.schema):
        return route.schema
    datasets = app.extensions["statscache"].installed.datasets.values()
    return route.schema(next(filter(route.applies, datasets)))


def test_every_key_of_the_answers_is_documented_and_nothing_else(app: flask.Flask) -> None:
    # These have sections of their own.
    told = {id(coverage.SCHEMA["properties"]): "in its own section"}
    by_rule = {route.rule: route for route in ROUTES}
    titles = [node[0].astext() for node in document(API).findall(nodes.section)]
    # Kept, so that no two have one identity.
    schemas = {rule: schema_of(route, app) for rule, route in by_rule.items()}
    for title in titles:
        if not title.startswith("GET ") or title == "GET /api/<ident>":
            # Rows have the columns of the plugin.
            continue
        route = by_rule[title.removeprefix("GET ")]
        expected = list(keys(schemas[route.rule], told))
        assert sorted(listed(described(route), "Key")) == sorted(expected), title
    assert set(listed(section(API, "Coverage"), "Key")) == set(coverage.SCHEMA["properties"])
    errors = listed(section(API, "Statuses and errors"), "Key")
    assert errors == list(openapi.PROBLEM_SCHEMA["properties"])


def test_every_status_is_documented() -> None:
    documented = set(listed(section(API, "Statuses and errors"), "Status"))
    source = "".join(path.read_text() for path in (ROOT / "statscache/app").rglob("*.py"))
    raised = set(re.findall(r"Problem\(\s*(\d{3})\b", source))
    assert {"400", "404", "414", "503"} <= raised
    statuses = {"200", "304", *raised, *openapi._STATUSES, *map(str, problems._DETAILS)}
    assert documented == statuses


def test_every_header_is_documented(client: FlaskClient) -> None:
    sent = set(response.EXPOSED.split(", "))
    for path, headers in (
        ("/api/volume-1h?rows_per_page=1", {}),
        ("/api/volume-1h?rows_per_page=1", {"Accept": "text/html", "Accept-Encoding": "gzip"}),
        ("/api/volume-1h?limt=1", {}),
        ("/api/volume-1h/events", {}),
    ):
        answer = client.get(path, headers=headers, multithread=True)
        answer.close()
        sent |= {name for name, _ in answer.headers}
    asked = {name for name, _ in client.options("/api/volume-1h").headers}
    documented = section(API, "Headers")
    assert set(listed(documented, "Header")) == sent - {"Content-Type", "Content-Length"}
    told = {node.astext() for node in documented.findall(nodes.literal)}
    assert asked - sent <= told


def test_bounds_that_are_documented_are_those_of_the_code() -> None:
    text = " ".join(document(API).astext().split())
    for phrase in (
        f"longer than {LONGEST_QUERY // 1024} KiB",
        f"{ranges.MOST_BUCKETS:,} buckets and {series.MOST_CELLS:,} numbers",
        f"those of the first {row_reader.MOST_NUMBERED_ROWS:,} rows",
        f"Up to {batch.MOST_QUERIES} answers",
        f"{long_poll.LONGEST} at most",
        f"how many keys; default: {top.DEFAULT_LIMIT}, at most {top.MOST_KEYS:,}",
        f"how many; default: {values.DEFAULT_LIMIT}, at most {values.MOST_VALUES:,}",
        f"{badge.CACHE_SECONDS}, the minimum",
    ):
        assert phrase in text, phrase
    assert (filters.MOST_VALUES, series.MOST_SERIES, series.DEFAULT_BUCKETS) == (100, 100, 100)
    for phrase in ("A hundred values", "a hundred at most", "the last hundred buckets"):
        assert phrase in text, phrase


# Examples.


@dataclass(frozen=True)
class Example:
    """A command of a document, and what it answers there; empty if that is not shown."""

    document: str
    command: str
    answer: str

    @property
    def address(self) -> str:
        (found,) = (word for word in shlex.split(self.command) if word.startswith(SERVER))
        return found.removeprefix(SERVER)

    @property
    def headers(self) -> list[tuple[str, str]]:
        words = shlex.split(self.command)
        options = [word for word in words[1:] if word.startswith("-")]
        assert set(options) <= {"-H", "-N"}, f"unknown to this test: {self.command}"
        pairs = (words[n + 1].split(": ", 1) for n, word in enumerate(words) if word == "-H")
        return [(name, text) for name, text in pairs]

    @property
    def is_endless(self) -> bool:
        return "-N" in shlex.split(self.command)

    @property
    def pattern(self) -> str:
        """An expression for the answer, without blanks; dots stand for what is left out."""
        return ".*?".join(re.escape(re.sub(r"\s", "", part)) for part in self.answer.split("..."))

    def __str__(self) -> str:
        return f"{Path(self.document).stem}:{self.address}"


def examples_of(name: str) -> Iterator[Example]:
    for block in document(name).findall(nodes.literal_block):
        command, shown = "", []
        for line in [*block.astext().splitlines(), "$ curl"]:
            if re.match(r"(\$ )?curl\b", line):
                if command:
                    yield Example(name, command, "\n".join(shown))
                command, shown = line.removeprefix("$ "), []
            else:
                shown.append(line)


EXAMPLES = [example for name in (README, API) for example in examples_of(name)]


@pytest.fixture(scope="module")
def app(
    request: pytest.FixtureRequest,
    corpus: list[Message],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[flask.Flask]:
    with migrated(request, "sqlite", tmp_path_factory.mktemp("docs")) as uri:
        yield bundled.counted(uri, bundled.recent(corpus))


@pytest.fixture(scope="module")
def client(app: flask.Flask) -> FlaskClient:
    return app.test_client()


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_examples_are_answered_as_they_say(example: Example, client: FlaskClient) -> None:
    answer = client.get(example.address, headers=example.headers, multithread=True)
    said = re.search(r'^\{"type": "about:blank".*?"status": (\d+)', example.answer, re.DOTALL)
    assert answer.status_code == (int(said[1]) if said else 200), answer.text
    # Events have no end.
    text = next(answer.iter_encoded()).decode() if example.is_endless else answer.text
    answer.close()
    if answer.mimetype.endswith("json"):
        text = json.dumps(json.loads(text), ensure_ascii=False)
    if example.is_endless or example.answer:
        is_so = re.fullmatch(example.pattern or "retry:.*", re.sub(r"\s", "", text), re.DOTALL)
        assert is_so, f"{text[:500]} is not {example.answer}"


def test_the_examples_of_the_readme_work_at_any_time_and_without_an_archive(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with migrated(request, "sqlite", tmp_path) as uri:
        newcomer = create_app({"statscache.sqlalchemy.uri": uri}).test_client()
        for example in EXAMPLES:
            if example.document == README and not example.is_endless:
                answer = newcomer.get(example.address, headers=example.headers)
                assert answer.status_code == 200, example
                assert '"status":4' not in answer.text, example


def test_the_documents_have_examples_of_every_route(app: flask.Flask) -> None:
    table = app.extensions["statscache"].routes
    shown = {
        table.match(example.address.partition("?")[0])[0].rule
        for example in EXAMPLES
        if example.document == API
    }
    assert shown == {route.rule for route in ROUTES if route.formats != ("html",)}
    answered = [example for example in EXAMPLES if example.answer]
    assert len([example for example in answered if example.document == README]) >= 5
    assert len([example for example in answered if example.document == API]) >= 20


def test_what_an_example_leaves_out_is_not_all_of_it() -> None:
    example = Example(
        API, f"curl -H 'Accept: text/csv' '{SERVER}/api/a?b=c'", '{"a": 1, ..., "b": 2}'
    )
    assert (example.address, example.headers) == ("/api/a?b=c", [("Accept", "text/csv")])
    assert re.fullmatch(example.pattern, '{"a":1,"c":3,"b":2}')
    assert not re.fullmatch(example.pattern, '{"a":2,"c":3,"b":2}')
    assert not re.fullmatch(example.pattern, '{"a":1,"c":3,"b":2,"d":4}')


# The configuration.


class Asked(dict[str, Any]):
    """A configuration that notes which keys it is asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.names: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return super().get(key, default)


def test_every_key_of_the_configuration_is_documented_and_shipped() -> None:
    asked = Asked()
    Settings.from_config(asked)
    discovery.discover(asked)
    source = "".join(path.read_text() for path in (ROOT / "statscache").rglob("*.py"))
    named = set(re.findall(r'(?:config|configuration)\.get\(\s*"(statscache\.[\w.]+)"', source))
    used = {name for name in asked.names if name.startswith("statscache.")} | named
    assert len(used) > 20
    documented = {
        name
        for name in terms(section(OPERATING, "Configuration"))
        if name.startswith("statscache.")
    }
    assert documented == used
    shipped = (ROOT / "fedmsg.d" / "statscache.py").read_text()
    assert set(re.findall(r'^    (?:# )?"(statscache\.[\w.]+)":', shipped, re.MULTILINE)) == used


def test_the_defaults_that_are_shipped_are_those_of_the_code() -> None:
    shipped = runpy.run_path(str(ROOT / "fedmsg.d" / "statscache.py"))["config"]
    said, default = Settings.from_config(shipped), Settings.from_config({})
    different = {
        field.name
        for field in fields(Settings)
        if getattr(said, field.name) != getattr(default, field.name)
    }
    # Without a configuration nothing runs, and no server is asked.
    assert different == {"consumer_enabled", "epoch", "datagrepper_endpoint"}


# The command line.


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def options(command: click.Command) -> set[str]:
    found = [each for each in command.params if isinstance(each, click.Option)]
    return {name for option in found for name in (*option.opts, *option.secondary_opts)}


def test_every_command_and_option_is_documented_and_nothing_else() -> None:
    documented: dict[str, set[str]] = {}
    for term, definition in terms(section(OPERATING, "Command line")).items():
        words = (literal.astext() for literal in definition.findall(nodes.literal))
        name = re.sub(r" [A-Z\[].*", "", term)
        documented[name] = {word.split()[0] for word in words if word.startswith("--")}
    expected = dict(commands(command_line, "statscache"))
    assert set(documented) == set(expected)
    for name, command in expected.items():
        assert documented[name] == options(command), name
    for option in options(command_line):
        assert any(option in text for text in literals(OPERATING)), option


def test_options_that_documents_use_exist() -> None:
    tree = dict(commands(command_line, "statscache"))
    checked = 0
    for name in DOCUMENTS:
        for block in document(name).findall(nodes.literal_block):
            for line in block.astext().splitlines():
                used = re.match(
                    r"(?:\$ )?(statscache (?:db|rejected) \w+|statscache [a-z]+)\b(.*)", line
                )
                if used and used[1] in tree:
                    given = set(re.findall(r"(?<=\s)--[a-z-]+", used[2].partition("#")[0]))
                    assert given <= options(tree[used[1]]), line
                    checked += 1
    assert checked > 5


# Metrics.


def test_every_metric_is_documented_and_nothing_else(client: FlaskClient) -> None:
    text = client.get("/metrics").text
    measured = re.findall(r"^# HELP (\w+) ", text, re.MULTILINE)
    assert len(measured) > 15
    assert sorted(listed(section(OPERATING, "Metrics"), "Metric")) == sorted(measured)


# The contract of plugins.


def test_the_contract_of_plugins_is_documented() -> None:
    text = (ROOT / PLUGINS).read_text()
    names = {*plugins.__all__, *testing.__all__}
    for contract in (BasePlugin, Aggregate):
        for name in (*contract.__annotations__, *vars(contract)):
            if not name.startswith("_"):
                names.add(name)
    assert {"rows", "process", "update", "latest", "revert", "launch", "retention"} <= names
    missing = {name for name in names if not re.search(rf"\b{name}\b", text)}
    assert not missing
