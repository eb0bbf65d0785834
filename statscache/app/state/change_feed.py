"""Whether something was committed: asked before every request, so it costs microseconds.

SQLite is polled, and answers exactly. PostgreSQL announces commits, within about a millisecond.
Announcements get lost behind a pooler, or when the network breaks silently, so that the database is
read every :data:`CHECK_EVERY` seconds as well.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy import Engine

from statscache.database.announcements import CHANNEL
from statscache.database.connection import Database

POLL_EVERY = 0.2
"""Seconds between two polls of a file, while a client waits."""

CHECK_EVERY = 1.0
"""Seconds after which PostgreSQL is read, although it announced nothing."""


class ChangeFeed(Protocol):
    """Tells of commits, by a connection of its own; for one thread of one process."""

    @property
    def errors(self) -> type[Exception]:
        """What is raised when the connection is lost."""

    def has_changed(self) -> bool:
        """Whether there was a commit since the last call."""

    def has_certainly_changed(self) -> bool:
        """The same, and never misses one that is still in transit; may ask the database."""

    def must_check(self) -> bool:
        """Whether the database itself is to be read; true again only after some time."""

    def close(self) -> None:
        """End the connection."""


class FileChangeFeed:
    """The commits to a file of SQLite; a :class:`ChangeFeed`."""

    def __init__(self, engine: Engine) -> None:
        self.errors: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._connection = _own_connection(engine)
        # The handler that limits statements is for the connections of requests.
        self._connection.set_progress_handler(None, 0)
        self._version = None
        self.has_changed()

    def has_changed(self) -> bool:
        """Whether another connection has written to the file."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        before, self._version = self._version, version
        return bool(version != before)

    def has_certainly_changed(self) -> bool:
        """The same: SQLite answers exactly."""
        return self.has_changed()

    def must_check(self) -> bool:
        """Never: the version is in memory that all connections to the file share."""
        return False

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class AnnouncedChangeFeed:
    """The commits that PostgreSQL announces; a :class:`ChangeFeed`."""

    def __init__(self, engine: Engine) -> None:
        self.errors: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._connection = _own_connection(engine)
        self._connection.autocommit = True
        self._connection.cursor().execute(f"LISTEN {CHANNEL}")
        self._check_at = time.monotonic() + CHECK_EVERY

    def has_changed(self) -> bool:
        """Whether one was announced."""
        # Takes what has been received, and does not wait. When the server goes away, the first poll
        # takes its last announcements, and only the second one finds that the connection has ended.
        self._connection.poll()
        self._connection.poll()
        has_changed = bool(self._connection.notifies)
        self._connection.notifies.clear()
        return has_changed

    def has_certainly_changed(self) -> bool:
        """Whether one was announced up to now."""
        # The server sends pending announcements before it completes a statement, so after this
        # one all of them have been received.
        self._connection.cursor().execute("SELECT 1")
        return self.has_changed()

    def must_check(self) -> bool:
        """Once in :data:`CHECK_EVERY` seconds."""
        now = time.monotonic()
        if now < self._check_at:
            return False
        self._check_at = now + CHECK_EVERY
        return True

    def fileno(self) -> int:
        """Of the socket that can be read when there may be an announcement."""
        return int(self._connection.fileno())

    def close(self) -> None:
        """End the connection, which may be lost already."""
        with suppress(self.errors):
            self._connection.close()


def open_feed(database: Database) -> ChangeFeed:
    """The commits to ``database`` from now on.

    Raises:
        ChangeFeed.errors, sqlalchemy.exc.DBAPIError: the database cannot be reached, or does not
            announce (a standby does not).
    """
    kind = FileChangeFeed if database.backend == "sqlite" else AnnouncedChangeFeed
    return kind(database.engine)


def sleep(feed: ChangeFeed | None, bell: Any, seconds: float) -> None:
    """Sleep until there may have been a commit, or ``bell``, a socket, can be read."""
    sockets: list[Any] = [bell]
    announces = isinstance(feed, AnnouncedChangeFeed)
    if announces:
        sockets.append(feed)
    # Another thread may close the connection meanwhile, which also ends the sleep.
    with suppress(OSError, ValueError):
        select.select(sockets, (), (), min(seconds, CHECK_EVERY if announces else POLL_EVERY))


def _own_connection(engine: Engine) -> Any:
    """A connection of the driver, configured like all others, that no pool takes back."""
    borrowed = engine.raw_connection()
    connection = borrowed.driver_connection
    borrowed.detach()
    return connection
