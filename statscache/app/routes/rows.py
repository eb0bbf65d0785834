"""The rows of one ident: ``/api/<ident>``.

There are two ways through them. ``Link: rel="next"`` leads to the next page by a cursor, to any
depth, at the same cost, and while rows arrive. ``page=`` numbers the pages of the first ten
thousand rows, as in 2015: ``X-Link-Count`` says how many pages can be asked for by number, which is
all of them in tables up to that size, and a page beyond is refused in larger ones.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Boolean, Column, DateTime, Float, Integer, Numeric, inspect

from statscache.app.dispatch.route import Call, Route
from statscache.app.http import cursors, parameters
from statscache.app.http.answer import Answer, Lifetime, Table
from statscache.app.http.parameters import Kind, Parameter
from statscache.app.live.long_poll import WAIT
from statscache.app.routes.downloads import Downloads
from statscache.app.state import coverage, served_values
from statscache.app.state.row_reader import (
    MOST_NUMBERED_ROWS,
    Page,
    Position,
    Span,
    writes_otherwise,
)
from statscache.plugins.installed.discovery import Dataset

ALL = "all"
"""Instead of a number of rows per page: everything, piece by piece."""

STREAMED = ("csv", "ndjson")
"""The formats of downloads."""

PAGING = frozenset(("rows_per_page", "page", "cursor"))
"""A query with one of them asks for a page, not for all rows."""

MAXIMUM = "X-Maximum-Rows-Per-Page"
"""The header of pages that others follow: JSON has no larger ones, whatever is asked for."""


def _answer(downloads: Downloads, call: Call) -> Answer:
    """A page of rows, or, as a download, all of them."""
    _refuse_foreign_columns(call)
    size = call.values["rows_per_page"]
    if size == ALL:
        _refuse_whole(call)
    is_download = call.format in STREAMED
    if is_download and (size == ALL or call.given.isdisjoint(PAGING)):
        return _download(downloads, call, Span(call.values["limit"]), 1, 1)
    settings = call.service.settings
    size = size or settings.default_rows_per_page
    size = size if is_download else min(size, settings.maximum_rows_per_page)
    return _page(downloads, call, size)


def _download(downloads: Downloads, call: Call, span: Span, number: int, pages: int) -> Answer:
    said = downloads.answer(call, span)
    said.headers |= _numbers(number, pages)
    said.lifetime = _lifetime(call)
    return said


def _page(downloads: Downloads, call: Call, size: int) -> Answer:
    reader, transaction, query = call.reader, call.transaction, call.row_query
    limit, number = call.values["limit"], call.values["page"]
    after = _position(call)
    first = _first_page(call, size) if after is None and number == 1 and limit is None else None
    if first is None or first.has_more:
        counted = reader.count(transaction, query)
    else:
        # Whoever looks up one key need not wait until it is counted as well.
        counted = len(first.rows)
    total = counted if limit is None else min(counted, limit)
    offset = 0 if after is not None else (number - 1) * size
    if offset >= MOST_NUMBERED_ROWS == total:
        parameters.refuse(
            "page",
            f"is beyond the first {MOST_NUMBERED_ROWS} rows, up to which pages have numbers: go on "
            'from page to page by the header Link, rel="next", or narrow the range of time',
        )
    span = Span(size, offset, after)
    if limit is not None:
        span = replace(span, limit=max(0, min(size, limit - span.rows_before)))
    number = number if after is None else after.seen // size + 1
    pages = max(1, -(-total // size))
    if size > call.service.settings.maximum_rows_per_page:
        # More than are kept in memory at a time.
        page = reader.end(transaction, query, span)
        said = _download(downloads, call, span, number, pages)
    else:
        is_beyond = after is None and offset >= total
        page = first or (Page(()) if is_beyond else reader.page(transaction, query, span))
        said = Answer(headers=_numbers(number, pages), lifetime=_lifetime(call))
        _write(said, call, page)
    said.links = _links(call, page, number, pages, limit)
    if "next" in said.links and call.format not in STREAMED:
        said.headers[MAXIMUM] = str(call.service.settings.maximum_rows_per_page)
    return said


def _first_page(call: Call, size: int) -> Page | None:
    """The first page; None where it is too large to be kept in memory."""
    if size > call.service.settings.maximum_rows_per_page:
        return None
    return call.reader.page(call.transaction, call.row_query, Span(size))


def _numbers(number: int, pages: int) -> dict[str, str]:
    return {"X-Link-Number": str(number), "X-Link-Count": str(pages)}


def _links(
    call: Call, page: Page, number: int, pages: int, limit: int | None
) -> dict[str, dict[str, str | None]]:
    links: dict[str, dict[str, str | None]] = {}
    if page.has_more and page.last is not None and (limit is None or page.last.seen < limit):
        cursor = cursors.write(page.last, call.dataset.ident, call.values["order"])
        if cursor is not None:
            links["next"] = {"page": None, "cursor": cursor}
        elif number < pages:
            links["next"] = {"cursor": None, "page": str(number + 1)}
    if 1 < number <= pages + 1:
        links["previous"] = {"cursor": None, "page": str(number - 1)}
    elif number > 1 and "cursor" not in call.given:
        # From beyond the end, back to the last page that there is.
        links["previous"] = {"page": str(pages)}
    return links


def _write(said: Answer, call: Call, page: Page) -> None:
    reader, model, names = call.reader, call.dataset.model, call.values["select"]
    has_sets = bool(served_values.sets(call.dataset))
    if names is None and call.format == "json" and not has_sets:
        said.body = model.to_json(page.rows)
    elif names is None and call.format == "csv" and reader.writes_csv:
        said.body = model.to_csv(page.rows)
    else:
        names = names or list(reader.columns)
        types = [reader.columns[name].type for name in names]
        tidy = served_values.writer(call.dataset, names, types, as_text=call.format == "csv")
        said.table = Table(names, tidy([[getattr(row, n) for n in names] for row in page.rows]))


def _position(call: Call) -> Position | None:
    cursor = call.values["cursor"]
    if cursor is None:
        return None
    if "page" in call.given:
        parameters.refuse("cursor", "says where the page begins: leave out page")
    try:
        return cursors.read(cursor, call.dataset.ident, call.values["order"], call.reader.key_types)
    except ValueError as error:
        parameters.refuse("cursor", f'{error}: take it from the header Link, rel="next"')


def _refuse_foreign_columns(call: Call) -> None:
    reader = call.reader
    writes_own = {"json": reader.writes_json, "csv": reader.writes_csv}
    if call.values["select"] is not None and writes_own.get(call.format, False):
        parameters.refuse(
            "select", f"does not go with {call.format} here: the plugin writes it in its own way"
        )


def _refuse_whole(call: Call) -> None:
    if call.format not in STREAMED:
        parameters.refuse(
            "rows_per_page",
            f"can be {ALL!r} in the formats {' and '.join(STREAMED)} only, which are sent piece by "
            "piece: add format=ndjson, or fetch pages",
        )
    for name in ("cursor", "page"):
        if name in call.given:
            parameters.refuse(name, f"does not go with rows_per_page={ALL}, which is one page")


def _lifetime(call: Call) -> Lifetime:
    """Rows of windows that agree with the archive change when a message comes very late."""
    schedule, stop = call.dataset.schedule, call.values["stop"]
    # A classic plugin may change its rows at any time, and a latest value leaves every range.
    if call.dataset.is_classic or schedule is None or stop is None:
        return Lifetime.OPEN
    reconciled = coverage.measure(call.snapshot, call.dataset.ident).reconciled_until
    end = stop + schedule.interval.total_seconds()
    return Lifetime.RECONCILED if reconciled is not None and end <= reconciled else Lifetime.OPEN


def _columns(dataset: Dataset) -> Kind:
    return parameters.names(*dataset.model.served_columns())


def _rows_per_page() -> Kind:
    number = parameters.number(1)

    def parse(name: str, text: str) -> Any:
        return ALL if text == ALL else number.parse(name, text)

    return Kind(parse, {"anyOf": [{"enum": [ALL]}, number.schema]})


ORDER = Parameter(
    "order", parameters.choice("desc", "asc"), "Newest first (desc) or oldest first (asc).", "desc"
)
LIMIT = Parameter(
    "limit",
    parameters.number(0),
    "The largest number of rows in all the pages together.",
    example="50",
)
PAGE = Parameter(
    "page",
    parameters.number(1),
    f"Which page, from 1 on, among the first {MOST_NUMBERED_ROWS} rows; cursors go on from there.",
    1,
)
ROWS_PER_PAGE = Parameter(
    "rows_per_page",
    _rows_per_page(),
    "Rows in a page; the server has a maximum for JSON, beyond which none go. CSV and NDJSON are "
    "all rows in one answer unless a page is asked for, or 'all'.",
    example="20",
)
CURSOR = Parameter(
    "cursor", parameters.TEXT, 'Where the page begins; taken from the header Link, rel="next".'
)
SELECT = Parameter(
    "select", _columns, "Only these columns, comma separated, in this order.", example="timestamp"
)


def row_schema(dataset: Dataset) -> dict[str, Any]:
    """The JSON schema of a row; no column is required, because clients may select some."""
    columns = inspect(dataset.model).column_attrs
    sets = {
        name: _set_schema(dataset, name, most) for name, most in served_values.sets(dataset).items()
    }
    properties = {
        name: sets.get(name) or _value_schema(columns[name].columns[0])
        for name in dataset.model.served_columns()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _set_schema(dataset: Dataset, name: str, most: int) -> dict[str, Any]:
    (value,) = (value for value in dataset.values if value.name == name)
    member = {"type": "string" if value.type is str else "integer"}
    return {"type": "array", "items": member, "uniqueItems": True, "maxItems": most}


def _value_schema(column: Column[Any]) -> dict[str, Any]:
    if isinstance(column.type, Boolean):
        type_ = "boolean"
    elif isinstance(column.type, Integer):
        type_ = "integer"
    elif isinstance(column.type, DateTime | Numeric | Float):
        type_ = "number"
    else:
        type_ = "string"
    return {"type": [type_, "null"] if column.nullable else type_}


def _schema(dataset: Dataset) -> dict[str, Any]:
    # What an author writes in another way can be anything.
    is_ours = not writes_otherwise(dataset.model, "to_json")
    return {"type": "array", "items": row_schema(dataset)} if is_ours else {}


_DESCRIPTION = (
    "The header Link leads to the next page, by a cursor, and to the previous one. Such pages "
    "cost the same at any depth, and no row is skipped or doubled while others arrive; but a "
    "row whose time changes (the latest value of a key) moves. X-Link-Number is the number of "
    "the page, and X-Link-Count how many there are: no more than those of the first "
    f"{MOST_NUMBERED_ROWS} rows, to which pages by number reach. Where other rows follow, "
    f"{MAXIMUM} is the largest page of JSON that the server gives. CSV and newline-delimited "
    "JSON are downloads: the whole range in one answer, unless limit or rows_per_page asks for "
    "less."
)


def route(downloads: Downloads) -> Route:
    """The route, whose large answers are among ``downloads``."""
    return Route(
        rule="/api/<ident>",
        name="rows",
        summary="The rows of one ident, newest first.",
        description=_DESCRIPTION,
        answer=partial(_answer, downloads),
        parameters=(
            ORDER,
            LIMIT,
            parameters.START,
            parameters.STOP,
            PAGE,
            ROWS_PER_PAGE,
            CURSOR,
            SELECT,
            WAIT,
        ),
        filterable=True,
        formats=("json", "csv", "ndjson"),
        schema=_schema,
        example="?start=-7d",
    )
