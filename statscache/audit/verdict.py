"""What a comparison finds: rows that differ from those of the archive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from statscache.times import to_the_second


@dataclass(frozen=True)
class Difference:
    """One row that differs from that of the archive.

    Attributes:
        key: of the row, by column.
        stored: its values in the table; None where there is no such row.
        counted: the values by what the archive has; None where that makes no such row.
    """

    ident: str
    key: Mapping[str, Any]
    stored: Mapping[str, Any] | None
    counted: Mapping[str, Any] | None

    def __str__(self) -> str:
        where = " ".join(f"{name}={_text(name, value)}" for name, value in self.key.items())
        return (
            f"{self.ident} {where}: {_values(self.stored)} stored, {_values(self.counted)} counted"
        )


@dataclass
class Verdict:
    """What the comparison of one ident found.

    Attributes:
        start, stop: the rows of this time were compared; UNIX seconds.
        rows: how many agree.
        differences: those that do not.
        restamped: rows that differ only because a message has different times on the bus and in the
            archive, on both sides of an edge of buckets: the copy that came first stands.
        undecided: rows that could not be compared, because the archive does not have what was
            counted yet, or did not return it.
        more: differences beyond :data:`MOST_DIFFERENCES`, which are only counted.
        days: of the differences, the starts in UTC, UNIX seconds; none where rows are no buckets.
        unfilled: since when the archive has messages that have not been counted yet, UNIX seconds;
            None where everything has been.
        skipped: why nothing was compared.
        waits: whether something could not be compared for now, or is not filled in yet.
        refused: why the comparison says nothing: see
            :mod:`statscache.counting.membership.regressions`.
    """

    ident: str
    start: float = 0.0
    stop: float = 0.0
    rows: int = 0
    differences: list[Difference] = field(default_factory=list)
    restamped: int = 0
    undecided: int = 0
    more: int = 0
    days: set[int] = field(default_factory=set)
    unfilled: float | None = None
    skipped: str = ""
    waits: bool = False
    refused: str = ""


def _text(name: str, value: Any) -> str:
    if name == "timestamp" and not isinstance(value, datetime):
        return to_the_second(value)
    return str(value)


def _values(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return "no row"
    return ", ".join(f"{name}={_text(name, value)}" for name, value in values.items()) or "the row"
