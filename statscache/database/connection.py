"""The database of a process: how it is reached, and one transaction at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from statscache.database import engines, failures
from statscache.database.forks import PerProcess
from statscache.errors import AccessDenied, DatabaseUnavailable, NotADatabase, StatementTimeout


class Database:
    """One database, for a process that writes (the hub) or only reads (the API).

    Args:
        uri: as SQLAlchemy writes it, of SQLite or PostgreSQL.
        read_only: whether the database itself is to refuse every write.
        statement_timeout: the longest that one statement may run; None is unlimited. What several
            may take together is set with :func:`statscache.database.deadline.limit`.
    """

    def __init__(
        self, uri: str, *, read_only: bool = False, statement_timeout: timedelta | None = None
    ) -> None:
        self.uri = uri
        self.read_only = read_only
        self.backend = make_url(uri).get_backend_name()
        self._statement_timeout = statement_timeout
        connect = engines.sqlite if self.backend == "sqlite" else engines.postgresql
        self._engine = PerProcess(lambda: connect(uri, read_only, statement_timeout))

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, of this process alone."""
        return self._engine.value

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
            path = make_url(self.uri).database
            if failures.is_no_database(error):
                raise NotADatabase(
                    f"{path} is no database of SQLite ({failures.first_line(error)}): name another "
                    "file in statscache.sqlalchemy.uri, or put a good copy in its place"
                ) from error
            if self._statement_timeout is not None and failures.is_timeout(error):
                raise StatementTimeout(failures.first_line(error)) from error
            if was_lost or failures.is_unavailable(error):
                reason = failures.first_line(error) + failures.free_space(error, path)
                raise DatabaseUnavailable(reason) from error
            if self.read_only and failures.is_denied(error):
                raise AccessDenied(failures.first_line(error)) from error
            raise
        except PoolTimeout as error:
            raise DatabaseUnavailable("all connections have been in use for too long") from error
        except DatabaseUnavailable:
            raise
        except Exception as error:
            # Raised by code that went on after the connection was lost.
            if was_lost:
                raise DatabaseUnavailable(str(error)) from error
            raise

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()
