"""What came in and could not be counted: kept with the reason, never dropped silently."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select, update

from statscache import tables
from statscache.errors import InvalidMessage
from statscache.fold import storable
from statscache.message import Message, decode
from statscache.upsert import Upsert

log = logging.getLogger(__name__)

LONGEST_CONTENT = 1_000_000
"""Characters of a rejected message that are kept."""

MOST_KEPT = 100_000
"""Rows of the table: a flood of nonsense must not fill the disk."""


@dataclass(frozen=True)
class Rejection:
    """A refusal: of what, why, and by which plugin (empty when it is no message at all).

    The plugin is written as the idents of the tables that lack the message, with spaces between.
    """

    content: str
    reason: str
    plugin: str = ""

    @classmethod
    def by_plugin(cls, message: Message, plugin: str, error: BaseException) -> Rejection:
        """A message on which the code of a plugin failed."""
        try:
            text = orjson.dumps(message.raw, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:
            # Integers beyond 64 bits and lone surrogates.
            text = json.dumps(message.raw, default=repr)
        return cls(text, f"{type(error).__name__}: {error}", plugin)

    @classmethod
    def of_frame(cls, content: str | bytes, reason: str) -> Rejection:
        """Something from a transport that is not a message."""
        text = (
            content.decode("utf-8", "backslashreplace") if isinstance(content, bytes) else content
        )
        return cls(text, reason)


class RejectionLog:
    """Writes rejections inside the engine's transaction."""

    def __init__(self, backend: str) -> None:
        self._upsert = Upsert(
            tables.rejected,
            backend,
            {
                "last_seen": lambda old, new: new["last_seen"],
                "times": lambda old, new: old["times"] + new["times"],
            },
        )

    def record(self, connection: Connection, rejections: Iterable[Rejection]) -> None:
        """Keep each rejection; one that is there already is counted once more."""
        now = time.time()
        totals: dict[tuple[str, str], int] = {}
        rows: dict[str, tuple[str, str, str, str, float, float, int]] = {}
        for rejection in rejections:
            content = storable(rejection.content[:LONGEST_CONTENT])
            reason = storable(rejection.reason)
            digest = hashlib.sha256(f"{rejection.plugin}\n{content}".encode()).hexdigest()
            times = rows[digest][-1] + 1 if digest in rows else 1
            rows[digest] = (digest, rejection.plugin, reason, content, now, now, times)
            # One line per batch and reason: a sender that goes mad must not flood the log.
            kind = (rejection.plugin or "the framework", reason)
            totals[kind] = totals.get(kind, 0) + 1
        for (plugin, reason), total in totals.items():
            log.warning("%d rejected by %s: %.500s", total, plugin, reason)
        self._upsert.run(connection, [rows[digest] for digest in sorted(rows)])

    def find(self, connection: Connection, digest: str) -> Any:
        """The row of a rejection, or None."""
        query = select(tables.rejected).where(tables.rejected.c.digest == digest)
        return connection.execute(query).one_or_none()

    def done(self, connection: Connection, digest: str) -> None:
        """What was rejected has been counted now."""
        connection.execute(delete(tables.rejected).where(tables.rejected.c.digest == digest))

    def again(self, connection: Connection, digest: str, plugin: str, reason: str) -> None:
        """It has been rejected once more: by whom, and why."""
        rejected = tables.rejected
        connection.execute(
            update(rejected)
            .where(rejected.c.digest == digest)
            .values(
                plugin=plugin,
                reason=storable(reason),
                last_seen=time.time(),
                times=rejected.c.times + 1,
            )
        )

    def prune(self, connection: Connection) -> None:
        """Delete the oldest beyond :data:`MOST_KEPT`."""
        rejected = tables.rejected
        newest_to_go = connection.scalar(
            select(rejected.c.last_seen)
            .order_by(rejected.c.last_seen.desc())
            .offset(MOST_KEPT)
            .limit(1)
        )
        if newest_to_go is not None:
            connection.execute(delete(rejected).where(rejected.c.last_seen <= newest_to_go))


def forget(connection: Connection, ident: str, start: float | None = None) -> None:
    """Delete the rejections by a plugin whose messages are going to come once more.

    All of them, or those of messages from ``start`` (UNIX seconds) on. A retry would count a
    message twice that the plugin can take by now.
    """
    rejected = tables.rejected
    query = select(rejected.c.digest, rejected.c.plugin)
    if start is not None:
        query = query.add_columns(rejected.c.content)
    for row in connection.execute(query.where(rejected.c.plugin.contains(ident, autoescape=True))):
        idents = row.plugin.split()
        if ident not in idents or (start is not None and not _is_from(row.content, start)):
            continue
        mine = rejected.c.digest == row.digest
        others = " ".join(other for other in idents if other != ident)
        if others:
            connection.execute(update(rejected).where(mine).values(plugin=others))
        else:
            connection.execute(delete(rejected).where(mine))


def _is_from(content: str, start: float) -> bool:
    try:
        return decode(content).timestamp >= start
    except InvalidMessage:
        return False  # cut off: it cannot be retried anyway
