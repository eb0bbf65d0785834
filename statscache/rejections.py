"""What came in and could not be counted: kept with the reason, never dropped silently."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, delete, select

from statscache import tables
from statscache.fold import storable
from statscache.message import Message
from statscache.upsert import Upsert

log = logging.getLogger(__name__)

LONGEST_CONTENT = 1_000_000
"""Characters of a rejected message that are kept."""

MOST_KEPT = 100_000
"""Rows of the table: a flood of nonsense must not fill the disk."""


@dataclass(frozen=True)
class Rejection:
    """A refusal: of what, why, and by which plugin (empty when it is no message at all)."""

    content: str
    reason: str
    plugin: str = ""

    @classmethod
    def by_plugin(cls, message: Message, plugin: str, error: Exception) -> Rejection:
        """A message on which the code of a plugin failed."""
        content = orjson.dumps(message.raw, default=repr, option=orjson.OPT_NON_STR_KEYS)
        return cls(content.decode(), f"{type(error).__name__}: {error}", plugin)

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
