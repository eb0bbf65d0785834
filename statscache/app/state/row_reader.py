"""Reads the rows of a dataset: a page of them, or all, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Column, DateTime, Integer, Select, func, inspect, literal, select, tuple_
from sqlalchemy.orm import Session

from statscache.app.state import filters
from statscache.app.state.filters import Filters
from statscache.app.state.memo import Memo
from statscache.app.state.transaction import ReadTransaction
from statscache.database.deadline import extend_deadline
from statscache.plugins.installed.discovery import Dataset, Installed
from statscache.plugins.models import Serializable
from statscache.times import naive

MOST_NUMBERED_ROWS = 10_000
"""Rows that are counted, and that pages are numbered for: neither costs more with a larger table.
What lies beyond is reached from one page to the next, by cursors."""

MOST_COUNTS_REMEMBERED = 10_000

ROWS_PER_PORTION = 2_000
"""Rows in memory at a time, when all are read."""


@dataclass(frozen=True)
class RowQuery:
    """Which rows are asked for, in which order, and what of them.

    Attributes:
        start: the earliest time, inclusive; None: any. UNIX seconds, like ``stop``.
        stop: before which time; None: any.
        filters: that they pass.
        is_descending: whether the newest ones come first.
        columns: names of those that are read; None: all.
    """

    start: float | None = None
    stop: float | None = None
    filters: Filters = ()
    is_descending: bool = True
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Position:
    """Where a page ended.

    Attributes:
        seen: the number of rows up to there.
        keys: of the last of them: its time, and what makes the order total.
    """

    seen: int
    keys: tuple[Any, ...]


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
    """A part of the rows.

    Attributes:
        limit: how many of them, at most; None: all.
        offset: how many are skipped, after the position ``after``.
        after: where it begins; None: at the first of all.
    """

    limit: int | None = None
    offset: int = 0
    after: Position | None = None

    @property
    def rows_before(self) -> int:
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

    def exists(self, transaction: ReadTransaction) -> bool:
        """Whether the table exists: the hub creates that of a new plugin when it starts."""
        self._exists = self._exists or inspect(transaction.connection).has_table(self._table.name)
        return self._exists

    def page(self, transaction: ReadTransaction, query: RowQuery, span: Span) -> Page:
        """The rows of ``span``, which has a limit."""
        size = span.limit or 0
        if size <= 0 or not self.exists(transaction):
            return Page(())
        # One more, to see whether there is one.
        statement = self._spanned(self._statement(query), query, span).limit(size + 1)
        if self._instances:
            rows: Sequence[Any] = Session(transaction.connection).scalars(statement).all()
        else:
            rows = transaction.connection.execute(statement).all()
        if not rows:
            return Page(())
        found = rows[:size]
        keys = tuple(getattr(found[-1], name) for name in self._keys)
        return Page(found, len(rows) > size, Position(span.rows_before + len(found), keys))

    def end(self, transaction: ReadTransaction, query: RowQuery, span: Span) -> Page:
        """How the page of ``span`` ends, without its rows: as many as there are may be in it."""
        if not span.limit:
            return Page(())
        only_last = replace(span, limit=1, offset=span.offset + span.limit - 1)
        last = self.page(transaction, query, only_last)
        return replace(last, rows=())

    def portions(
        self, transaction: ReadTransaction, query: RowQuery, span: Span, *, instances: bool
    ) -> Iterator[Sequence[Any]]:
        """The rows of ``span``, some at a time.

        Each is a tuple of :attr:`columns`, or one of the ``instances`` of the model.
        """
        columns = [self._dataset.model] if instances else self._selected(query)
        statement = self._spanned(self._statement(query, *columns), query, span).limit(span.limit)
        statement = statement.execution_options(yield_per=ROWS_PER_PORTION)
        if instances:
            found: Any = Session(transaction.connection).scalars(statement)
        else:
            found = transaction.connection.execute(statement)
        for portion in found.partitions():
            extend_deadline(transaction.connection)
            yield portion

    def count(self, transaction: ReadTransaction, query: RowQuery) -> int:
        """How many rows there are, :data:`MOST_NUMBERED_ROWS` at most."""
        if not self.exists(transaction):
            return 0
        ident = self._dataset.ident
        revision = transaction.snapshot.revisions.get(ident)
        key = (ident, revision, query.start, query.stop, query.filters)
        total = self._counts.get(key)
        if total is None:
            some = self._statement(query, self._timestamp)
            if transaction.connection.dialect.name == "sqlite":
                some = some.order_by(None)
            # PostgreSQL needs the order, so that it finds them by the index that a page is read
            # from: otherwise it may scan a whole table, at whose end the wanted rows are.
            some = some.limit(MOST_NUMBERED_ROWS)
            total = (
                transaction.connection.scalar(select(func.count()).select_from(some.subquery()))
                or 0
            )
            # Without a revision nothing tells when it changes.
            if revision is not None:
                transaction.check([self._table])
                self._counts.put(key, total)
        return total

    def _statement(self, query: RowQuery, *columns: Any) -> Select[Any]:
        statement: Select[Any]
        if columns:
            statement = select(*columns)
        elif self._instances:
            statement = select(self._dataset.model)
        else:
            keys = zip(self._order, self._keys, strict=True)
            statement = select(*self._selected(query), *(key.label(name) for key, name in keys))
        order = [column.desc() if query.is_descending else column.asc() for column in self._order]
        return self._filtered(statement, query).order_by(*order)

    def _selected(self, query: RowQuery) -> list[Any]:
        names = query.columns or self.columns
        return [self.columns[name].label(name) for name in names]

    def _spanned(self, statement: Select[Any], query: RowQuery, span: Span) -> Select[Any]:
        if span.after is not None:
            statement = statement.where(self._beyond(query, span.after.keys))
        return statement.offset(span.offset or None)

    def _beyond(self, query: RowQuery, keys: Sequence[Any]) -> Any:
        """The condition that a row follows the one with ``keys``; an index serves it."""
        here = tuple_(*self._order)
        types = zip(keys, self._order, strict=True)
        there = tuple_(*(literal(key, column.type) for key, column in types))
        return here < there if query.is_descending else here > there

    def _filtered(self, statement: Select[Any], query: RowQuery) -> Select[Any]:
        if query.start is not None:
            statement = statement.where(self._timestamp >= self._stored(query.start))
        if query.stop is not None:
            statement = statement.where(self._timestamp < self._stored(query.stop))
        return statement.where(*filters.clauses(query.filters, self._dataset))

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

    def forget_counts(self) -> None:
        """Forget how many rows there are."""
        self._counts.clear()


def writes_otherwise(model: Any, method: str) -> bool:
    """Whether the author of ``model`` has a ``to_json`` or ``to_csv`` of their own."""
    return getattr(model, method).__func__ is not getattr(Serializable, method).__func__
