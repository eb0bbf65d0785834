"""What a reading of rows is: columns of numbers, per bucket, per key, or both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from statscache.app.charts.sources import Part

Number = int | float | None
"""None where there is no row."""

Numbers = tuple[Number, ...]
"""One of each line."""

Without = tuple[str, Sequence[Any]]
"""A column, and keys in it whose rows are left out."""

COMPLETE, PARTIAL, MISSING = "complete", "partial", "missing"
"""Whether all messages of a bucket have been counted, some, or an unknown number."""

ZERO, NULL, PREVIOUS = "zero", "null", "previous"
"""What may stand for a bucket without rows."""

COUNT, QUANTILE = "count", "quantile"
"""How rows become a number, besides the rules of merging."""


@dataclass(frozen=True)
class Line:
    """A column of numbers in an answer.

    Attributes:
        column: that the numbers are of.
        merge: how rows become a number: a rule of merging, :data:`COUNT` or :data:`QUANTILE`.
        is_zero: whether the number is 0 where nothing happened; otherwise there is none.
        quantile: which one, as the query says it.
    """

    column: str
    merge: str
    is_zero: bool
    quantile: str | None = None

    @property
    def name(self) -> str:
        """For a legend."""
        return self.column if self.quantile is None else f"{self.column} {self.quantile}"

    @property
    def heading(self) -> str:
        """Of a column of CSV, where no column of rows may be meant."""
        if self.quantile is not None:
            return f"_quantile_{self.quantile}"
        return "_count" if self.merge == COUNT else self.column


class Ranked(NamedTuple):
    """A key, and the number that its rows of a range make."""

    key: Any
    value: Number


class Reading(Protocol):
    """Reads numbers from rows."""

    @property
    def lines(self) -> Sequence[Line]:
        """The columns of numbers."""

    @property
    def details(self) -> Mapping[str, Any]:
        """What an answer says of them besides."""

    @property
    def joins_buckets(self) -> bool:
        """Whether the numbers of several buckets make that of all of them; otherwise the rows of
        all of them must be read again."""

    def in_buckets(
        self, parts: Iterable[Part], without: Without | None = None
    ) -> dict[int, Numbers]:
        """The numbers of each bucket that has rows, by the number of the bucket."""

    def in_buckets_by_key(
        self, parts: Iterable[Part], by: str, keys: Sequence[Any]
    ) -> dict[tuple[int, Any], Numbers]:
        """The numbers of each bucket and each of ``keys`` in the column ``by`` that have rows."""

    def keys(self, parts: Iterable[Part], by: str, most: int) -> list[Any]:
        """The keys in the column ``by`` that have rows, sorted; no more than ``most`` of them."""

    def ranking(self, parts: Iterable[Part], by: str, limit: int) -> tuple[list[Ranked], int]:
        """The ``limit`` keys of the largest numbers, and how many keys there are.

        The number is that of the first line. Of equal ones, the smaller key comes first.
        """


def plain(value: Any) -> Number:
    """A number as JSON has it: whole ones beyond 64 bits are rounded."""
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value  # type: ignore[no-any-return]


def filled(
    line: Line, found: Mapping[int, Number], states: Sequence[str], fill: str | None
) -> list[Number]:
    """The numbers of all buckets; null where they are not covered.

    Args:
        found: of the buckets that have rows, by number.
        states: of all buckets.
        fill: what stands for a bucket without rows; None: 0 if that is what nothing makes.
    """
    if fill is None:
        # Nothing adds up to zero, but has neither a smallest nor a newest number.
        fill = ZERO if line.is_zero else NULL
    last: Number = None
    numbers: list[Number] = []
    for number, state in enumerate(states):
        if number in found:
            last = found[number]
            numbers.append(last)
        elif state == MISSING or fill == NULL:
            numbers.append(None)
        else:
            numbers.append(0 if fill == ZERO else last)
    return numbers
