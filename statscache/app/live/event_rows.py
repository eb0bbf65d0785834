"""The newest rows of idents, which events carry: read once per change for all listeners."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from statscache.app.dispatch.dispatcher import Dispatcher
from statscache.app.http.problems import Problem
from statscache.app.http.request import Request
from statscache.app.state.revisions import Revision, Snapshot
from statscache.app.state.transaction import ReadTransaction, TableReplaced
from statscache.errors import StatementTimeout

LARGEST = 4_096
"""Bytes of rows that an event carries at most; a page fetches what is more."""


class RevisionRows(NamedTuple):
    """The newest rows of one ident at a revision, as JSON.

    ``rows`` is None where they are too large, or the plugin writes its JSON itself.
    """

    revision: Revision
    rows: bytes | None


class EventRows:
    """Keeps the newest rows of those idents that listeners want.

    Args:
        dispatcher: answers the route of rows, as for any client.
        begin: a transaction that only reads.
        most_rows: that are read.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        begin: Callable[[], AbstractContextManager[Connection]],
        most_rows: int,
    ) -> None:
        self._dispatcher = dispatcher
        self._begin = begin
        self._most_rows = most_rows
        self._kept: dict[str, RevisionRows] = {}
        self._wanted: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    def want(self, idents: Collection[str], snapshot: Snapshot) -> None:
        """Keep the rows of ``idents`` from now on, and read those that are older than ``snapshot``.

        Of many listeners that come at once only the first one reads, one after the other.

        Raises:
            DatabaseUnavailable, SchemaError: they cannot be read, and are not kept.
        """
        with self._lock:
            self._wanted.update(idents)
        try:
            with self._reading:
                self._read([ident for ident in idents if not self._has(ident, snapshot)])
        except BaseException:
            self.release(idents)
            raise

    def _has(self, ident: str, snapshot: Snapshot) -> bool:
        kept = self._kept.get(ident)
        return snapshot.revisions.get(ident) == (None if kept is None else kept.revision)

    def release(self, idents: Collection[str]) -> None:
        """Undo one :meth:`want`."""
        with self._lock:
            self._wanted.subtract(idents)
            for ident in idents:
                if self._wanted[ident] <= 0:
                    del self._wanted[ident]
                    self._kept.pop(ident, None)

    def refresh(self, changed: Iterable[str]) -> None:
        """Read those of ``changed`` again that listeners want.

        Raises:
            DatabaseUnavailable, SchemaError: they cannot be read.
        """
        self._read([ident for ident in changed if ident in self._wanted])

    def get(self, ident: str) -> RevisionRows | None:
        """What was read last."""
        return self._kept.get(ident)

    def _read(self, idents: Collection[str]) -> None:
        for ident in idents:
            revision = None
            try:
                with ReadTransaction(self._begin) as transaction:
                    revision = transaction.snapshot.revisions.get(ident)
                    kept = self._kept.get(ident)
                    if revision is not None and (kept is None or kept.revision != revision):
                        self._kept[ident] = RevisionRows(revision, self._rows(ident, transaction))
            except StatementTimeout:
                if revision is None:
                    raise
                # Clients who ask for them would time out as well.
                self._kept[ident] = RevisionRows(revision, None)
            except TableReplaced:
                # The replacement is a change of its own, which comes next.
                assert revision is not None
                self._kept[ident] = RevisionRows(revision, None)

    def _rows(self, ident: str, transaction: ReadTransaction) -> bytes | None:
        path = f"/api/{ident}".encode().decode("latin-1")
        query = f"format=json&rows_per_page={self._most_rows}"
        request = Request("http", "localhost", "", path, query, "", "")
        try:
            response = self._dispatcher.respond(request, transaction=transaction)
        except Problem:
            # Without filters the route refuses them: of people that are not listed, say.
            return None
        assert isinstance(response.body, bytes)
        return _newest(orjson.loads(response.body), self._most_rows)


def _newest(rows: Any, most_rows: int) -> bytes | None:
    """The newest buckets as JSON, as many whole ones as fit; None where not even one does.

    Args:
        rows: newest first.
        most_rows: if there are so many, the last bucket may have more.
    """
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and "timestamp" in row for row in rows
    ):
        # The plugin writes its JSON in another way.
        return None
    pieces: list[bytes] = []
    size, complete = 2, 0
    for number, row in enumerate(rows):
        if number and row["timestamp"] != rows[number - 1]["timestamp"]:
            complete = number
        pieces.append(orjson.dumps(row))
        size += len(pieces[-1]) + 1
        if size > LARGEST:
            break
    else:
        if len(rows) < most_rows:
            complete = len(rows)
    return b"[%b]" % b",".join(pieces[:complete]) if complete or not rows else None
