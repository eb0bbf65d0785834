"""How long a statement may run, and all statements of a transaction together."""

from __future__ import annotations

import math
import sqlite3
import time
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Engine, event

from statscache.errors import StatementTimeout

_INSTRUCTIONS_BETWEEN_LOOKS = 10_000
"""Instructions of SQLite's virtual machine between two checks of the clock: under a millisecond."""

_UNTOLD = 0.1
"""Seconds by which PostgreSQL may end a statement too late: a new limit costs another statement."""

_DEADLINE = "statscache.deadline"


class _Deadline:
    """When the present statement of a connection has run long enough, and its transaction.

    Args:
        seconds: that a statement may run.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.begin()

    def begin(self) -> None:
        """Count for another transaction."""
        self._at = self.until = math.inf
        # What PostgreSQL allows each statement, in seconds.
        self._told = self._seconds

    def extend(self) -> None:
        """Count from now, for a statement or the next of its rows.

        Raises:
            StatementTimeout: there is no time left.
        """
        now = time.monotonic()
        if now >= self.until:
            raise StatementTimeout("there is no time left for another statement")
        self._at = min(now + self._seconds, self.until)

    def is_over(self) -> bool:
        """Whether SQLite is to stop."""
        return time.monotonic() > self._at

    def to_tell(self) -> int | None:
        """Returns the milliseconds to set in PostgreSQL; None where its limit is about right."""
        remaining = self._at - time.monotonic()
        if abs(remaining - self._told) <= _UNTOLD:
            return None
        self._told = remaining
        return max(1, math.ceil(remaining * 1000))


def limit(connection: Connection, until: float) -> None:
    """Let no statement of a transaction run beyond ``until``, by :func:`time.monotonic`.

    Where the database was opened without a limit for statements, there is none.
    """
    deadline = connection.info.get(_DEADLINE)
    if deadline is not None:
        deadline.until = until


def extend_deadline(connection: Connection) -> None:
    """Allow a statement as much time again for the next of its rows, if there is so much left.

    Raises:
        StatementTimeout: there is none.
    """
    deadline = connection.info.get(_DEADLINE)
    if deadline is not None:
        deadline.extend()
        _tell(connection, deadline)


def _tell(connection: Connection, deadline: _Deadline) -> None:
    """Set the limit of the next statement in PostgreSQL; SQLite calls :meth:`is_over`."""
    if connection.dialect.name != "postgresql":
        return
    milliseconds = deadline.to_tell()
    if milliseconds is not None:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {milliseconds}")


def limit_statements(engine: Engine, seconds: float) -> None:
    """End statements, and the reading of what they find, after ``seconds``, or when it is time."""

    @event.listens_for(engine, "connect")
    def watch(connection: Any, record: Any) -> None:
        deadline = record.info[_DEADLINE] = _Deadline(seconds)
        if isinstance(connection, sqlite3.Connection):
            connection.set_progress_handler(deadline.is_over, _INSTRUCTIONS_BETWEEN_LOOKS)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.info[_DEADLINE].begin()

    @event.listens_for(engine, "before_cursor_execute")
    def execute(connection: Connection, *_statement: Any) -> None:
        extend_deadline(connection)
