"""How often the rows behind each ident have changed: what tells whether an answer still stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from statscache import tables

MOST_GAPS = 1_000
"""Gaps that are read; what lies before the oldest of so many is taken to be one."""


class Revision(NamedTuple):
    """Of the rows of one ident.

    Attributes:
        number: grows by one with each transaction that changed them.
        changed_at: when it did, UNIX seconds; a database that was made anew counts from 1 again.
    """

    number: int
    changed_at: float


class Snapshot:
    """What the framework's tables say at one moment; read from ``connection`` as it is asked for.

    It never changes after :meth:`load`, and can then be shared by all threads.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection

    @cached_property
    def revisions(self) -> Mapping[str, Revision]:
        """Of all idents that were ever written to, in the order of the idents."""
        table = tables.revision
        statement = select(table.c.ident, table.c.revision, table.c.changed_at)
        rows = self._execute(statement.order_by(table.c.ident))
        return {row.ident: Revision(row.revision, row.changed_at) for row in rows}

    @cached_property
    def plugins(self) -> Mapping[str, Row[Any]]:
        """The rows of ``statscache_plugin`` by ident: state, lane, since, audited_until, ..."""
        return {row.ident: row for row in self._execute(select(tables.plugin))}

    @cached_property
    def lanes(self) -> Mapping[int, Row[Any]]:
        """The rows of ``statscache_lane`` by number: since, watermark, newest, committed_at, ..."""
        return {row.id: row for row in self._execute(select(tables.lane))}

    @cached_property
    def gaps(self) -> Sequence[Row[Any]]:
        """The newest :data:`MOST_GAPS` rows of ``statscache_gap``, newest first."""
        newest_first = tables.gap.c.start.desc(), tables.gap.c.lane
        return self._execute(select(tables.gap).order_by(*newest_first).limit(MOST_GAPS))

    def load(self) -> Snapshot:
        """Read all of it now; the connection is not needed any more."""
        _ = self.revisions, self.plugins, self.lanes, self.gaps
        self._connection = None
        return self

    def _execute(self, statement: Any) -> Any:
        assert self._connection is not None, "the snapshot was not loaded"
        return self._connection.execute(statement).all()


class Revisions:
    """Tells the present revisions, cheaply enough for every request.

    Args:
        reading: begins a transaction that only reads.
    """

    def __init__(self, reading: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._reading = reading

    def current(self, ident: str) -> Revision | None:
        """Of the rows of ``ident``; None where nothing was ever written."""
        return self.all().revisions.get(ident)

    def all(self) -> Snapshot:
        """What the framework's tables say now: all that was committed before this call.

        The same object as long as nothing was committed.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        with self._reading() as connection:
            return Snapshot(connection).load()
