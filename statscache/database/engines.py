"""How SQLAlchemy connects to either database, to write or only to read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError

from statscache.database import fence
from statscache.database.deadline import limit_statements
from statscache.database.failures import is_read_only, is_unavailable

LOCK_TIMEOUT = timedelta(seconds=30)
"""How long a transaction waits for another process that writes.

For SQLite the URI may say otherwise: ``sqlite:///statscache.db?timeout=5``.
"""

_LONGEST_WAIT = timedelta(seconds=30)
"""For one of the connections, where statements have no limit."""

_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds and tries after which a connection to a vanished machine is closed."""


def sqlite(uri: str, read_only: bool, statement_timeout: timedelta | None) -> Engine:
    """Returns the engine of a SQLite file."""
    arguments: dict[str, Any] = {}
    if "timeout" not in make_url(uri).query:
        arguments["timeout"] = LOCK_TIMEOUT.total_seconds()
    if not read_only:
        arguments["factory"] = fence.SQLiteConnection
    engine = create_engine(uri, connect_args=arguments)
    if statement_timeout is not None:
        # First, for BEGIN is a statement too.
        limit_statements(engine, statement_timeout.total_seconds())

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


def postgresql(uri: str, read_only: bool, statement_timeout: timedelta | None) -> Engine:
    """Returns the engine of a PostgreSQL database."""
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
        # Which driver SQLAlchemy chooses by default depends on its version.
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
        limit_statements(engine, statement_timeout.total_seconds())
    if not read_only:
        _let_go_of_standbys(engine)
    return engine


def _let_go_of_standbys(engine: Engine) -> None:
    """Open new connections when a session cannot write any more: its server is now a standby.

    Sessions outlive that, and new ones lead to the server that has taken its place.
    """

    @event.listens_for(engine, "handle_error")
    def let_go(context: ExceptionContext) -> None:
        if is_read_only(context.original_exception):
            context.is_disconnect = True


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
