"""Values that are taken from one message, the newest or the oldest of a bucket, and not merged.

All of them in a row are of the same message. Which one that is, its time decides, and then the
values themselves: the larger ones for the newest, the smaller ones for the oldest. None is smaller
than all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement

from statscache.app.charts.sources import Measure, SourceTable
from statscache.plugins.merges import NEWEST_AT, MergeRule

_OLDEST_AT = "_oldest_at"
"""The column that holds the time of the oldest message."""


@dataclass(frozen=True)
class Taken:
    """The columns of a table that are taken from one message.

    Attributes:
        names: of the column of its time, and of those that are taken; compared in turn.
        is_oldest: whether that is the oldest message; otherwise the newest.
    """

    names: tuple[str, ...]
    is_oldest: bool

    def columns(self, source: SourceTable) -> list[ColumnElement[Any]]:
        """Those of :attr:`names`."""
        return [source.table.c[name] for name in self.names]

    def order(
        self, source: SourceTable, columns: Sequence[ColumnElement[Any]]
    ) -> list[ColumnElement[Any]]:
        """What to order by, so that the row of the message is the first.

        Args:
            columns: those of :attr:`names`, as the statement has them.
        """
        return [
            self._ordered(column, is_nullable=bool(getattr(stored, "nullable", False)))
            for column, stored in zip(columns, self.columns(source), strict=True)
        ]

    def _ordered(self, column: ColumnElement[Any], *, is_nullable: bool) -> ColumnElement[Any]:
        if self.is_oldest:
            return column.asc().nulls_first() if is_nullable else column.asc()
        return column.desc().nulls_last() if is_nullable else column.desc()

    def beats(self, one: Sequence[Any], other: Sequence[Any]) -> bool:
        """Whether the values ``one`` are of the message to take, rather than ``other``."""
        if None in (one[0], other[0]):
            # Without a time there are no rows.
            return one[0] is not None
        first, second = ([(value is not None, value) for value in row] for row in (one, other))
        return first < second if self.is_oldest else first > second


def takes(rule: MergeRule, *, oldest: bool) -> bool:
    """Whether values are taken from the newest, or the oldest, message."""
    return bool(getattr(rule, "takes_oldest", False)) if oldest else rule.takes_newest


def is_taken(rule: MergeRule) -> bool:
    """Whether values are taken from one message."""
    return takes(rule, oldest=False) or takes(rule, oldest=True)


def taken(measures: Iterable[Measure], source: SourceTable) -> list[Taken]:
    """The columns of ``source`` that decide which values of ``measures`` are taken."""
    rules = [measure.rule for measure in measures]
    found = []
    for oldest in (False, True):
        if not any(takes(rule, oldest=oldest) for rule in rules):
            continue
        clock = _OLDEST_AT if oldest else NEWEST_AT if source.width else "timestamp"
        values = source.dataset.values
        names = [value.name for value in values if takes(value.rule, oldest=oldest)]
        found.append(Taken((clock, *names), oldest))
    return found
