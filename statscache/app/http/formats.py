"""How answers are written: JSON, JSON-P, CSV, newline-delimited JSON, as the client accepts."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from statscache.app.http import parameters
from statscache.app.http.answer import Answer, Table
from statscache.app.http.parameters import Parameter
from statscache.app.http.problems import Problem
from statscache.plugins.models import harmless


@dataclass(frozen=True)
class Format:
    """A way to write an answer.

    Attributes:
        name: what the parameter ``format`` says.
        types: the media types that ask for it.
        content_type: that it is sent with.
    """

    name: str
    types: tuple[str, ...]
    content_type: str


FORMATS = {
    format_.name: format_
    for format_ in (
        Format(
            "json",
            ("application/json", "text/json", "application/javascript", "text/javascript"),
            "application/json",
        ),
        Format("csv", ("text/csv", "application/csv"), "text/csv; charset=utf-8; header=present"),
        Format(
            "ndjson",
            ("application/x-ndjson", "application/ndjson", "application/jsonl"),
            "application/x-ndjson",
        ),
        Format("html", ("text/html", "application/xhtml+xml"), "text/html; charset=utf-8"),
        Format("sse", ("text/event-stream",), "text/event-stream; charset=utf-8"),
        Format("text", ("text/plain",), "text/plain; charset=utf-8"),
        Format(
            "openmetrics",
            ("application/openmetrics-text",),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    )
}

ENDLESS = "sse"
"""The format of what is sent as it happens; not compressed, because that would delay it."""

JSONP_TYPE = "application/javascript; charset=utf-8"

SMALLEST_COMPRESSED = 1_000
"""Bytes; smaller bodies are not compressed."""

COMPRESSION_LEVEL = 1
"""The fast one: a body is compressed once per revision, while a client waits."""

_BROWSER = "text/html"

SAFE, RAW = "safe", "raw"
CSV = Parameter(
    "csv",
    parameters.choice(SAFE, RAW),
    "In CSV: an apostrophe before text that spreadsheets would take for a formula (safe), or the "
    "text as it is (raw).",
    SAFE,
)


def negotiate(
    accept_header: str,
    formats: Sequence[str],
    *,
    wanted: str | None = None,
    callback: str | None = None,
) -> str:
    """The format to answer in, one of ``formats``.

    The parameters have precedence over the header. A browser, which prefers HTML and accepts
    anything else, gets the first format where HTML is not among them.

    Raises:
        Problem: 406 when nothing that we have is accepted, 400 for a callback without JSON.
    """
    if wanted is None and callback is not None and "json" in formats:
        return "json"
    if wanted is None:
        wanted = _accepted(accept_header, formats)
    if wanted != "json" and callback is not None:
        raise Problem(
            400,
            "a callback goes with JSON only: leave out callback or ask for JSON",
            parameter="callback",
        )
    return wanted


def _accepted(header: str, formats: Sequence[str]) -> str:
    if not header:
        return formats[0]
    accept = _accepting(header)
    by_type = {type_: name for name in formats for type_ in FORMATS[name].types}
    chosen = accept.best_match(by_type)
    if chosen is not None:
        return by_type[chosen]
    if accept.best == _BROWSER:
        return formats[0]
    raise Problem(
        406,
        "none of the media types that the Accept header asks for is available; "
        f"ask for {' or '.join(by_type)}",
        allowed=by_type,
    )


def prefers_pages(accept_header: str, query: str) -> bool:
    """Whether a person asks: a browser, without a format for programs in the query."""
    said = dict(parse_qsl(query, keep_blank_values=True))
    if "callback" in said or said.get("format", "html") != "html":
        return False
    programs = ("application/problem+json", "application/json")
    return _accepting(accept_header).best_match((*programs, _BROWSER)) == _BROWSER


def _accepting(header: str) -> MIMEAccept:
    """An ``Accept``, without the parameters of media types: there is one format of each type."""
    accept = parse_accept_header(header, MIMEAccept)
    return MIMEAccept([(type_.partition(";")[0], quality) for type_, quality in accept])


def body(answer: Answer, name: str, csv_style: str | None) -> bytes:
    """The body of ``answer``, which is not a stream, in the format of that name.

    Args:
        csv_style: the value of the parameter :data:`CSV`, where the route has it.
    """
    if answer.body is not None:
        return answer.body.encode() if isinstance(answer.body, str) else answer.body
    if name == "csv":
        assert answer.table is not None
        return csv_text(answer.table, csv_style).encode()
    if name == "ndjson":
        assert answer.table is not None
        return ndjson(answer.table)
    if answer.value is None and answer.table is not None:
        return dumps(list(_objects(answer.table)))
    return dumps(answer.value)


def dumps(value: Any) -> bytes:
    """``value`` as JSON."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def csv_text(table: Table, style: str | None, *, header: bool = True) -> str:
    """``table`` as CSV (RFC 4180); ``style`` says what becomes of text that spreadsheets run."""
    text = io.StringIO()
    writer = csv.writer(text)
    if header:
        writer.writerow(table.columns)
    rows: Iterable[Iterable[Any]] = table.rows
    if style != RAW:
        rows = (map(harmless, row) for row in rows)
    writer.writerows(rows)
    return text.getvalue()


def ndjson(table: Table) -> bytes:
    """``table`` as JSON objects, each on a line of its own."""
    options = orjson.OPT_APPEND_NEWLINE
    return b"".join(orjson.dumps(each, option=options) for each in _objects(table))


def _objects(table: Table) -> Iterable[dict[str, Any]]:
    names = table.columns
    return (dict(zip(names, row, strict=True)) for row in table.rows)


def jsonp(text: bytes, callback: str) -> bytes:
    """The script that calls ``callback`` with the JSON ``text``."""
    # Older JavaScript takes both for ends of lines, which its strings cannot contain.
    safe = text.replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")
    # The comment keeps a body from being taken for another format that begins with the callback.
    return b"/**/%b(%b);" % (callback.encode(), safe)


def takes_gzip(header: str) -> bool:
    """Whether an ``Accept-Encoding`` takes gzip."""
    if "gzip" not in header:
        return False
    return parse_accept_header(header).quality("gzip") > 0


def compress(content: bytes) -> bytes:
    """``content``, smaller; the same bytes at any time."""
    return gzip.compress(content, COMPRESSION_LEVEL, mtime=0)
