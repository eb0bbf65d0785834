"""Messages that could not be counted: logged with the reason, never dropped silently.

All are counted by plugin and cause. Their content is kept as well, as long as there is room.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from statscache.clock import Clock
from statscache.counting.folding.fold import storable
from statscache.database import tables
from statscache.database.upsert import Upsert
from statscache.errors import InvalidMessage
from statscache.logs.recurring import Recurring
from statscache.message import decode
from statscache.rejection import LONGEST_CONTENT, Rejection

log = logging.getLogger(__name__)

LONGEST_REASON = 2_000
"""Characters of a reason."""

ROW_BYTES = 500
"""Bytes of a row beside its texts, at most: they count, so that many small rows are bounded."""

_DIGESTS_PER_QUERY = 5_000


class _Entry:
    """What becomes a row: the same refusal, however often it came in one batch."""

    def __init__(self, first: Rejection) -> None:
        plugin, cause = _kind(first)
        self.content = storable(first.content[:LONGEST_CONTENT])
        self.reason = storable(first.reason[:LONGEST_REASON])
        self.plugin = plugin
        self.kind = _digest(plugin, cause)
        self.digest = _digest(plugin, self.content)
        texts = (self.plugin, self.reason, self.content)
        self.size = sum(len(text.encode()) for text in texts) + ROW_BYTES
        self.times = 0

    def row(self, now: float) -> tuple[Any, ...]:
        """In the order of the columns of the table."""
        return (
            *(self.digest, self.plugin, self.reason, self.content),
            *(now, now, self.times, self.kind, self.size),
        )


class RejectionLog:
    """Writes rejections inside the engine's transaction.

    Args:
        backend: the name of the database's dialect.
        most_bytes: of rejections that are kept. No kind of them takes more than it leaves to the
            others: a flood of nonsense does not use up the room for messages that can be retried.
        clock: by which it is noted when they were seen.
    """

    def __init__(self, backend: str, most_bytes: int, clock: Clock) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._recurring = Recurring(clock)
        self._upsert = Upsert(
            tables.rejected,
            backend,
            {
                "last_seen": lambda old, new: new["last_seen"],
                "times": lambda old, new: old["times"] + new["times"],
            },
        )
        self._totals = Upsert(
            tables.rejected_total,
            backend,
            {"messages": lambda old, new: old["messages"] + new["messages"]},
        )

    def record(self, connection: Connection, rejections: Iterable[Rejection]) -> None:
        """Count each rejection, and keep what there is room for."""
        found = [(rejection, _Entry(rejection)) for rejection in rejections]
        if not found:
            return
        known = _known(connection, {entry.digest for _, entry in found})
        entries: dict[str, _Entry] = {}
        totals: Counter[tuple[str, str]] = Counter()
        reasons = {}
        for rejection, first in found:
            entry = entries.setdefault(first.digest, first)
            if rejection.once and (entry.times or entry.digest in known):
                continue
            entry.times += rejection.times
            totals[_kind(rejection)] += rejection.times
            reasons[_kind(rejection)] = rejection.reason
        self._tell(totals, reasons)
        room = _Room(self._most_bytes, _used(connection))
        kept = [e for e in entries.values() if e.digest in known or room.take(e.kind, e.size)]
        now = self._clock.time()
        self._upsert.write(connection, [e.row(now) for e in sorted(kept, key=lambda e: e.digest)])
        counted = [(_digest(*kind), *kind, total) for kind, total in totals.items()]
        self._totals.write(connection, sorted(counted))

    def find(self, connection: Connection, digest: str) -> Any:
        """The row of a rejection, or None."""
        query = select(tables.rejected).where(tables.rejected.c.digest == digest)
        return connection.execute(query).one_or_none()

    def delete(self, connection: Connection, digest: str) -> None:
        """Delete a rejection, because the message has been counted now."""
        connection.execute(delete(tables.rejected).where(tables.rejected.c.digest == digest))

    def note_refusal(self, connection: Connection, digest: str, plugin: str, reason: str) -> None:
        """Note by whom a message is still rejected, and why; no other rejection is counted."""
        connection.execute(
            update(tables.rejected)
            .where(tables.rejected.c.digest == digest)
            .values(
                plugin=plugin,
                reason=storable(reason[:LONGEST_REASON]),
                last_seen=self._clock.time(),
            )
        )

    def prune(self, connection: Connection) -> None:
        """Delete the oldest rejections when more than a quarter of the room is used.

        Not one for each new rejection: under a flood PostgreSQL's table would grow by dead rows.
        """
        rejected = tables.rejected.c
        used = _used(connection)
        level = _level(list(used.values()), self._most_bytes // 4)
        for kind, size in used.items():
            if size <= level:
                continue
            newest_first = (rejected.last_seen.desc(), rejected.digest)
            since_then = func.sum(rejected.size).over(order_by=newest_first).label("size")
            row = select(rejected.digest, since_then).where(rejected.kind == kind).subquery().c
            oldest = select(row.digest).where(row.size > level)
            connection.execute(delete(tables.rejected).where(rejected.digest.in_(oldest)))

    def _tell(
        self, totals: Mapping[tuple[str, str], int], reasons: Mapping[tuple[str, str], str]
    ) -> None:
        for kind, total in totals.items():
            # A sender that goes mad must not flood the log.
            untold = self._recurring.happened(kind, total)
            if untold:
                plugin = kind[0] or "the framework"
                log.warning("%d rejected by %s: %.500s", untold, plugin, reasons[kind])


class _Room:
    """Bytes that are left for rejections, and how many each kind has."""

    def __init__(self, most: int, used: Mapping[str, int]) -> None:
        self._free = most - sum(used.values())
        self._used = dict(used)

    def take(self, kind: str, size: int) -> bool:
        """Whether there is room for something of this size; then the room is taken."""
        used = self._used.get(kind, 0) + size
        if used > self._free - size:
            return False
        self._used[kind] = used
        self._free -= size
        return True


def _kind(rejection: Rejection) -> tuple[str, str]:
    """By whom and under which cause a rejection is counted."""
    return rejection.plugin, storable(rejection.cause or rejection.reason.partition(": ")[0])[:100]


def kept_bytes(connection: Connection) -> int:
    """How many bytes of rejections are kept."""
    return sum(_used(connection).values())


def _used(connection: Connection) -> dict[str, int]:
    """The bytes that are kept of each kind; read from an index alone."""
    rejected = tables.rejected.c
    query = select(rejected.kind, func.sum(rejected.size)).group_by(rejected.kind)
    return {kind: int(size) for kind, size in connection.execute(query)}


def _level(sizes: Sequence[int], total: int) -> int:
    """The limit of each of ``sizes`` with which all together are ``total`` at most."""
    left = total
    for number, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - number)
        if size > share:
            return share
        left -= size
    return total


def _known(connection: Connection, digests: Iterable[str]) -> set[str]:
    """Those of ``digests`` that are kept."""
    rejected = tables.rejected.c
    every = sorted(digests)
    known: set[str] = set()
    for start in range(0, len(every), _DIGESTS_PER_QUERY):
        some = every[start : start + _DIGESTS_PER_QUERY]
        known.update(connection.scalars(select(rejected.digest).where(rejected.digest.in_(some))))
    return known


def _digest(plugin: str, text: str) -> str:
    return hashlib.sha256(f"{plugin}\n{text}".encode()).hexdigest()


def forget(connection: Connection, ident: str, start: float | None = None) -> None:
    """Delete the rejections by a plugin whose messages are going to be counted again.

    All of them, or those of messages from ``start`` (UNIX seconds) on. Otherwise a retry would
    count messages twice that the plugin can count by now.
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
