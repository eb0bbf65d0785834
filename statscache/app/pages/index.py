"""The first page: what this is, what is installed, and examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.dispatch.route_table import UNKNOWN
from statscache.app.http.answer import Answer
from statscache.app.pages import rendering
from statscache.app.pages.examples import (
    batch_address,
    example_of,
    is_by_category,
    is_telling,
    key_columns,
    try_answer,
)
from statscache.app.state.steps import MINUTES


def _answer(call: Call) -> Answer:
    entries = _entries(call)
    chosen = _most_telling(call, entries)
    examples = [example_of(call, title, address) for title, address in chosen]
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


def _entries(call: Call) -> list[dict[str, Any]]:
    found = try_answer(call, "/api/plugins")
    return orjson.loads(found.body)["plugins"] if found is not None else []


def _most_telling(call: Call, entries: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Examples that show something: of the datasets that have the most rows."""
    datasets = call.installed.datasets
    counts = {entry["ident"]: entry["rows"]["count"] or 0 for entry in entries}
    ranked = sorted(
        (datasets[ident] for ident in counts),
        key=lambda dataset: (not is_by_category(dataset), -counts[dataset.ident]),
    )
    idents = ("All that is served", "/api/")
    for dataset in ranked:
        if is_telling(dataset):
            base = f"/api/{quote(dataset.ident, safe='')}"
            key = key_columns(dataset)[0]
            largest = f"{base}/top?start=-7d&by={key}&limit=3"
            return [
                ("The newest rows", f"{base}?limit=3"),
                ("Numbers over time, to be drawn", f"{base}/series?start=-4h&by={key}&top=2"),
                (
                    "One number, and what it was before",
                    f"{base}/summary?start=-1d&compare=previous",
                ),
                ("The largest of the last week", largest),
                ("Several answers in one request", batch_address(f"{base}?limit=1", largest)),
                idents,
            ]
    rows = [
        ("The newest rows", f"/api/{quote(dataset.ident, safe='')}?limit=3")
        for dataset in ranked[:1]
    ]
    return [*rows, idents]


ROUTE = Route(
    rule="/",
    name="index",
    # The metrics are those of the API; only as the page of ``/api/`` it is a part of that.
    label=UNKNOWN,
    summary="What this is, what is installed, and examples with their answers.",
    answer=_answer,
    formats=("html",),
    scope=Scope.ALL,
    state=lambda call, _snapshot: call.request.base,
    clock=True,
    steps=lambda _dataset, _values: MINUTES,
    schema={"type": "string"},
)
