"""What the audit notes of each plugin: up to when it was compared, and what differed."""

from __future__ import annotations

from sqlalchemy import Connection, func, update

from statscache.database import tables


def note_audited(connection: Connection, ident: str, until: float) -> None:
    """Note that all rows of a plugin were compared, of messages before ``until``, UNIX seconds."""
    row = tables.plugin
    connection.execute(update(row).where(row.c.ident == ident).values(audited_until=until))


def note_span_audited(
    connection: Connection, ident: str, start: float, stop: float, begin: float
) -> None:
    """Note that the rows of a span were compared, if no gap is left between it and those before.

    Args:
        ident: of the plugin.
        start: of the span, UNIX seconds.
        stop: of the span, which it does not include.
        begin: where the history begins that is compared.
    """
    row = tables.plugin.c
    until = func.coalesce(row.audited_until, row.since, 0.0)
    connection.execute(
        update(tables.plugin)
        .where(row.ident == ident, (until >= start) | (start <= begin), until < stop)
        .values(audited_until=stop)
    )


def add_mismatches(connection: Connection, ident: str, number: int) -> None:
    """Note that so many rows of a plugin differed from the archive."""
    row = tables.plugin
    connection.execute(
        update(row).where(row.c.ident == ident).values(mismatches=row.c.mismatches + number)
    )
