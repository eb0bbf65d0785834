"""One transaction that only reads, begun when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from sqlalchemy import Connection

from statscache.app.revisions import Snapshot


class Reading:
    """All that is read through it is of one moment. Not for several threads.

    Args:
        begin: a transaction that only reads.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._begin = begin
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
        return self._connection

    @property
    def snapshot(self) -> Snapshot:
        """What the framework's tables say in this transaction."""
        if self._snapshot is None:
            self._snapshot = Snapshot(self.connection)
        return self._snapshot

    def keep_open(self) -> None:
        """Let the transaction last beyond a ``with`` block that ends well, until :meth:`close`."""
        self._stays_open = True

    def close(self) -> None:
        """End the transaction, if there is one."""
        self._connection = self._snapshot = None
        self._open.close()

    def __enter__(self) -> Reading:
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
        # What the transaction makes of the error is raised.
        self._open.__exit__(kind, error, traceback)
