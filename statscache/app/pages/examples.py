"""Queries that work here, and their answers, for pages."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import orjson

from statscache import people
from statscache.app.dispatch.route import Call
from statscache.app.http.problems import Problem
from statscache.app.http.request import Request
from statscache.app.http.response import Response
from statscache.app.state import filters
from statscache.plugins.installed.discovery import Dataset

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


def is_telling(dataset: Dataset) -> bool:
    """Whether it is by the hour, and by something else than by people."""
    is_hourly = dataset.schedule is not None and dataset.schedule.interval == _HOUR
    return is_hourly and bool(key_columns(dataset)) and not people.columns(dataset)


def is_by_category(dataset: Dataset) -> bool:
    """Whether its keys are the services, whose names everybody knows."""
    return [key.role for key in dataset.keys] == ["category"]


def key_columns(dataset: Dataset) -> list[str]:
    if not dataset.is_classic:
        return [key.name for key in dataset.keys]
    return [name for name, column in filters.columns(dataset).items() if _is_text(column)]


def _is_text(column: Any) -> bool:
    return column.type.python_type is str


def batch_address(*addresses: str) -> str:
    return "/api/batch?" + "&".join(f"q={quote(address, safe='/')}" for address in addresses)


def example_of(call: Call, title: str, address: str) -> Example | None:
    found = try_answer(call, address)
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
    return Example(title, address, text, address_for_browsers(call, address), is_cut)


def address_for_browsers(call: Call, address: str) -> str:
    """The address at which a browser, which prefers pages, gets the same answer."""
    path, _, rest = address.partition("?")
    pageless = [route.rule for route in call.subrequests.routes if route.page is None]
    if path.count("/") > 2 or path in pageless or "format=" in rest or path[:5] != "/api/":
        return address
    return f"{path}?{rest}&format=json" if rest else f"{path}?format=json"


def try_answer(call: Call, address: str) -> Response | None:
    """What this server answers, in the transaction of the page; None where it cannot."""
    try:
        return answer(call, address)
    except Problem:
        return None


def answer(call: Call, address: str) -> Response:
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
    response = call.subrequests.respond(request, transaction=call.transaction)
    assert isinstance(response, Response), f"{address} is a stream"
    return response


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
