"""Whether something was committed: asked before every request, so it costs microseconds.

SQLite tells when it is asked, and exactly. PostgreSQL calls, within about a millisecond; calls get
lost where a pooler stands between, or the network breaks without a word, so that it is asked every
:data:`CHECK_EVERY` seconds as well.
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
"""Seconds between two looks at a file, while somebody waits."""

CHECK_EVERY = 1.0
"""Seconds after which PostgreSQL is asked, though it did not call."""


class Commits(Protocol):
    """Has a connection of its own; not for several threads at a time, nor for a forked process."""

    @property
    def errors(self) -> type[Exception]:
        """What is raised when the connection is lost."""

    def have_come(self) -> bool:
        """Whether there was a commit since the last time that this was asked."""

    def have_certainly_come(self) -> bool:
        """Likewise, with nothing on its way; may ask the database."""

    def may_be_missed(self) -> bool:
        """Whether it is time to ask the database itself; then it is time again later."""

    def close(self) -> None:
        """End the connection."""


class FileVersion:
    """The commits to a file of SQLite; a :class:`Commits`."""

    def __init__(self, engine: Engine) -> None:
        self.errors: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._connection = _own_connection(engine)
        # What limits the statements of all others does not know of ours.
        self._connection.set_progress_handler(None, 0)
        self._version = None
        self.have_come()

    def have_come(self) -> bool:
        """Whether another connection has written to the file."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        before, self._version = self._version, version
        return bool(version != before)

    def have_certainly_come(self) -> bool:
        """The same: nothing is ever on its way."""
        return self.have_come()

    def may_be_missed(self) -> bool:
        """Never: what is read is in the memory that all connections to the file share."""
        return False

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Announced:
    """The commits that PostgreSQL announces; a :class:`Commits`."""

    def __init__(self, engine: Engine) -> None:
        self.errors: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._connection = _own_connection(engine)
        self._connection.autocommit = True
        self._connection.cursor().execute(f"LISTEN {CHANNEL}")
        self._check_at = time.monotonic() + CHECK_EVERY

    def have_come(self) -> bool:
        """Whether one was announced."""
        # Takes what has been received, and does not wait. Of a server that goes away it is the last
        # words first, and its end only then.
        self._connection.poll()
        self._connection.poll()
        have_come = bool(self._connection.notifies)
        self._connection.notifies.clear()
        return have_come

    def have_certainly_come(self) -> bool:
        """Whether one was announced up to now."""
        # Before it says that it is ready again the server sends what it has to announce.
        self._connection.cursor().execute("SELECT 1")
        return self.have_come()

    def may_be_missed(self) -> bool:
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


def watch(database: Database) -> Commits:
    """The commits to ``database`` from now on.

    Raises:
        Commits.errors, sqlalchemy.exc.DBAPIError: the database cannot be reached, or does not
            announce (one that only follows another does not).
    """
    kind = FileVersion if database.backend == "sqlite" else Announced
    return kind(database.engine)


def wait(commits: Commits | None, bell: Any, seconds: float) -> None:
    """Sleep until there may have been a commit, or ``bell``, a socket, can be read."""
    sockets: list[Any] = [bell]
    calls = isinstance(commits, Announced)
    if calls:
        sockets.append(commits)
    # Another thread may end the connection meanwhile: that is news too.
    with suppress(OSError, ValueError):
        select.select(sockets, (), (), min(seconds, CHECK_EVERY if calls else POLL_EVERY))


def _own_connection(engine: Engine) -> Any:
    """A connection of the driver, configured like all others, that no pool takes back."""
    borrowed = engine.raw_connection()
    connection = borrowed.driver_connection
    borrowed.detach()
    return connection
