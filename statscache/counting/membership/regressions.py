"""What a plugin rejects now of the messages that it had counted before.

Messages are counted again for a rebuild or a changed definition
(:mod:`statscache.counting.membership.shadows`), for a verification and for the audit
(:mod:`statscache.audit`). Meanwhile something that a plugin depends on may have been uninstalled,
or a new release of it may be broken. The messages that it rejects now are not in the new rows,
which is no reason to delete them from the served ones.
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
"""Bytes of the digest of a claim."""

_SURELY_KEPT = 1024 * 1024
"""Bytes of the rejections of one plugin; the log deletes some only where there are more."""

_MOST_NOTED = 100_000
"""Messages of one ident."""


@dataclass(frozen=True)
class _Rejected:
    """A message that a plugin rejects.

    Attributes:
        digest: under which the log has it; empty where it has not.
    """

    message: Message
    reason: str
    digest: str = ""

    @property
    def claim(self) -> bytes:
        return claim_digest(self.message.identity)

    def is_among(self, claims: frozenset[bytes]) -> bool:
        """Whether the message is one of those, under the id of either of its copies."""
        if not claims:
            return False
        return self.claim in claims or not claims.isdisjoint(content_digests(self.message))


class Regressions:
    """What plugins reject while the archive is counted again, outside of their tables.

    Args:
        idents: of the datasets that are counted.
    """

    def __init__(self, idents: Iterable[str]) -> None:
        self._found: dict[str, dict[bytes, _Rejected]] = {ident: {} for ident in idents}

    def note(self, rejections: Iterable[Rejection]) -> None:
        """Keep rejections, up to a number that a person can read."""
        for rejection in rejections:
            rejected = _rejected(rejection.content, rejection.reason)
            for ident in rejection.plugin.split():
                found = self._found.get(ident)
                if rejected is not None and found is not None and len(found) <= _MOST_NOTED:
                    found[rejected.claim] = rejected

    def objection(self, connection: Connection, ident: str) -> str:
        """Why the new rows of ``ident`` must not replace served ones; empty where they may.

        The log has what had been rejected when the served ones were counted, as far as it is kept.
        """
        return _objection(self._new(connection, ident))

    def objection_to_compare(self, connection: Connection, ident: str) -> str:
        """Why the new rows must not be compared with the served ones; empty where they may.

        Of a plugin that rejects very much, the log has not all that it ever rejected. Then its
        rows are compared: what it could not take before is in neither.
        """
        found = self._new(connection, ident)
        return "" if found and _has_been_cut(connection, ident) else _objection(found)

    def _new(self, connection: Connection, ident: str) -> list[_Rejected]:
        found = self._found[ident]
        if not found:
            return []
        logged = frozenset(rejected.claim for rejected in _logged(connection, ident))
        return [each for each in found.values() if not each.is_among(logged)]


def _has_been_cut(connection: Connection, ident: str) -> bool:
    """Whether the log may have lost rejections of ``ident``, since there were too many."""
    row = tables.rejected.c
    query = select(func.sum(row.size)).where(row.plugin.contains(ident, autoescape=True))
    return (connection.scalar(query) or 0) >= _SURELY_KEPT


def rejected_so_far(connection: Connection, ident: str) -> bytes:
    """The claims' digests of the messages that ``ident`` has rejected, one behind the other.

    They are kept while it is rebuilt, for :func:`objection`.
    """
    return b"".join(sorted({rejected.claim for rejected in _logged(connection, ident)}))


def objection(connection: Connection, plugin: Any) -> str:
    """Why the shadow of a plugin must not take the place of its table; empty where it may.

    Args:
        plugin: its row of :data:`statscache.database.tables.plugin`.
    """
    return _objection(_held_against(connection, plugin))


def retriable(connection: Connection, plugin: Any) -> list[str]:
    """The digests of the rejections for which a shadow must not take the place of its table.

    Empty where the log may have lost some of them: then only a rebuild finds all of them.

    Args:
        plugin: its row of :data:`statscache.database.tables.plugin`.
    """
    if _has_been_cut(connection, plugin.ident):
        return []
    return [rejected.digest for rejected in _held_against(connection, plugin)]


def _held_against(connection: Connection, plugin: Any) -> list[_Rejected]:
    """What a plugin rejects of the messages that it had counted into the served rows."""
    digests = plugin.rejected_before or b""
    before = frozenset(
        bytes(digests[start : start + _DIGEST]) for start in range(0, len(digests), _DIGEST)
    )
    until = plugin.counted_until or 0.0
    return [
        rejected
        for rejected in _logged(connection, plugin.ident)
        if rejected.message.timestamp <= until and not rejected.is_among(before)
    ]


def _logged(connection: Connection, ident: str) -> list[_Rejected]:
    """What the log of rejections has of an ident, oldest first."""
    row = tables.rejected.c
    query = select(row.plugin, row.content, row.reason, row.digest).where(
        row.plugin.contains(ident, autoescape=True)
    )
    found = [
        _rejected(content, reason, digest)
        for plugin, content, reason, digest in connection.execute(query)
        if ident in plugin.split()
    ]
    return sorted(
        (rejected for rejected in found if rejected is not None),
        key=lambda each: each.message.timestamp,
    )


def _rejected(content: str, reason: str, digest: str = "") -> _Rejected | None:
    try:
        return _Rejected(decode(content), reason, digest)
    except InvalidMessage:
        return None  # cut off, because it is so long


def _objection(regressions: list[_Rejected]) -> str:
    if not regressions:
        return ""
    first = regressions[0]
    return (
        f"it rejects {len(regressions)} messages that it had counted before, such as "
        f"{first.message.id} ({first.message.topic}): {first.reason:.300}"
    )
