"""The newest rows of idents, for events that carry them: read once per change for all listeners."""

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
from statscache.app.state.revisions import Revision
from statscache.app.state.transaction import Reading, Torn
from statscache.errors import StatementTimeout

LARGEST = 4_096
"""Bytes of rows that an event carries at most; a page fetches what is more."""


class Newest(NamedTuple):
    """The newest rows of one ident, as JSON; None where they are too many, or are not rows."""

    revision: Revision
    rows: bytes | None


class NewestRows:
    """Keeps the newest rows of those idents that somebody wants to be told of.

    Args:
        dispatcher: that answers what the rows are, as it does for everybody.
        begin: a transaction that only reads.
        most_rows: that are looked at.
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
        self._kept: dict[str, Newest] = {}
        self._wanted: Counter[str] = Counter()
        self._lock = threading.Lock()

    def want(self, idents: Collection[str]) -> None:
        """Keep the rows of ``idents`` from now on, and read them.

        Raises:
            DatabaseUnavailable, SchemaError: they cannot be read, and are not kept.
        """
        self._read(idents)
        with self._lock:
            self._wanted.update(idents)

    def release(self, idents: Collection[str]) -> None:
        """Undo one :meth:`want`."""
        with self._lock:
            self._wanted.subtract(idents)
            for ident in idents:
                if self._wanted[ident] <= 0:
                    del self._wanted[ident]
                    self._kept.pop(ident, None)

    def refresh(self, changed: Iterable[str]) -> None:
        """Read anew those of ``changed`` that somebody wants.

        Raises:
            DatabaseUnavailable, SchemaError: they cannot be read.
        """
        self._read([ident for ident in changed if ident in self._wanted])

    def get(self, ident: str) -> Newest | None:
        """What was read last."""
        return self._kept.get(ident)

    def _read(self, idents: Collection[str]) -> None:
        for ident in idents:
            revision = None
            try:
                with Reading(self._begin) as reading:
                    revision = reading.snapshot.revisions.get(ident)
                    kept = self._kept.get(ident)
                    if revision is not None and (kept is None or kept.revision != revision):
                        self._kept[ident] = Newest(revision, self._rows(ident, reading))
            except StatementTimeout:
                if revision is None:
                    raise
                # So it would be for whoever asks.
                self._kept[ident] = Newest(revision, None)
            except Torn:
                # The new table is a change of its own: that comes next.
                assert revision is not None
                self._kept[ident] = Newest(revision, None)

    def _rows(self, ident: str, reading: Reading) -> bytes | None:
        path = f"/api/{ident}".encode().decode("latin-1")
        query = f"format=json&rows_per_page={self._most_rows}"
        request = Request("http", "localhost", "", path, query, "", "")
        try:
            reply = self._dispatcher.respond(request, reading=reading)
        except Problem:
            # Who asks without filters gets none either: of people that are not listed, say.
            return None
        assert isinstance(reply.body, bytes)
        return _newest(orjson.loads(reply.body), self._most_rows)


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
