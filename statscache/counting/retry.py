"""Retry: count what was rejected, once its cause is fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from statscache.counting.batch import Batch, Origin
from statscache.counting.commit import Committer
from statscache.counting.folding.lane_plugins import written_by
from statscache.counting.membership.membership import Membership
from statscache.counting.membership.rejections import RejectionLog
from statscache.counting.membership.shadows import Shadows
from statscache.counting.transactions import Transactions
from statscache.errors import InvalidMessage, PluginFault, described
from statscache.isolation.blame import blames_plugin
from statscache.message import Message, decode
from statscache.rejection import LONGEST_CONTENT, SIGNATURE

Refusal = Callable[[dict[str, Any]], str | None]
"""Returns why the signature of a fedmsg dict is refused, or None."""

_ABSENT = "it is not installed, or does not fit its table"


class Retry:
    """Counts rejected messages again.

    Args:
        transactions: of the engine.
        committer: that counts.
        membership: which plugins are in which lane.
        shadows: those that are blocked by what their plugins reject.
        rejections: where the rejections are.
    """

    def __init__(
        self,
        transactions: Transactions,
        committer: Committer,
        membership: Membership,
        shadows: Shadows,
        rejections: RejectionLog,
    ) -> None:
        self._transactions = transactions
        self._committer = committer
        self._membership = membership
        self._shadows = shadows
        self._rejections = rejections

    def retry(self, digest: str, refusal: Refusal | None = None) -> str | None:
        """Try again; returns why it cannot be counted. See :meth:`Engine.retry`."""
        with self._transactions.begin(alone=True) as connection:
            row = self._rejections.find(connection, digest)
            if row is None:
                return None
            if len(row.content) >= LONGEST_CONTENT:
                return (
                    f"only the first {LONGEST_CONTENT:,} characters of it were kept: what the "
                    "archive has of it can be counted by 'statscache rebuild'"
                )
            left, reason = self._retry(connection, row, refusal)
            if reason is None:
                self._rejections.delete(connection, digest)
            else:
                self._rejections.note_refusal(connection, digest, left, reason)
            return reason

    def retry_blocked(self, number: int) -> None:
        """Count what blocks the shadows of a lane, until it is rejected again."""
        with self._transactions.begin() as connection:
            digests = self._shadows.retriable(connection, number)
        try:
            for digest in digests:
                if self.retry(digest) is not None:
                    return
        except PluginFault:
            return  # the plugin is quarantined now

    def _retry(
        self, connection: Connection, row: Any, refusal: Refusal | None
    ) -> tuple[str, str | None]:
        """Count a rejected message; returns the plugins that still reject it, and why."""
        try:
            message = decode(row.content)
        except InvalidMessage as error:
            return row.plugin, str(error)
        if row.reason.startswith(f"{SIGNATURE}:"):
            reason = row.reason if refusal is None else refusal(message.raw)
            if reason is not None:
                return row.plugin, reason
        return self._count(connection, row.plugin, message)

    def _count(
        self, connection: Connection, plugin: str, message: Message
    ) -> tuple[str, str | None]:
        idents = frozenset(plugin.split())
        present = {i for each in self._transactions.lane_plugins.values() for i in each.idents}
        batch = Batch(Origin.RETRY, live=[message], idents=idents & present)
        reason: str | None = None
        if idents and not batch.idents:
            return plugin, _ABSENT
        with connection.begin_nested() as savepoint:
            try:
                reason = self._committer.commit(connection, batch).refusal
            except BaseException as error:
                if not blames_plugin(error):
                    raise
                reason = described(error)
            if reason is not None:
                savepoint.rollback()
        if reason is not None:
            # The savepoint was rolled back, so discard their memory too.
            for ident in self._membership.runners.keys() & idents:
                self._membership.runners[ident].roll_back()
            return plugin, reason
        left = [ident for ident in plugin.split() if ident not in present]
        return (written_by(left), _ABSENT) if left else (plugin, None)
