"""Announce commits on PostgreSQL, so that readers need not poll; SQLite has a version counter."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
from sqlalchemy import Connection, func, select

CHANNEL = "statscache_commit"
"""What to LISTEN to. A payload is the JSON array of the idents whose rows were changed: an empty
one if only the framework's own tables were, and null if there are too many to be listed."""

LONGEST_PAYLOAD = 7999
"""Bytes that PostgreSQL takes."""


def announce(connection: Connection, idents: Iterable[str]) -> None:
    """Announce, when the transaction commits, that the rows of ``idents`` have changed."""
    if connection.dialect.name != "postgresql":
        return
    payload = orjson.dumps(sorted(idents))
    if len(payload) > LONGEST_PAYLOAD:
        payload = b"null"
    connection.execute(select(func.pg_notify(CHANNEL, payload.decode())))
