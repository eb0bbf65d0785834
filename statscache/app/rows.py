"""The rows of a dataset: a page of them, and how many pages there are."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, DateTime, Integer, Select, func, inspect, select
from sqlalchemy.orm import Session

from statscache import tables
from statscache.plugins.discovery import Dataset
from statscache.plugins.models import Serializable

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

    def __init__(self, dataset: Dataset, counts: CountCache) -> None:
        self._ident = dataset.ident
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

    def read(self, connection: Connection, query: Mapping[str, Any], rows_per_page: int) -> Page:
        """The page that ``query`` asks for; a table that is not there yet has no rows."""
        # The hub creates the table of a newly installed plugin when it starts.
        self._exists = self._exists or inspect(connection).has_table(self._table.name)
        if not self._exists:
            return Page((), query["page"], 1)
        limit, number = query["limit"], query["page"]
        total = self._count(connection, query)
        offset = (number - 1) * rows_per_page
        size = min(rows_per_page, max(0, total - offset))
        pages = max(1, -(-total // rows_per_page))
        if size == 0 or limit == 0:
            return Page((), number, pages)
        descending = query["order"] == "desc"
        order = [column.desc() if descending else column.asc() for column in self._order]
        statement = self._filtered(self._select, query).order_by(*order)
        statement = statement.limit(size).offset(offset)
        if self._instances:
            rows: Sequence[Any] = Session(connection).scalars(statement).all()
        else:
            rows = connection.execute(statement).all()
        return Page(rows, number, pages)

    def _count(self, connection: Connection, query: Mapping[str, Any]) -> int:
        revision = connection.scalar(
            select(tables.revision.c.revision).where(tables.revision.c.ident == self._ident)
        )
        key = (self._ident, revision, query["start"], query["stop"])
        total = self._counts.get(key)
        if total is None:
            statement = select(func.count()).select_from(self._table)
            total = connection.scalar(self._filtered(statement, query)) or 0
            # Without a revision nobody would say when it changes.
            if revision is not None:
                self._counts.put(key, total)
        return total if query["limit"] is None else min(total, query["limit"])

    def _filtered(self, statement: Select[Any], query: Mapping[str, Any]) -> Select[Any]:
        if query["start"] is not None:
            statement = statement.where(self._timestamp >= self._stored(query["start"]))
        if query["stop"] is not None:
            statement = statement.where(self._timestamp < self._stored(query["stop"]))
        return statement

    def _stored(self, moment: float) -> Any:
        """A time as the table holds it: classic models have naive datetimes in UTC."""
        if isinstance(self._timestamp.type, DateTime):
            return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)
        if isinstance(self._timestamp.type, Integer):
            # PostgreSQL does not search an index of integers for a float.
            return math.ceil(moment)
        return moment


class CountCache:
    """Remembers the newest counts, for all threads of a process."""

    def __init__(self) -> None:
        self._counts: OrderedDict[Any, int] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> int | None:
        """The count, if it is remembered."""
        with self._lock:
            return self._counts.get(key)

    def put(self, key: Any, count: int) -> None:
        """Remember ``count``."""
        with self._lock:
            self._counts[key] = count
            if len(self._counts) > _MOST_COUNTS_REMEMBERED:
                self._counts.popitem(last=False)


def _writes_as_we_do(model: Any) -> bool:
    return all(
        getattr(model, name).__func__ is getattr(Serializable, name).__func__
        for name in ("to_json", "to_csv")
    )


def _column_name(model: Any, attribute: str) -> str:
    return str(inspect(model).column_attrs[attribute].columns[0].key)
