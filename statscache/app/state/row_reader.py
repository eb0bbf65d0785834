"""Reads the rows of a dataset: a page of them, or all, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Column, DateTime, Integer, Select, func, inspect, literal, select, tuple_
from sqlalchemy.orm import Session

from statscache.app.dispatch.cache import Memo
from statscache.app.dispatch.route import Call
from statscache.app.http.cursors import Position
from statscache.app.state import filters
from statscache.database.deadline import extend_deadline
from statscache.plugins.discovery import Dataset, Installed
from statscache.plugins.models import Serializable
from statscache.times import naive

MOST_NUMBERED_ROWS = 10_000
"""Rows that are counted, and that pages are numbered for: neither costs more with a larger table.
What lies beyond is reached from one page to the next, by cursors."""

MOST_COUNTS_REMEMBERED = 10_000

ROWS_PER_PORTION = 2_000
"""That are in memory at a time when all are read."""


@dataclass(frozen=True)
class Page:
    """Some rows.

    Attributes:
        rows: in the order that was asked for, with the columns as attributes.
        has_more: whether other rows follow.
        last: where it ends; None where there are no rows.
    """

    rows: Sequence[Any]
    has_more: bool = False
    last: Position | None = None


@dataclass(frozen=True)
class Span:
    """Which of all the rows.

    Attributes:
        limit: how many of them, at most; None: all.
        offset: how many are left out before the first one,
        after: and where those begin; None: at the first one.
    """

    limit: int | None = None
    offset: int = 0
    after: Position | None = None

    @property
    def begin(self) -> int:
        """How many rows there are before it."""
        return self.offset + (0 if self.after is None else self.after.seen)


class RowReader:
    """Reads the rows of one dataset.

    Args:
        dataset: whose rows.
        counts: shared by all the readers of an application.

    Attributes:
        writes_json, writes_csv: whether the author of the model writes the rows in another way;
            then they are instances of the model.
    """

    def __init__(self, dataset: Dataset, counts: Memo[Any, int]) -> None:
        self._dataset = dataset
        self._counts = counts
        self._exists = False
        model = dataset.model
        self.writes_json = writes_otherwise(model, "to_json")
        self.writes_csv = writes_otherwise(model, "to_csv")
        self._instances = self.writes_json or self.writes_csv
        self._table = model.__table__
        self._timestamp: Column[Any] = self._table.c.timestamp
        keys = [column for column in self._table.primary_key if column is not self._timestamp]
        # Time first, then whatever makes the order total, so that pages never overlap.
        self._order: tuple[Column[Any], ...] = (self._timestamp, *keys)
        self.columns = {
            name: inspect(model).column_attrs[name].columns[0] for name in model.served_columns()
        }
        attributes = {a.columns[0]: a.key for a in inspect(model).column_attrs}
        self._keys = [
            attributes[column] if self._instances else f"_key_{number}"
            for number, column in enumerate(self._order)
        ]

    @property
    def key_types(self) -> list[type]:
        """The types of what makes the order."""
        return [column.type.python_type for column in self._order]

    def exists(self, call: Call) -> bool:
        """Whether the table is there: the hub makes that of a new plugin when it starts."""
        self._exists = self._exists or inspect(call.connection).has_table(self._table.name)
        return self._exists

    def page(self, call: Call, span: Span) -> Page:
        """The rows of ``span``, which has a limit."""
        size = span.limit or 0
        if size <= 0 or not self.exists(call):
            return Page(())
        # One more, to see whether there is one.
        statement = self._spanned(self._statement(call), call, span).limit(size + 1)
        if self._instances:
            rows: Sequence[Any] = Session(call.connection).scalars(statement).all()
        else:
            rows = call.connection.execute(statement).all()
        if not rows:
            return Page(())
        found = rows[:size]
        keys = tuple(getattr(found[-1], name) for name in self._keys)
        return Page(found, len(rows) > size, Position(span.begin + len(found), keys))

    def end(self, call: Call, span: Span) -> Page:
        """How the page of ``span`` ends, without its rows: as many as there are may be in it."""
        if not span.limit:
            return Page(())
        last = self.page(call, replace(span, limit=1, offset=span.offset + span.limit - 1))
        return replace(last, rows=())

    def portions(self, call: Call, span: Span, *, instances: bool) -> Iterator[Sequence[Any]]:
        """The rows of ``span``, some at a time.

        Each is a tuple of :attr:`columns`, or one of the ``instances`` of the model.
        """
        columns = [self._dataset.model] if instances else self._selected(call)
        statement = self._spanned(self._statement(call, *columns), call, span).limit(span.limit)
        statement = statement.execution_options(yield_per=ROWS_PER_PORTION)
        if instances:
            found: Any = Session(call.connection).scalars(statement)
        else:
            found = call.connection.execute(statement)
        for portion in found.partitions():
            extend_deadline(call.connection)
            yield portion

    def count(self, call: Call) -> int:
        """How many rows there are, :data:`MOST_NUMBERED_ROWS` at most."""
        if not self.exists(call):
            return 0
        key = (self._dataset.ident, call.revision, *map(call.values.get, RANGE), call.filters)
        total = self._counts.get(key)
        if total is None:
            some = self._statement(call, self._timestamp)
            if call.connection.dialect.name == "sqlite":
                some = some.order_by(None)
            # PostgreSQL needs the order, so that it finds them by the index that a page is read
            # from: it would rather pass over a whole table, whose end has those that it looks for.
            some = some.limit(MOST_NUMBERED_ROWS)
            total = call.connection.scalar(select(func.count()).select_from(some.subquery())) or 0
            # Without a revision nobody would say when it changes.
            if call.revision is not None:
                call.reading.check([self._table])
                self._counts.put(key, total)
        return total

    def _statement(self, call: Call, *columns: Any) -> Select[Any]:
        statement: Select[Any]
        if columns:
            statement = select(*columns)
        elif self._instances:
            statement = select(self._dataset.model)
        else:
            keys = zip(self._order, self._keys, strict=True)
            statement = select(*self._selected(call), *(key.label(name) for key, name in keys))
        descending = call.values.get("order", "desc") == "desc"
        order = [column.desc() if descending else column.asc() for column in self._order]
        return self._filtered(statement, call).order_by(*order)

    def _selected(self, call: Call) -> list[Any]:
        names = call.values.get("select") or self.columns
        return [self.columns[name].label(name) for name in names]

    def _spanned(self, statement: Select[Any], call: Call, span: Span) -> Select[Any]:
        if span.after is not None:
            statement = statement.where(self._beyond(call, span.after.keys))
        return statement.offset(span.offset or None)

    def _beyond(self, call: Call, keys: Sequence[Any]) -> Any:
        """That a row follows the one with ``keys``; the primary key has an index for it."""
        here = tuple_(*self._order)
        types = zip(keys, self._order, strict=True)
        there = tuple_(*(literal(key, column.type) for key, column in types))
        return here < there if call.values.get("order", "desc") == "desc" else here > there

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
            return naive(moment)
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
        self._counts: Memo[Any, int] = Memo(MOST_COUNTS_REMEMBERED)
        self._readers = {
            ident: RowReader(dataset, self._counts) for ident, dataset in installed.datasets.items()
        }

    def __getitem__(self, ident: str) -> RowReader:
        return self._readers[ident]

    def forget(self) -> None:
        """Count all rows anew."""
        self._counts.clear()


RANGE = ("start", "stop")


def writes_otherwise(model: Any, method: str) -> bool:
    """Whether the author of ``model`` has a ``to_json`` or ``to_csv`` of their own."""
    return getattr(model, method).__func__ is not getattr(Serializable, method).__func__
