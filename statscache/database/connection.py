"""The database: how to reach it, one transaction per batch, and whether its schema is ours."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from statscache.database import fence, migrations
from statscache.errors import (
    AccessDenied,
    DatabaseMissing,
    DatabaseUnavailable,
    NotADatabase,
    SchemaError,
    StatementTimeout,
)

LOCK_TIMEOUT = timedelta(seconds=30)
"""How long a transaction waits for another process that writes.

For SQLite the URI may say otherwise: ``sqlite:///statscache.db?timeout=5``.
"""

_INSTRUCTIONS_BETWEEN_LOOKS = 10_000
"""Of SQLite's virtual machine, between two looks at the clock: less than a millisecond."""

_UNTOLD = 0.1
"""Seconds by which PostgreSQL may end a statement too late: to tell it the limit takes a statement
of its own."""

_QUERY_CANCELED = "57014"
"""PostgreSQL's code for a statement that ran into its timeout."""

_NOT_GRANTED = "42501"
"""PostgreSQL's code for what the role of the connection may not do."""

_DEADLINE = "statscache.deadline"


_DATABASES: WeakSet[Database] = WeakSet()
"""Those of this process."""


def _leave_all_connections() -> None:
    for database in _DATABASES:
        database._leave_connections()


os.register_at_fork(after_in_child=_leave_all_connections)


class Database:
    """One database, for a process that writes (the hub) or only reads (the API).

    Args:
        uri: as SQLAlchemy writes it, of SQLite or PostgreSQL.
        read_only: whether the database itself is to refuse every write.
        statement_timeout: the longest that one statement may run; None is unlimited. What several
            may take together is said with :func:`limit`.
    """

    def __init__(
        self, uri: str, *, read_only: bool = False, statement_timeout: timedelta | None = None
    ) -> None:
        self.uri = uri
        self.read_only = read_only
        self.backend = make_url(uri).get_backend_name()
        self._statement_timeout = statement_timeout
        if self.backend == "sqlite":
            self.engine = _sqlite_engine(uri, read_only, statement_timeout)
        else:
            self.engine = _postgresql_engine(uri, read_only, statement_timeout)
        self._inherited: list[Any] = []
        _DATABASES.add(self)

    def _leave_connections(self) -> None:
        """Connect anew in a process that was forked: two must not speak on one connection.

        Those of the parent are kept, and not closed, which would end them for the parent too.
        """
        self._inherited.append(self.engine.pool)
        self.engine.dispose(close=False)

    @property
    def file(self) -> Path | None:
        """The file that SQLite has it in, with its whole path; None for others."""
        path = make_url(self.uri).database
        if self.backend != "sqlite" or not path or path.startswith("file:"):
            return None
        return Path(path).absolute()

    @property
    def name(self) -> str:
        """What it is, for its operator: without passwords, and with the whole path of a file."""
        url = make_url(self.uri)
        if self.file is not None:
            url = url.set(database=str(self.file))
        if "password" in url.query:
            url = url.update_query_dict({"password": "***"})
        return url.render_as_string(hide_password=True)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back on an exception.

        Raises:
            DatabaseUnavailable: the database cannot be reached, is locked by another process, or
                has no room: nothing was committed, and a later try may succeed.
            StatementTimeout: a statement ran longer than it may.
            AccessDenied: this database is only read, and that was not granted.
            NotADatabase: the file is something else.
        """
        was_lost = False
        try:
            with self.engine.begin() as connection:
                try:
                    yield connection
                except Exception:
                    was_lost = connection.invalidated
                    raise
        except DBAPIError as error:
            if _is_no_database(error):
                raise NotADatabase(
                    f"{make_url(self.uri).database} is no database of SQLite "
                    f"({_first_line(error)}): name another file in statscache.sqlalchemy.uri, or "
                    "put a good copy in its place"
                ) from error
            if self._statement_timeout is not None and _was_cancelled(error):
                raise StatementTimeout(_first_line(error)) from error
            if was_lost or is_unavailable(error):
                raise DatabaseUnavailable(_first_line(error) + self._room(error)) from error
            if self.read_only and getattr(error.orig, "pgcode", None) == _NOT_GRANTED:
                raise AccessDenied(_first_line(error)) from error
            raise
        except PoolTimeout as error:
            raise DatabaseUnavailable("all connections have been in use for too long") from error
        except DatabaseUnavailable:
            raise
        except Exception as error:
            # Of somebody who went on after the connection was lost.
            if was_lost:
                raise DatabaseUnavailable(str(error)) from error
            raise

    def check_schema(self) -> None:
        """Compare the revision of the schema with that of the installed migrations.

        Raises:
            SchemaError: it is another one; the text names both and the command that helps.
            DatabaseMissing: SQLite has no such file.
            DatabaseUnavailable: see :meth:`begin`.
        """
        expected = migrations.HEAD
        if self.file is not None and not self.file.exists():
            # To look into it would make it.
            raise DatabaseMissing(
                f"the database {self.name} has no statscache tables yet, nor a file: run "
                "'statscache db upgrade' to make it, or name another one, with its whole path, in "
                "statscache.sqlalchemy.uri"
            )
        with self.begin() as connection:
            current = migrations.revision_of(connection)
        if current == expected:
            return
        where = self.name
        if current is None:
            raise SchemaError(
                f"the database {where} has no statscache tables yet (this version needs schema "
                f"{expected}): run 'statscache db upgrade'"
            )
        if not migrations.is_known(current):
            raise SchemaError(
                f"the database {where} has schema {current}, which this version of statscache "
                f"(schema {expected}) does not know: it is newer; upgrade statscache"
            )
        raise SchemaError(
            f"the database {where} has schema {current}, and this version of statscache needs "
            f"{expected}: stop the hub and run 'statscache db upgrade'"
        )

    def _room(self, error: DBAPIError) -> str:
        """What there is to say of the disk, where SQLite may have failed because it is full."""
        name = getattr(error.orig, "sqlite_errorname", "")
        if not name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")):
            return ""
        folder = Path(make_url(self.uri).database or "").absolute().parent
        try:
            free = shutil.disk_usage(folder).free
        except OSError as reason:
            return f" ({name}; {reason})"
        return f" ({name}; {free // 1024:,} KiB are free on the disk of {folder})"

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def create_missing(connection: Connection, tables: list[Any]) -> list[str]:
    """Create those of ``tables`` that are not there, and give their names.

    For the tables of plugins from other distributions, which no migration of ours knows.
    """
    existing = set(inspect(connection).get_table_names())
    missing = [table for table in tables if table.name not in existing]
    by_metadata: dict[MetaData, list[Any]] = {}
    for table in missing:
        by_metadata.setdefault(table.metadata, []).append(table)
    for metadata, group in by_metadata.items():
        metadata.create_all(connection, tables=group, checkfirst=False)
    return [table.name for table in missing]


_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_READ_ONLY = "25006"
"""PostgreSQL's code for a write where none are possible."""

_TOO_LARGE = "54"
"""How PostgreSQL's codes for rows and statements begin that no server could hold."""

_PRIMARY_CODE = 0xFF
"""SQLite's extended result codes have the primary one in their lowest byte."""


def is_unavailable(error: DBAPIError) -> bool:
    """Whether the database, and not the statement, is the cause: a later try may succeed."""
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0)
        return code & _PRIMARY_CODE in _SQLITE_UNAVAILABLE
    # PostgreSQL: lost connections, shutdowns, lack of resources, dead-locks, time-outs; and a
    # server that has become the standby of another.
    code = getattr(error.orig, "pgcode", None) or ""
    if code.startswith(_TOO_LARGE):
        return False
    return code == _READ_ONLY or isinstance(error, OperationalError)


def _is_no_database(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return code & _PRIMARY_CODE in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def _was_cancelled(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT
    return getattr(error.orig, "pgcode", None) == _QUERY_CANCELED


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else repr(error)


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
        """Milliseconds that PostgreSQL has to be told of, if it does not know them, or almost."""
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
    """Let PostgreSQL know how long the next statement may run; SQLite asks."""
    if connection.dialect.name != "postgresql":
        return
    milliseconds = deadline.to_tell()
    if milliseconds is not None:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {milliseconds}")


def _limit_statements(engine: Engine, seconds: float) -> None:
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


def _sqlite_engine(uri: str, read_only: bool, statement_timeout: timedelta | None) -> Engine:
    arguments: dict[str, Any] = {}
    if "timeout" not in make_url(uri).query:
        arguments["timeout"] = LOCK_TIMEOUT.total_seconds()
    if not read_only:
        arguments["factory"] = fence.SQLiteConnection
    engine = create_engine(uri, connect_args=arguments)
    if statement_timeout is not None:
        # First, for BEGIN is a statement too.
        _limit_statements(engine, statement_timeout.total_seconds())

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver's own transactions begin too late for savepoints: we begin them below.
        connection.isolation_level = None
        cursor = connection.cursor()
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        else:
            # Readers and the writer do not wait for each other. Survives kill -9 without a
            # sync per commit; after a power failure the last batches are missing as a whole, and
            # the archive has them.
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute("PRAGMA cache_size = -131072")
            cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @event.listens_for(engine, "handle_error")
    def give_up(context: ExceptionContext) -> None:
        # SQLite has rolled back the whole transaction when, for example, the disk is full; what
        # followed on this connection would be committed on its own.
        error = context.sqlalchemy_exception
        if isinstance(error, DBAPIError) and is_unavailable(error):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes its lock at once: two that upgraded a read lock would dead-lock.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


_LONGEST_WAIT = timedelta(seconds=30)
"""For one of the connections, where statements have no limit."""

_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds and tries after which a machine that has vanished without a word is given up."""


def _postgresql_engine(uri: str, read_only: bool, statement_timeout: timedelta | None) -> Engine:
    options = "-c timezone=UTC"
    if read_only:
        # The planner takes the sums of a chart to cost far more than they do, and to compile them
        # would take longer than to run them.
        options += " -c default_transaction_read_only=on -c jit=off"
    else:
        options += f" -c lock_timeout={_milliseconds(LOCK_TIMEOUT)}"
    if statement_timeout is not None:
        options += f" -c statement_timeout={_milliseconds(statement_timeout)}"
    url = make_url(uri)
    if url.drivername == "postgresql":
        # What SQLAlchemy takes for a URI without a driver depends on its version.
        url = url.set(drivername="postgresql+psycopg2")
    factory = {} if read_only else {"connection_factory": fence.PostgreSQLConnection}
    engine = create_engine(
        url,
        pool_pre_ping=True,
        # All that a reader reads in one transaction is of one moment.
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        connect_args={"options": options, "connect_timeout": 10, **_KEEPALIVES, **factory},
        pool_timeout=(statement_timeout or _LONGEST_WAIT).total_seconds(),
    )
    if statement_timeout is not None:
        _limit_statements(engine, statement_timeout.total_seconds())
    if not read_only:
        _let_go_of_standbys(engine)
    return engine


def _let_go_of_standbys(engine: Engine) -> None:
    """Connect anew when a session cannot write any more: its server has become a standby.

    Sessions outlive that, and new ones lead to the server that has taken its place.
    """

    @event.listens_for(engine, "handle_error")
    def let_go(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "pgcode", None) == _READ_ONLY:
            context.is_disconnect = True


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
