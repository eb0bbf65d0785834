"""The page of a dataset: its columns, coverage, newest rows and example queries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import orjson

from statscache import people
from statscache.app.dispatch import rankings
from statscache.app.dispatch.route import Call, Route, Scope, no_people
from statscache.app.http.answer import Answer
from statscache.app.http.parameters import split
from statscache.app.http.problems import Problem
from statscache.app.http.response import Response
from statscache.app.pages import rendering
from statscache.app.pages.examples import answer, example_of, key_columns
from statscache.app.pages.parameters import described
from statscache.app.routes import messages
from statscache.app.routes.plugins import entry_of
from statscache.app.state.row_reader import MOST_NUMBERED_ROWS
from statscache.app.state.steps import MINUTES
from statscache.plugins.installed.discovery import Dataset
from statscache.times import DAY, HOUR

ROWS_SHOWN = 10
"""Where the query does not say how many."""

_SIZES = frozenset(("rows_per_page", "limit"))
_PLACES = frozenset(("rows_per_page", "page", "cursor"))
_LINK = re.compile(r'<[^>?]*\?([^>]*)>; rel="(\w+)"')


def _answer(call: Call) -> Answer:
    dataset = call.dataset
    entry = entry_of(call)
    asked = [(n, f"{quote(n, safe='')}={quote(t, safe='')}") for n, t in _asked(call)]
    shown = [text for _, text in asked]
    if not _SIZES.intersection(name for name, _ in asked):
        shown.append(f"rows_per_page={ROWS_SHOWN}")
    refusal, rows, turn = None, [], _Turn()
    try:
        found = answer(call, f"/api/{quote(dataset.ident, safe='')}?{'&'.join(shown)}")
        rows = _rows(found.body)
        turn = _turn(found, len(rows))
    except Problem as problem:
        # What cannot be asked for is refused as in other formats.
        if asked:
            raise
        refusal = problem.detail
    examples = [
        example_of(call, title, address)
        for title, address in _queries(call, dataset, rows, entry["examples"])
    ]
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
        parameters=described(call.subrequests.route_of(call.request), dataset),
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


def _turn(found: Response, rows: int) -> _Turn:
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


_TITLES = {
    "count": "How many different ones there are",
    "quantile": "Quantiles",
    "hour_of_week": "The hours of a week",
    "top": "The largest, compared, with small charts",
}
"""Of the examples that discovery has."""


def _queries(
    call: Call, dataset: Dataset, rows: list[Any], more: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Queries of one dataset, one of each kind that it can answer."""
    root = quote(call.request.root.encode("latin-1"))
    base = f"/api/{quote(dataset.ident, safe='')}"
    found = [("The newest rows", f"{base}?limit=3"), ("As CSV", f"{base}?limit=3&format=csv")]
    columns = key_columns(dataset)
    row = next((row for row in rows if isinstance(row, dict)), None)
    names = people.columns(dataset)
    if names and not call.service.settings.people.lists:
        named = "&".join(f"{name}=somebody" for name in names)
        found.append(("Only somebody whom you know", f"{base}?{named}&limit=3"))
    elif columns and row is not None:
        value = quote(str(row.get(columns[0])), safe="")
        found.append((f"Only one {columns[0]}", f"{base}?{columns[0]}={value}&limit=3"))
    start = "" if dataset.schedule is None else f"start={_span(dataset.schedule.interval)}"
    if dataset.schedule is not None:
        found.append(("Ready to be drawn", f"{base}/series?points=12"))
        found.append(("One number, and how it changed", f"{base}/summary?{start}&compare=previous"))
        found.append(("A badge", f"{base}/badge"))
    for key in columns:
        if rankings.may_list(call.service.settings.people, dataset, key):
            if dataset.schedule is not None:
                found.append((f"The largest by {key}", f"{base}/top?{start}&by={key}&limit=5"))
            found.append((f"What {key} there is", f"{base}/values/{key}?limit=5"))
    found += [(_TITLES[name], address.removeprefix(root)) for name, address in more.items()]
    if dataset.layout is not None:
        found.append(("How it may be drawn", f"{base}/layout"))
    if messages.ROUTE.is_offered(call.service.settings):
        found.append(("The messages behind the numbers", f"{base}/messages?start=-1d"))
    found.append(("All there is to know of it", f"/api/plugins/{quote(dataset.ident, safe='')}"))
    return found


def _span(width: timedelta) -> str:
    """From when on there are some dozens of windows."""
    spans = {"-15m": 900, "-1h": HOUR, "-1d": DAY, "-7d": 7 * DAY}
    least = 60 * width.total_seconds()
    return next((name for name, seconds in spans.items() if seconds >= least), "-30d")


ROUTE = Route(
    rule="/api/<ident>",
    name="plugin_page",
    summary="One dataset, for people: its columns, coverage, newest rows and example queries.",
    answer=_answer,
    lists=no_people,
    formats=("html",),
    scope=Scope.ALL,
    state=lambda call, _snapshot: call.request.base,
    clock=True,
    steps=lambda _dataset, _values: MINUTES,
    schema={"type": "string"},
)
