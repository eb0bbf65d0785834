"""What is seen to before rows that were counted anew take the place of those that are served.

Rows are counted anew for a rebuild or a changed definition
(:mod:`statscache.counting.membership`), for a verification and for the audit
(:mod:`statscache.audit`). A plugin may be worse off then than it was
when it first counted: what it asks is not installed or not configured any more, or a new release of
it is broken. What it rejects now is not in the new rows, which is no reason to delete it from the
served ones. And the archive may have less than was counted (:mod:`statscache.audit.shortfall`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from statscache.counting.lanes.digests import claim_digest, content_digests
from statscache.database import tables
from statscache.errors import InvalidMessage
from statscache.message import Message, decode
from statscache.rejection import Rejection

_DIGEST = 16
"""Bytes of a name."""

_SURELY_KEPT = 1024 * 1024
"""Bytes of one plugin's rejections: only what has more is made room in."""

_MOST_NOTED = 100_000
"""Messages of one ident."""


@dataclass(frozen=True)
class _Refusal:
    """A message that a plugin rejects, why, and under which digest the log has it, if it has."""

    message: Message
    reason: str
    digest: str = ""

    @property
    def name(self) -> bytes:
        return claim_digest(self.message.identity)

    def is_among(self, names: frozenset[bytes]) -> bool:
        """Whether the message is one of those, under the id of either of its copies."""
        if not names:
            return False
        return self.name in names or not names.isdisjoint(content_digests(self.message))


class Refusals:
    """What plugins reject of the messages that are counted anew beside their tables.

    Args:
        idents: of the datasets that are counted anew.
    """

    def __init__(self, idents: Iterable[str]) -> None:
        self._found: dict[str, dict[bytes, _Refusal]] = {ident: {} for ident in idents}

    def note(self, rejections: Iterable[Rejection]) -> None:
        """Keep them, as many as a person could look at."""
        for rejection in rejections:
            refusal = _refusal(rejection.content, rejection.reason)
            for ident in rejection.plugin.split():
                found = self._found.get(ident)
                if refusal is not None and found is not None and len(found) <= _MOST_NOTED:
                    found[refusal.name] = refusal

    def objection(self, connection: Connection, ident: str) -> str:
        """Why the new rows of ``ident`` must not replace served ones; empty where they may.

        The log has what had been rejected when the served ones were counted, as far as it is kept.
        """
        return _objection(self._new(connection, ident))

    def doubt(self, connection: Connection, ident: str) -> str:
        """Why differences between the new rows and the served ones mean nothing; else empty.

        Of a plugin that rejects very much, the log has not all that it ever rejected. Then its
        rows are compared: what it could not take before is in neither.
        """
        found = self._new(connection, ident)
        return "" if found and _has_been_cut(connection, ident) else _objection(found)

    def _new(self, connection: Connection, ident: str) -> list[_Refusal]:
        found = self._found[ident]
        if not found:
            return []
        names = frozenset(refusal.name for refusal in _logged(connection, ident))
        return [each for each in found.values() if not each.is_among(names)]


def _has_been_cut(connection: Connection, ident: str) -> bool:
    """Whether the log may have lost rejections of ``ident``, since there were too many."""
    row = tables.rejected.c
    query = select(func.sum(row.size)).where(row.plugin.contains(ident, autoescape=True))
    return (connection.scalar(query) or 0) >= _SURELY_KEPT


def rejected_so_far(connection: Connection, ident: str) -> bytes:
    """The names of the messages that ``ident`` has rejected, for :func:`objection`."""
    return b"".join(sorted({refusal.name for refusal in _logged(connection, ident)}))


def objection(connection: Connection, plugin: Any) -> str:
    """Why the shadow of a plugin must not take the place of its table; empty where it may.

    Args:
        plugin: its row of :data:`statscache.database.tables.plugin`.
    """
    if plugin.shortfall:
        return str(plugin.shortfall)
    return _objection(_held_against(connection, plugin))


def retriable(connection: Connection, plugin: Any) -> list[str]:
    """The digests of the rejections that a shadow is held for, if nothing else is missing in it.

    Empty where the log may have lost some of them: then only counting it anew gives all of them.

    Args:
        plugin: its row of :data:`statscache.database.tables.plugin`.
    """
    if plugin.shortfall or _has_been_cut(connection, plugin.ident):
        return []
    return [refusal.digest for refusal in _held_against(connection, plugin)]


def _held_against(connection: Connection, plugin: Any) -> list[_Refusal]:
    """What a plugin rejects of the messages that it had counted into the served rows."""
    names = plugin.rejected_before or b""
    before = frozenset(
        bytes(names[start : start + _DIGEST]) for start in range(0, len(names), _DIGEST)
    )
    until = plugin.counted_until or 0.0
    return [
        refusal
        for refusal in _logged(connection, plugin.ident)
        if refusal.message.timestamp <= until and not refusal.is_among(before)
    ]


def _logged(connection: Connection, ident: str) -> list[_Refusal]:
    """What the log of rejections has of an ident, oldest first."""
    row = tables.rejected.c
    query = select(row.plugin, row.content, row.reason, row.digest).where(
        row.plugin.contains(ident, autoescape=True)
    )
    found = [
        _refusal(content, reason, digest)
        for plugin, content, reason, digest in connection.execute(query)
        if ident in plugin.split()
    ]
    return sorted(
        (refusal for refusal in found if refusal is not None),
        key=lambda each: each.message.timestamp,
    )


def _refusal(content: str, reason: str, digest: str = "") -> _Refusal | None:
    try:
        return _Refusal(decode(content), reason, digest)
    except InvalidMessage:
        return None  # cut off, because it is so long


def _objection(refusals: list[_Refusal]) -> str:
    if not refusals:
        return ""
    first = refusals[0]
    return (
        f"it rejects {len(refusals)} messages that it had counted before, such as "
        f"{first.message.id} ({first.message.topic}): {first.reason:.300}"
    )
