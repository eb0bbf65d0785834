"""How often the rows of each ident have changed, which tells whether an answer is still valid."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import DBAPIError

from statscache.app.state.change_feed import CHECK_EVERY, ChangeFeed, open_feed, sleep
from statscache.database import tables
from statscache.database.connection import Database
from statscache.database.forks import PerProcess

log = logging.getLogger(__name__)

MOST_GAPS = 1_000
"""Gaps that are read; all the time before the oldest of so many is taken for one."""

MOST_SPANS = 10_000
"""Spans of replayed files that are read, the newest ones."""


class Revision(NamedTuple):
    """Of the rows of one ident.

    Attributes:
        number: grows by one with each transaction that changed them.
        changed_at: when it did, UNIX seconds; a new database counts from 1 again.
    """

    number: int
    changed_at: float


class Snapshot:
    """What the framework's tables say at one moment; each read when it is first used.

    After :meth:`load` it never changes, and all threads can share it.
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
        """The rows of ``statscache_lane`` by number: watermark, newest, committed_at, ..."""
        return {row.id: row for row in self._execute(select(tables.lane))}

    @cached_property
    def gaps(self) -> Sequence[Row[Any]]:
        """The newest :data:`MOST_GAPS` rows of ``statscache_gap``, newest first."""
        newest_first = tables.gap.c.start.desc(), tables.gap.c.lane
        gaps: Sequence[Row[Any]] = self._execute(
            select(tables.gap).order_by(*newest_first).limit(MOST_GAPS)
        )
        return gaps

    @cached_property
    def replayed(self) -> Mapping[str, list[tuple[float, float]]]:
        """Of each ident, starts and stops of the times that it has counted from files."""
        table = tables.replayed
        newest_first = table.c.start.desc(), table.c.ident
        spans: dict[str, list[tuple[float, float]]] = {}
        for row in self._execute(select(table).order_by(*newest_first).limit(MOST_SPANS)):
            spans.setdefault(row.ident, []).append((row.start, row.stop))
        return spans

    @cached_property
    def rejections(self) -> Mapping[str, int]:
        """Of each ident that has rejected messages, how many."""
        table = tables.rejected_total.c
        found: Counter[str] = Counter()
        for row in self._execute(select(table.plugin, table.messages)):
            for ident in row.plugin.split():
                found[ident] += row.messages
        return found

    def load(self) -> Snapshot:
        """Read all of it now; the connection is not needed afterwards."""
        _ = self._all
        self._connection = None
        return self

    def agrees_with(self, other: Snapshot) -> bool:
        """Whether both say the same."""
        return self._all == other._all

    @property
    def _all(self) -> tuple[Any, ...]:
        return (
            self.revisions,
            self.plugins,
            self.lanes,
            self.gaps,
            self.replayed,
            self.rejections,
        )

    def _execute(self, statement: Any) -> Any:
        assert self._connection is not None, "the snapshot was not loaded"
        return self._connection.execute(statement).all()


class Revisions:
    """What the framework's tables say now, cheaply enough for every request.

    A copy is kept in memory, and read again when something was committed. All threads share it; a
    forked process reads its own.

    Args:
        begin: begins a transaction that only reads.
        database: that it reads.
    """

    def __init__(
        self, begin: Callable[[], AbstractContextManager[Connection]], database: Database
    ) -> None:
        self._copy = PerProcess(lambda: _Copy(begin, database))

    def current(self, ident: str) -> Revision | None:
        """Of the rows of ``ident``; None where nothing was ever written."""
        return self.all().revisions.get(ident)

    def all(self) -> Snapshot:
        """What the framework's tables say now: all that was committed before this call.

        Returns the same object as long as nothing has changed. On PostgreSQL commits of the last
        millisecond may be missing (see :meth:`confirm`), or of the last second where announcements
        get lost.

        Raises:
            DatabaseUnavailable: the database does not answer.
            SchemaError: it has not been upgraded.
        """
        return self._copy.value.get()

    def confirm(self) -> None:
        """Let the next :meth:`all` return all that was committed before this call."""
        self._copy.value.confirm()

    def observe(self, ident: str, revision: Revision | None) -> None:
        """Note what a transaction has read: from now on no older revision is returned."""
        if revision is not None:
            self._copy.value.observe(ident, revision)

    def next_after(self, known: Snapshot, seconds: float) -> Snapshot:
        """Like :meth:`all`, as soon as it differs from ``known``, or the time is over; sleeps."""
        deadline = time.monotonic() + seconds
        while True:
            copy = self._copy.value
            snapshot = copy.get()
            remaining = deadline - time.monotonic()
            if snapshot is not known or remaining <= 0:
                return snapshot
            copy.pause(remaining)


class _Copy:
    """The copy of one process."""

    def __init__(
        self, begin: Callable[[], AbstractContextManager[Connection]], database: Database
    ) -> None:
        self._begin = begin
        self._database = database
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._is_stale = True
        self._feed: ChangeFeed | None = None
        self._open_at = 0.0
        self._bell: tuple[socket.socket, socket.socket] | None = None

    def get(self) -> Snapshot:
        with self._lock:
            # The feed is asked before the tables are read: a commit in between is reported by the
            # next call. It is asked even if the copy is stale, since it reports each commit once.
            if self._has_changed() or self._is_stale or self._snapshot is None:
                return self._read()
            known = self._snapshot
            assert self._feed is not None
            if self._feed.must_check() and self._read() is not known:
                # The feed has missed a commit: open another one.
                self._close(open_at=0.0)
            return self._snapshot

    def confirm(self) -> None:
        with self._lock:
            if self._feed is not None:
                try:
                    self._is_stale |= self._feed.has_certainly_changed()
                except self._feed.errors as error:
                    self._lose(error)

    def observe(self, ident: str, revision: Revision) -> None:
        with self._lock:
            known = None if self._snapshot is None else self._snapshot.revisions.get(ident)
            if known is None or known.number < revision.number:
                self._is_stale = True

    def pause(self, seconds: float) -> None:
        """Sleep until there may be something new, ``seconds`` at most."""
        with self._lock:
            if self._bell is None:
                self._bell = socket.socketpair()
                for end in self._bell:
                    end.setblocking(False)
            bell, feed = self._bell[0], self._feed
        sleep(feed, bell, seconds)
        with suppress(BlockingIOError):
            bell.recv(4096)

    def _has_changed(self) -> bool:
        """Whether there were commits; True without a feed, since there may have been some."""
        if self._feed is None:
            if time.monotonic() >= self._open_at:
                self._open_feed()
            return True
        try:
            return self._feed.has_changed()
        except self._feed.errors as error:
            self._lose(error)
            return True

    def _open_feed(self) -> None:
        # For its error, which explains a missing database or table better than the feed's.
        with self._begin():
            pass
        try:
            self._feed = open_feed(self._database)
        except (DBAPIError, self._database.engine.dialect.loaded_dbapi.Error) as error:
            log.warning("the database does not tell of commits: %s", _line(error))
            self._open_at = time.monotonic() + CHECK_EVERY

    def _lose(self, error: Exception) -> None:
        log.warning("the database no longer tells of commits: %s", _line(error))
        self._close(open_at=time.monotonic() + CHECK_EVERY)

    def _close(self, open_at: float) -> None:
        assert self._feed is not None
        self._feed.close()
        self._feed = None
        self._open_at = open_at

    def _read(self) -> Snapshot:
        # Stale until the read has succeeded: the feed does not report the same commit again.
        self._is_stale = True
        with self._begin() as connection:
            snapshot = Snapshot(connection).load()
        self._is_stale = False
        # The former object, if nothing differs: callers compare snapshots by identity.
        if self._snapshot is not None and snapshot.agrees_with(self._snapshot):
            return self._snapshot
        self._snapshot = snapshot
        if self._bell is not None:
            # This thread has taken the announcement for which the sleeping one waits. A full socket
            # rings as well.
            with suppress(BlockingIOError):
                self._bell[1].send(b"!")
        return snapshot


def _line(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())
