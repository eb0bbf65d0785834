"""One transaction that only reads, begun when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

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

    def close(self) -> None:
        """End the transaction, if there is one."""
        self._connection = self._snapshot = None
        self._open.close()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *error: object) -> bool | None:
        self._connection = self._snapshot = None
        return self._open.__exit__(*error)  # type: ignore[arg-type]
