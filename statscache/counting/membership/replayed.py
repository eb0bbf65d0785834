"""The time ranges that each ident has counted completely from replayed files.

A replayed file is assumed to be complete from its first message to its last.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select, update

from statscache.database import tables
from statscache.spans import union

SLACK = 15 * 60.0
"""Seconds that may be between the last message of a file and the first of the next one.

Files are split at midnight, not at a message. A longer pause is a hole.
"""


def note(connection: Connection, idents: Iterable[str], start: float, stop: float) -> None:
    """Note that all messages from ``start`` to ``stop``, UNIX seconds, have been counted."""
    table = tables.replayed
    for ident in sorted(idents):
        near = (
            table.c.ident == ident,
            table.c.start <= stop + SLACK,
            table.c.stop >= start - SLACK,
        )
        rows = connection.execute(select(table.c.start, table.c.stop).where(*near)).all()
        connection.execute(delete(table).where(*near))
        for first, last in union([(start, stop), *((row.start, row.stop) for row in rows)], SLACK):
            connection.execute(insert(table).values(ident=ident, start=first, stop=last))


def forget(connection: Connection, idents: Iterable[str], since: float = 0.0) -> None:
    """Forget what these have counted of files, from a time on."""
    table = tables.replayed
    mine = table.c.ident.in_(list(idents))
    connection.execute(delete(table).where(mine, table.c.start >= since))
    connection.execute(update(table).where(mine, table.c.stop > since).values(stop=since))
