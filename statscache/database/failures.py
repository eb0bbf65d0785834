"""What an error of a driver means: what caused it, and whether a retry may succeed."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

_QUERY_CANCELED = "57014"
"""PostgreSQL's code for a statement that ran into its timeout."""

_NOT_GRANTED = "42501"
"""PostgreSQL's code for what the role of the connection may not do."""

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


def is_no_database(error: DBAPIError) -> bool:
    """Whether the file is something else, or damaged."""
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return code & _PRIMARY_CODE in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def is_timeout(error: DBAPIError) -> bool:
    """Whether a statement was ended because it ran too long."""
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT
    return getattr(error.orig, "pgcode", None) == _QUERY_CANCELED


def first_line(error: DBAPIError) -> str:
    """Returns the first line of what the driver said."""
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else repr(error)


def is_denied(error: DBAPIError) -> bool:
    """Whether PostgreSQL has not granted what was tried."""
    return getattr(error.orig, "pgcode", None) == _NOT_GRANTED


def is_read_only(error: object) -> bool:
    """Whether PostgreSQL refuses to write, as a server does that has become a standby."""
    return getattr(error, "pgcode", None) == _READ_ONLY


def free_space(error: DBAPIError, path: str | None) -> str:
    """Returns a remark on the disk, if SQLite may have failed because it is full."""
    name = getattr(error.orig, "sqlite_errorname", "")
    if not name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return ""
    folder = Path(path or "").absolute().parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as reason:
        return f" ({name}; {reason})"
    return f" ({name}; {free // 1024:,} KiB are free on the disk of {folder})"
