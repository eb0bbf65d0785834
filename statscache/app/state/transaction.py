"""A transaction that only reads, begun when it is first used."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from sqlalchemy import Connection, Table, text

from statscache.app.state.revisions import Snapshot
from statscache.database.deadline import limit
from statscache.errors import StatementTimeout

_ARE_OF_OLD = text("""
    SELECT coalesce(bool_and(coalesce(seen.relname = found.name, false)), true)
    FROM (
        SELECT name, to_regclass(quote_ident(name)) AS latest FROM unnest(:names) AS name
    ) AS found
    LEFT JOIN pg_class AS seen ON seen.oid = found.latest
    WHERE found.latest IS NOT NULL
""")
"""Whether tables have the names now that they had when the transaction took its snapshot.

PostgreSQL looks up names as they are now, and reads ``pg_class`` as it was then.
"""


class TableReplaced(Exception):
    """A table was replaced after the moment that is read: it must be read again."""


class DefinitionsChanged(Exception):
    """The tables are of other definitions than those that a request was understood by."""


class ReadTransaction:
    """All that is read through it is of one moment. Not for several threads.

    Args:
        begin: a transaction that only reads.
        until: when it must have been read, by :func:`time.monotonic`.
    """

    def __init__(
        self, begin: Callable[[], AbstractContextManager[Connection]], until: float = math.inf
    ) -> None:
        self._begin = begin
        self._until = until
        self._open = ExitStack()
        self._connection: Connection | None = None
        self._snapshot: Snapshot | None = None
        self._stays_open = False

    @property
    def connection(self) -> Connection:
        """The transaction.

        Raises:
            DatabaseUnavailable: the database does not answer.
            SchemaError: it has not been upgraded.
        """
        if self._connection is None:
            self._connection = self._open.enter_context(self._begin())
            limit(self._connection, self._until)
        return self._connection

    @property
    def snapshot(self) -> Snapshot:
        """What the framework's tables say in this transaction."""
        if self._snapshot is None:
            self._snapshot = Snapshot(self.connection)
        return self._snapshot

    @property
    def has_snapshot(self) -> bool:
        """Whether :attr:`snapshot` was asked for, so that it can be told without a statement."""
        return self._snapshot is not None

    def check(self, tables: Iterable[Table]) -> None:
        """Check that what was read of ``tables`` is of the moment of the transaction.

        When a rebuilt table has replaced the former one since then, PostgreSQL shows only some of
        its rows; SQLite still shows the former one.

        Raises:
            TableReplaced: it is not.
        """
        if self._connection is None or self._connection.dialect.name != "postgresql":
            return
        names = [table.name for table in tables]
        if not self._connection.scalar(_ARE_OF_OLD, {"names": names}):
            raise TableReplaced

    def check_time(self) -> None:
        """Check that there is time for more, even where no statement is needed.

        Raises:
            StatementTimeout: there is none.
        """
        if time.monotonic() >= self._until:
            raise StatementTimeout("there is no time left for the rest of an answer")

    def keep_open(self, until: float) -> None:
        """Let the transaction last beyond a ``with`` block that ends well, until :meth:`close`.

        Args:
            until: when all must have been read, instead of what was said before.
        """
        self._stays_open = True
        self._until = until
        if self._connection is not None:
            limit(self._connection, until)

    def close(self) -> None:
        """End the transaction, if there is one."""
        self._connection = self._snapshot = None
        self._open.close()

    def __enter__(self) -> ReadTransaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._stays_open:
            return
        self._connection = self._snapshot = None
        # The transaction may raise a better error.
        self._open.__exit__(kind, error, traceback)
