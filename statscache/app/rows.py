"""The rows of a dataset: ``/api/<ident>``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Integer, Select, func, inspect, select
from sqlalchemy.orm import Session

from statscache.app import filters, query
from statscache.app.cache import Memo
from statscache.app.hold import WAIT
from statscache.app.query import Kind, Parameter
from statscache.app.route import Answer, Call, Route, Table
from statscache.plugins.discovery import Dataset, Installed
from statscache.plugins.models import Serializable, plain

_MOST_COUNTS_REMEMBERED = 10_000


@dataclass(frozen=True)
class Page:
    """A page of rows.

    Attributes:
        rows: in the order that was asked for, with the columns as attributes.
        number: of the page, from 1 on.
        count: of the pages; 1 where there are no rows.
    """

    rows: Sequence[Any]
    number: int
    count: int


class RowReader:
    """Reads the rows of one dataset.

    Args:
        dataset: whose rows.
        counts: shared by all the readers of an application.
    """

    def __init__(self, dataset: Dataset, counts: Memo[Any, int]) -> None:
        self._dataset = dataset
        self._counts = counts
        self._exists = False
        model = dataset.model
        self._table = model.__table__
        self._timestamp = self._table.c.timestamp
        keys = [column for column in self._table.primary_key if column is not self._timestamp]
        # Time first, then whatever makes the order total, so that pages never overlap.
        self._order = (self._timestamp, *keys)
        # An author who writes rows in another way is given instances of the model.
        self._instances = not _writes_as_we_do(model)
        columns = [self._table.c[_column_name(model, name)] for name in model.served_columns()]
        labels = zip(columns, model.served_columns(), strict=True)
        self._select: Select[Any] = (
            select(model)
            if self._instances
            else select(*(column.label(name) for column, name in labels))
        )

    def read(self, call: Call, rows_per_page: int) -> Page:
        """The page that ``call`` asks for; a table that is not there yet has no rows."""
        connection, query = call.connection, call.values
        # The hub creates the table of a newly installed plugin when it starts.
        self._exists = self._exists or inspect(connection).has_table(self._table.name)
        if not self._exists:
            return Page((), query["page"], 1)
        limit, number = query["limit"], query["page"]
        total = self._count(call)
        offset = (number - 1) * rows_per_page
        size = min(rows_per_page, max(0, total - offset))
        pages = max(1, -(-total // rows_per_page))
        if size == 0 or limit == 0:
            return Page((), number, pages)
        descending = query["order"] == "desc"
        order = [column.desc() if descending else column.asc() for column in self._order]
        statement = self._filtered(self._select, call).order_by(*order)
        statement = statement.limit(size).offset(offset)
        if self._instances:
            rows: Sequence[Any] = Session(connection).scalars(statement).all()
        else:
            rows = connection.execute(statement).all()
        return Page(rows, number, pages)

    def _count(self, call: Call) -> int:
        key = (self._dataset.ident, call.revision, *map(call.values.get, RANGE), call.filters)
        total = self._counts.get(key)
        if total is None:
            statement = select(func.count()).select_from(self._table)
            total = call.connection.scalar(self._filtered(statement, call)) or 0
            # Without a revision nobody would say when it changes.
            if call.revision is not None:
                self._counts.put(key, total)
        limit = call.values["limit"]
        return total if limit is None else min(total, limit)

    def _filtered(self, statement: Select[Any], call: Call) -> Select[Any]:
        start, stop = map(call.values.get, RANGE)
        if start is not None:
            statement = statement.where(self._timestamp >= self._stored(start))
        if stop is not None:
            statement = statement.where(self._timestamp < self._stored(stop))
        return statement.where(*filters.clauses(call.filters, self._dataset))

    def _stored(self, moment: float) -> Any:
        """A time as the table holds it: classic models have naive datetimes in UTC."""
        if isinstance(self._timestamp.type, DateTime):
            return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)
        if isinstance(self._timestamp.type, Integer):
            # PostgreSQL does not search an index of integers for a float.
            return math.ceil(moment)
        return moment


class RowReaders:
    """The readers of all datasets.

    Args:
        installed: the plugins.
    """

    def __init__(self, installed: Installed) -> None:
        counts: Memo[Any, int] = Memo(_MOST_COUNTS_REMEMBERED)
        self._readers = {
            ident: RowReader(dataset, counts) for ident, dataset in installed.datasets.items()
        }

    def __getitem__(self, ident: str) -> RowReader:
        return self._readers[ident]


def _writes_as_we_do(model: Any) -> bool:
    return all(
        getattr(model, name).__func__ is getattr(Serializable, name).__func__
        for name in ("to_json", "to_csv")
    )


def _column_name(model: Any, attribute: str) -> str:
    return str(inspect(model).column_attrs[attribute].columns[0].key)


RANGE = ("start", "stop")


def _columns(dataset: Dataset) -> Kind:
    return query.names(*dataset.model.served_columns())


ORDER = Parameter(
    "order", query.choice("desc", "asc"), "Newest first (desc) or oldest first (asc).", "desc"
)
LIMIT = Parameter(
    "limit", query.number(0), "The largest number of rows in all the pages together.", example="50"
)
PAGE = Parameter("page", query.number(1), "Which page, from 1 on.", 1)
ROWS_PER_PAGE = Parameter(
    "rows_per_page",
    query.number(1),
    "Rows in a page; the server has a maximum, beyond which none go.",
)
SELECT = Parameter("select", _columns, "Only these columns, comma separated, in this order.")


def answer(call: Call) -> Answer:
    """A page of rows."""
    settings, model = call.service.settings, call.dataset.model
    size = min(
        call.values["rows_per_page"] or settings.default_rows_per_page,
        settings.maximum_rows_per_page,
    )
    page = call.service.rows[call.dataset.ident].read(call, size)
    headers = {"X-Link-Number": str(page.number), "X-Link-Count": str(page.count)}
    links = {}
    if page.number < page.count:
        links["next"] = {"page": str(page.number + 1)}
    if page.number > 1:
        # From beyond the end, back to the last page that there is.
        links["previous"] = {"page": str(min(page.number - 1, page.count))}
    said = Answer(headers=headers, links=links)
    names = call.values["select"]
    if names is None and call.format == "json":
        said.body = model.to_json(page.rows)
    elif names is None and call.format == "csv":
        said.body = model.to_csv(page.rows)
    else:
        names = names or model.served_columns()
        rows = ([plain(getattr(row, name)) for name in names] for row in page.rows)
        said.table = Table(names, rows)
    return said


ROUTE = Route(
    rule="/api/<ident>",
    name="rows",
    summary="The rows of one ident, newest first.",
    answer=answer,
    parameters=(ORDER, LIMIT, query.START, query.STOP, PAGE, ROWS_PER_PAGE, SELECT, WAIT),
    filterable=True,
    formats=("json", "csv", "ndjson"),
    schema={"type": "array", "items": {"type": "object"}},
)
