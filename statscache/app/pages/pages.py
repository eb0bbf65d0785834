"""The pages for people: what this is, each dataset, and a reference; made on the server.

They need no script and nothing from another host. Every example on them is answered by this very
server, in the same moment as the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import orjson

from statscache import people
from statscache.app.dispatch import rankings
from statscache.app.dispatch.route import Answer, Call, Route, Scope, nobody
from statscache.app.http.parameters import LARGEST_NUMBER, Parameter, filters_of, split
from statscache.app.http.problems import Problem
from statscache.app.http.reply import Reply
from statscache.app.http.request import Request
from statscache.app.http.times import MINUTES
from statscache.app.pages import rendering
from statscache.app.routes import messages, values
from statscache.app.state import filters
from statscache.app.state.row_reader import MOST_NUMBERED_ROWS
from statscache.plugins.aggregate import Aggregate
from statscache.plugins.discovery import Dataset

ROWS_SHOWN = 10
"""On the page of a dataset, where nobody says how many."""

_SIZES = frozenset(("rows_per_page", "limit"))
_PLACES = frozenset(("rows_per_page", "page", "cursor"))
_LINK = re.compile(r'<[^>?]*\?([^>]*)>; rel="(\w+)"')
_LONGEST_ANSWER = 1_200
"""Characters of an answer that are shown."""

_WIDTH = 113
"""Characters of a line of them."""

_JSON = "application/json"
_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Example:
    """A query that works here, and its answer.

    Attributes:
        title: what it is for.
        address: below the root of the service, query included.
        answer: the beginning of the body.
        link: the same for a browser, which prefers pages.
        is_cut: whether there is more of it.
    """

    title: str
    address: str
    answer: str
    link: str
    is_cut: bool


def _index(call: Call) -> Answer:
    entries = _entries(call)
    chosen = _most_telling(call, entries)
    examples = [_example(call, title, address) for title, address in chosen]
    statistics: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted(entries, key=_finest_first):
        statistics.setdefault(entry["name"], []).append(entry)
    return rendering.page(
        call,
        "index.html",
        statistics=statistics,
        broken=call.service.installed.broken,
        examples=[example for example in examples if example is not None],
    )


def _finest_first(entry: Mapping[str, Any]) -> tuple[str, float]:
    resolution = entry["resolution"]
    return entry["name"], 0 if resolution is None else resolution["seconds"]


def _plugin(call: Call) -> Answer:
    from statscache.app.routes.plugins import entry_of

    dataset = call.dataset
    entry = entry_of(call)
    asked = [(n, f"{quote(n, safe='')}={quote(t, safe='')}") for n, t in _asked(call)]
    shown = [text for _, text in asked]
    if not _SIZES.intersection(name for name, _ in asked):
        shown.append(f"rows_per_page={ROWS_SHOWN}")
    refusal, rows, turn = None, [], _Turn()
    try:
        found = _respond(call, f"/api/{quote(dataset.ident, safe='')}?{'&'.join(shown)}")
        rows = _rows(found.body)
        turn = _turn(found, len(rows))
    except Problem as problem:
        # What cannot be asked for is refused as in other formats.
        if asked:
            raise
        refusal = problem.detail
    examples = [_example(call, title, address) for title, address in _queries(call, dataset, rows)]
    page = rendering.page(
        call,
        "plugin.html",
        entry=entry,
        columns=list(rows[0]) if rows else [],
        rows=rows,
        refusal=refusal,
        turn=turn,
        asked=[text for name, text in asked if name not in _PLACES],
        is_first=not asked,
        examples=[example for example in examples if example is not None],
        parameters=_parameters(_rows_route(), dataset),
    )
    page.headers |= turn.headers
    return page


@dataclass(frozen=True)
class _Turn:
    """Where the rows that are shown are among all, and where the others are.

    Attributes:
        number, count: of pages; 0 where it is not known.
        is_more: whether there are more pages than those that have numbers.
        previous, next: the queries of the page before, and of the one after.
        headers: that say the same.
    """

    number: int = 0
    count: int = 0
    is_more: bool = False
    previous: str | None = None
    next: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def _turn(found: Reply, rows: int) -> _Turn:
    names = ("Link", "X-Link-Number", "X-Link-Count")
    headers = {name: text for name, text in found.headers if name in names}
    links = {relation: query_ for query_, relation in _LINK.findall(headers.get("Link", ""))}
    number, count = (int(headers.get(name, 0)) for name in names[1:])
    is_more = count * rows >= MOST_NUMBERED_ROWS
    return _Turn(number, count, is_more, links.get("previous"), links.get("next"), headers)


def _rows(body: bytes) -> list[dict[str, Any]]:
    """Those that can be shown: an author may write them in another way."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _asked(call: Call) -> list[tuple[str, str]]:
    """What the address of a page asks for: the same rows as in other formats."""
    return [pair for pair in split(call.request.query) if pair[0] != "format"]


def _reference(call: Call) -> Answer:
    from statscache.app.route_table import ROUTES

    # Examples are of a dataset that shows something, where there is one.
    ranked = sorted(
        call.service.installed.datasets.values(),
        key=lambda dataset: (not _is_telling(dataset), not _is_by_category(dataset)),
    )
    routes = [
        {
            "route": route,
            "parameters": _parameters(route, None),
            "formats": [name for name in route.offered if name != "html"],
            "example": example,
            "link": None if example is None else _for_browsers(example),
        }
        for route in ROUTES
        if route.formats != ("html",)
        for example in [_example_of(route, ranked)]
    ]
    return rendering.page(call, "reference.html", routes=routes)


# Examples.


def _entries(call: Call) -> list[dict[str, Any]]:
    found = _ask(call, "/api/plugins")
    return orjson.loads(found.body)["plugins"] if found is not None else []


def _most_telling(call: Call, entries: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Examples that show something: of the datasets that have the most rows."""
    datasets = call.installed.datasets
    counts = {entry["ident"]: entry["rows"]["count"] or 0 for entry in entries}
    ranked = sorted(
        (datasets[ident] for ident in counts),
        key=lambda dataset: (not _is_by_category(dataset), -counts[dataset.ident]),
    )
    idents = ("All that is served", "/api/")
    for dataset in ranked:
        if _is_telling(dataset):
            base = f"/api/{quote(dataset.ident, safe='')}"
            key = _keys(dataset)[0]
            largest = f"{base}/top?start=-7d&by={key}&limit=3"
            return [
                ("The newest rows", f"{base}?limit=3"),
                ("Numbers over time, to be drawn", f"{base}/series?start=-4h&by={key}&top=2"),
                (
                    "One number, and what it was before",
                    f"{base}/summary?start=-1d&compare=previous",
                ),
                ("The largest of the last week", largest),
                ("Several answers in one request", _batch(f"{base}?limit=1", largest)),
                idents,
            ]
    rows = [
        ("The newest rows", f"/api/{quote(dataset.ident, safe='')}?limit=3")
        for dataset in ranked[:1]
    ]
    return [*rows, idents]


def _is_telling(dataset: Dataset) -> bool:
    """Whether it is by the hour, and by something else than by people."""
    is_hourly = dataset.schedule is not None and dataset.schedule.interval == _HOUR
    return is_hourly and bool(_keys(dataset)) and not people.columns(dataset)


def _is_by_category(dataset: Dataset) -> bool:
    """Whether its keys are the services, whose names everybody knows."""
    plugin = dataset.plugin
    return isinstance(plugin, Aggregate) and [key.role for key in plugin.keys] == ["category"]


def _queries(call: Call, dataset: Dataset, rows: list[Any]) -> list[tuple[str, str]]:
    """Queries of one dataset, one of each kind that it can answer."""
    base = f"/api/{quote(dataset.ident, safe='')}"
    found = [("The newest rows", f"{base}?limit=3"), ("As CSV", f"{base}?limit=3&format=csv")]
    keys = _keys(dataset)
    row = next((row for row in rows if isinstance(row, dict)), None)
    names = people.columns(dataset)
    if names and not call.service.settings.people.lists:
        named = "&".join(f"{name}=somebody" for name in names)
        found.append(("Only somebody whom you know", f"{base}?{named}&limit=3"))
    elif keys and row is not None:
        value = quote(str(row.get(keys[0])), safe="")
        found.append((f"Only one {keys[0]}", f"{base}?{keys[0]}={value}&limit=3"))
    start = "" if dataset.schedule is None else f"start={_span(dataset.schedule.interval)}"
    if dataset.schedule is not None:
        found.append(("Ready to be drawn", f"{base}/series?points=12"))
        found.append(("One number, and how it changed", f"{base}/summary?{start}&compare=previous"))
        found.append(("A badge", f"{base}/badge"))
    for key in keys:
        if rankings.may_list(call.service.settings.people, dataset, key):
            if dataset.schedule is not None:
                found.append((f"The largest by {key}", f"{base}/top?{start}&by={key}&limit=5"))
            found.append((f"What {key} there is", f"{base}/values/{key}?limit=5"))
    if dataset.layout is not None:
        found.append(("How it may be drawn", f"{base}/layout"))
    if messages.ROUTE.is_offered(call.service.settings):
        found.append(("The messages behind the numbers", f"{base}/messages?start=-1d"))
    found.append(("All there is to know of it", f"/api/plugins/{quote(dataset.ident, safe='')}"))
    return found


def _span(width: timedelta) -> str:
    """From when on there are some dozens of windows."""
    spans = {"-15m": 900, "-1h": 3_600, "-1d": 86_400, "-7d": 604_800}
    least = 60 * width.total_seconds()
    return next((name for name, seconds in spans.items() if seconds >= least), "-30d")


def _keys(dataset: Dataset) -> list[str]:
    if isinstance(dataset.plugin, Aggregate):
        return [key.name for key in dataset.plugin.keys]
    return [name for name, column in filters.columns(dataset).items() if _is_text(column)]


def _is_text(column: Any) -> bool:
    return column.type.python_type is str


def _batch(*addresses: str) -> str:
    return "/api/batch?" + "&".join(f"q={quote(address, safe='/')}" for address in addresses)


def _example(call: Call, title: str, address: str) -> Example | None:
    found = _ask(call, address)
    if found is None:
        return None
    content_type = dict(found.headers)["Content-Type"].partition(";")[0]
    text = found.body.decode()
    if content_type == _JSON:
        # An author may have written what only looks like it.
        with suppress(orjson.JSONDecodeError):
            text = _indented(orjson.loads(found.body))
    is_cut = len(text) > _LONGEST_ANSWER
    if is_cut:
        # Whole lines, if there are any.
        text = text[:_LONGEST_ANSWER]
        text = text.rpartition("\n")[0] or text
    return Example(title, address, text, _for_browsers(address), is_cut)


def _for_browsers(address: str) -> str:
    """The address at which a browser, which prefers pages, is given the answer too."""
    from statscache.app.route_table import ROUTES

    path, _, rest = address.partition("?")
    pageless = [route.rule for route in ROUTES if route.page is None]
    if path.count("/") > 2 or path in pageless or "format=" in rest or path[:5] != "/api/":
        return address
    return f"{path}?{rest}&format=json" if rest else f"{path}?format=json"


def _ask(call: Call, address: str) -> Reply | None:
    """What this server answers, in the transaction of the page; None where it cannot."""
    try:
        return _respond(call, address)
    except Problem:
        return None


def _respond(call: Call, address: str) -> Reply:
    """What this server answers, in the transaction of the page.

    Raises:
        Problem: it cannot.
    """
    path, _, rest = address.partition("?")
    request = Request(
        *call.request.base,
        path=unquote_to_bytes(path).decode("latin-1"),
        query=rest,
        accept="",
        accept_encoding="",
    )
    reply = call.service.dispatcher.respond(request, reading=call.reading)
    assert isinstance(reply, Reply), f"{address} is a stream"
    return reply


def _indented(value: Any, indent: str = "", key: str = "") -> str:
    """JSON for people: what fits is on one line, and of many numbers those that do."""
    flat, width = _flat(value), _WIDTH - len(indent) - len(key)
    if len(flat) <= width or not isinstance(value, dict | list) or not value:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [
            f"{inner}{_flat(name)}: {_indented(item, inner, f'{_flat(name)}: ')}"
            for name, item in value.items()
        ]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    if all(isinstance(item, int | float | None) for item in value):
        return f"{flat[: max(flat.rfind(' ', 0, width), 1)]} ...]"
    return "[\n" + ",\n".join(inner + _indented(item, inner) for item in value) + f"\n{indent}]"


def _flat(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# The reference.


def _rows_route() -> Route:
    from statscache.app.route_table import ROUTES

    return next(route for route in ROUTES if route.rule == PLUGIN.rule)


def _parameters(route: Route, dataset: Dataset | None) -> list[dict[str, Any]]:
    parameters: list[Parameter] = [*route.all_parameters]
    if route.filterable and dataset is not None:
        parameters += filters_of(dataset).values()
    return [
        {
            "name": parameter.name,
            "summary": parameter.summary,
            "default": "" if parameter.default in (None, (), "") else parameter.default,
            "example": parameter.example,
            "values": _words(parameter, dataset),
        }
        for parameter in parameters
        if parameter.name != "_"
    ]


def _words(parameter: Parameter, dataset: Dataset | None) -> str:
    """What it takes, as far as its schema says it in a few words."""
    if callable(parameter.kind) and dataset is None:
        return ""
    schema = parameter.kind_for(dataset).schema
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "integer" and "minimum" in schema:
        low, high = schema["minimum"], schema["maximum"]
        return f"from {low}" if high == LARGEST_NUMBER else f"{low} to {high:,}"
    return ""


def _example_of(route: Route, datasets: Iterable[Dataset]) -> str | None:
    """An address that works, of the first of ``datasets`` that has an answer there."""
    if "<ident>" not in route.rule:
        return route.rule + route.example
    dataset = next(filter(route.applies, datasets), None)
    if dataset is None:
        return None
    rule = route.rule.replace("<ident>", quote(dataset.ident, safe=""))
    if "<column>" in rule:
        names = [name for name in values.columns(dataset) if name not in people.columns(dataset)]
        if not names:
            return None
        rule = rule.replace("<column>", names[0])
    return rule + route.example


INDEX = Route(
    rule="/",
    name="index",
    summary="What this is, what is installed, and examples with their answers.",
    answer=_index,
    formats=("html",),
    scope=Scope.ALL,
    state=lambda call, _snapshot: call.request.base,
    clock=True,
    steps=lambda _dataset, _values: MINUTES,
    schema={"type": "string"},
)
REFERENCE = Route(
    rule="/reference",
    name="reference",
    summary="Every route and every parameter, for people.",
    answer=_reference,
    formats=("html",),
    scope=Scope.NOTHING,
    state=lambda call, _snapshot: call.request.base,
    schema={"type": "string"},
)
PLUGIN = Route(
    rule="/api/<ident>",
    name="plugin_page",
    summary="One dataset, for people: its columns, coverage, newest rows and example queries.",
    answer=_plugin,
    lists=nobody,
    formats=("html",),
    scope=Scope.ALL,
    state=lambda call, _snapshot: call.request.base,
    clock=True,
    steps=lambda _dataset, _values: MINUTES,
    schema={"type": "string"},
)
ROUTES = (INDEX, REFERENCE)
