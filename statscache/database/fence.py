"""What the code of a classic plugin may do with the connection that all plugins share.

It writes its own rows in the common transaction. If it ended that transaction, or wrote to the
tables of others, their rows would be wrong and the cause unknown. So the driver's connection
refuses it, whether it is called through SQLAlchemy or directly.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from functools import lru_cache
from typing import Any

import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from statscache.errors import Trespass

_NOT_CODE = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
"""Literals and comments of a statement."""

# SET and the like would change the rest of the transaction for all other plugins.
_ENDS_TRANSACTION = re.compile(
    r"\s*(?:commit|end|abort|begin|start\s+transaction|prepare\s+transaction"
    r"|set|reset|discard"
    r"|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b|\s*pragma\b[^;]*=",
    re.IGNORECASE,
)
_WRITES = re.compile(
    r"\b(?:insert\s+(?:or\s+\w+\s+)?into|replace\s+into|merge\s+into|update(?:\s+or\s+\w+)?"
    r"|delete\s+from|truncate(?:\s+table)?|(?:alter|drop)\s+table|lock(?:\s+table)?|copy"
    r"|create\s+(?:unique\s+)?(?:index|trigger)\b[^;]*?\bon)"
    r"(?:\s+if\s+exists)?(?:\s+only)?\s+"
    r'(?:"?\w+"?\.)?"?(\w+)"?',
    re.IGNORECASE,
)


_OF_THE_DATABASE = (
    sqlite3.OperationalError,
    psycopg2.OperationalError,
    psycopg2.InterfaceError,
)


class Fence:
    """Around one call of a plugin.

    Args:
        foreign: the names of the tables of others.

    Attributes:
        trespass: what the plugin tried and may not do, if it did.
        statement: the statement that is running.
        is_closed: whether the connection was closed inside.
        is_lost: whether a statement failed as it does when the database is to blame.
    """

    def __init__(self, foreign: frozenset[str]) -> None:
        self._foreign = foreign
        self._connection: Any = None
        self.trespass: str | None = None
        self.statement: str | None = None
        self.is_closed = False
        self.is_lost = False
        self._errors: list[BaseException] = []

    def put_around(self, connection: Connection) -> None:
        """Check every statement on ``connection`` from now on."""
        self._connection = connection.connection.dbapi_connection
        self._connection.fence = self

    def take_away(self) -> None:
        """Stop checking, for our own code."""
        self._connection.fence = None

    def is_intact(self, connection: Connection) -> bool:
        """Whether our transaction is still open, on the same connection."""
        return not (
            self.is_closed
            or connection.closed
            or connection.invalidated
            or not connection.in_transaction()
            or connection.connection.dbapi_connection is not self._connection
            or not _is_in_transaction(self._connection)
        )

    def close(self, connection: Connection) -> None:
        """Close the connection, whose state is unknown: the database rolls back."""
        if not (connection.closed or connection.invalidated):
            connection.invalidate()
        self._connection.close()

    def cancel(self) -> None:
        """End the statement that is under way; from any thread."""
        if isinstance(self._connection, sqlite3.Connection):
            self._connection.interrupt()
        else:
            # It calls the server, which may not answer.
            threading.Thread(target=self._connection.cancel, daemon=True).start()

    def note(self, error: BaseException) -> None:
        """A statement raised this."""
        self._errors.append(error)
        # The bare class is for what the server has not said: that it is gone.
        self.is_lost |= isinstance(error, _OF_THE_DATABASE) or type(error) is psycopg2.DatabaseError

    def note_close(self) -> None:
        """The connection is closed."""
        self.is_closed = True
        if not self.is_lost and self.trespass is None:
            self.trespass = "it must not close the connection, which all share"

    def is_elsewhere(self, error: DBAPIError) -> bool:
        """Whether an error came from another connection, which the plugin has opened."""
        if any(error.orig is each for each in self._errors):
            return False
        if isinstance(error.orig, sqlite3.Error):
            # Others come when rows are fetched. We hold the lock for writing: ours is never busy.
            return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        return True

    def check(self, statement: str) -> None:
        """Raises:
        Trespass: a statement would end the transaction, or write to a table of others.
        """
        if is_end(statement):
            self.refuse(
                f"it must not end or change the transaction, which all share: {statement.strip()}"
            )
        for name in written(statement) & self._foreign:
            self.refuse(f"it must not write to {name}, which is not its own: {statement.strip()}")

    def refuse(self, trespass: str) -> None:
        """Raises:
        Trespass: always; it is remembered, in case the plugin goes on.
        """
        self.trespass = trespass[:1000]
        raise Trespass(self.trespass)


@lru_cache(maxsize=1_000)
def is_end(statement: str) -> bool:
    """Whether a statement, or one of several, begins, ends or changes a transaction."""
    parts = _NOT_CODE.sub(" ", statement).split(";")
    return any(_ENDS_TRANSACTION.match(part) for part in parts)


@lru_cache(maxsize=1_000)
def written(statement: str) -> frozenset[str]:
    """The tables that a statement changes, in lower case, as far as its text tells."""
    return frozenset(name.lower() for name in _WRITES.findall(_NOT_CODE.sub(" ", statement)))


def _is_in_transaction(connection: Any) -> bool:
    if isinstance(connection, sqlite3.Connection):
        return connection.in_transaction
    idle = psycopg2.extensions.TRANSACTION_STATUS_IDLE
    return not connection.closed and connection.info.transaction_status != idle


class _Fenced:
    """A connection, of either driver, that asks its fence, if there is one."""

    fence: Fence | None = None

    def _check_end(self) -> None:
        if self.fence is not None:
            self.fence.refuse("it must not end the transaction, which all share")

    def commit(self) -> None:
        self._check_end()
        super().commit()  # type: ignore[misc]

    def rollback(self) -> None:
        self._check_end()
        super().rollback()  # type: ignore[misc]

    def close(self) -> None:
        # Not refused: SQLAlchemy closes what is lost. The database rolls back.
        if self.fence is not None:
            self.fence.note_close()
        super().close()  # type: ignore[misc]

    def __exit__(self, *error: Any) -> Any:
        self._check_end()
        return super().__exit__(*error)  # type: ignore[misc]


class _FencedCursor:
    """A cursor that asks the fence of its connection."""

    def execute(self, statement: Any, *parameters: Any) -> Any:
        return self._run(super().execute, statement, *parameters)  # type: ignore[misc]

    def executemany(self, statement: Any, *parameters: Any) -> Any:
        return self._run(super().executemany, statement, *parameters)  # type: ignore[misc]

    def _run(self, run: Any, statement: Any, *parameters: Any, **more: Any) -> Any:
        fence = self.connection.fence  # type: ignore[attr-defined]
        if fence is None:
            return run(statement, *parameters, **more)
        fence.check(self._text(statement))
        fence.statement = self._text(statement)
        try:
            return run(statement, *parameters, **more)
        except BaseException as error:
            fence.note(error)
            raise
        finally:
            fence.statement = None

    def _text(self, statement: Any) -> str:
        return statement.decode() if isinstance(statement, bytes) else str(statement)


class SQLiteCursor(_FencedCursor, sqlite3.Cursor):
    """Of :class:`SQLiteConnection`."""

    def executescript(self, script: str) -> Any:
        """Run statements; it would commit first."""
        self.connection._check_end()  # type: ignore[attr-defined]
        return super().executescript(script)


class SQLiteConnection(_Fenced, sqlite3.Connection):
    """What SQLAlchemy is to make for SQLite."""

    def cursor(self, factory: Any = SQLiteCursor) -> Any:
        """A cursor; SQLAlchemy asks for no other one."""
        return super().cursor(factory)


class PostgreSQLCursor(_FencedCursor, psycopg2.extensions.cursor):
    """Of :class:`PostgreSQLConnection`."""

    def copy_expert(self, statement: Any, *arguments: Any, **more: Any) -> Any:
        """COPY by a statement."""
        return self._run(super().copy_expert, statement, *arguments, **more)

    def copy_from(self, file: Any, table: str, *arguments: Any, **more: Any) -> Any:
        """COPY into a table."""
        if self.connection.fence is not None:
            self.connection.fence.check(f"COPY {table}")
        return super().copy_from(file, table, *arguments, **more)

    def _text(self, statement: Any) -> str:
        if hasattr(statement, "as_string"):
            return str(statement.as_string(self))
        return super()._text(statement)


class PostgreSQLConnection(_Fenced, psycopg2.extensions.connection):
    """What SQLAlchemy is to make for PostgreSQL."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.cursor_factory = PostgreSQLCursor

    def reset(self) -> None:
        """Roll back, and forget settings."""
        self._check_end()
        super().reset()
