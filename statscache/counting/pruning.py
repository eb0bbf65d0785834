"""Pruning: rows that are older than they are kept, and the oldest rejections."""

from __future__ import annotations

import logging

from statscache.counting.lanes.lane import newest_message
from statscache.counting.membership.rejections import RejectionLog
from statscache.counting.membership.retention import Retention
from statscache.counting.transactions import Transactions

log = logging.getLogger(__name__)


class Pruning:
    """Deletes what has outlived its retention, a part of it in each transaction.

    Args:
        transactions: of the engine.
        retention: how long rows are kept.
        rejections: the log, which is trimmed.
    """

    def __init__(
        self, transactions: Transactions, retention: Retention, rejections: RejectionLog
    ) -> None:
        self._transactions = transactions
        self._retention = retention
        self._rejections = rejections

    def prune(self) -> None:
        """Delete the rows that are older than their retention, and the oldest rejections."""
        deleted: dict[str, int] = {}
        for ident, until in self.note_ages().items():
            is_more = True
            while is_more:
                with self._transactions.begin(alone=True) as connection:
                    number, is_more = self._retention.delete_rows(connection, ident, until)
                    if number:
                        self._transactions.note_changes(connection, [ident])
                        deleted[ident] = deleted.get(ident, 0) + number
        if deleted:
            log.info(
                "rows that have outlived their retention were deleted: %s",
                ", ".join(f"{number} of {ident}" for ident, number in deleted.items()),
            )
        with self._transactions.begin() as connection:
            self._rejections.prune(connection)

    def note_ages(self, shown: float = 0.0) -> dict[str, float]:
        """Note before when rows are not kept any more; see :meth:`Engine.note_ages`."""
        with self._transactions.begin(alone=True) as connection:
            newest = max(newest_message(connection) or 0.0, shown)
            return self._retention.note(connection, newest) if newest else {}
