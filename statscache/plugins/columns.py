"""The columns that an aggregate declares: keys, and values with their merge rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import BigInteger, Double

from statscache.plugins.collation import PLAIN_TEXT
from statscache.plugins.merges import RULES, Merge, MergeRule

Role = Literal["user", "package", "category", "topic"]

QUERY_PARAMETERS = frozenset(
    [
        "_",
        "by",
        "callback",
        "columns",
        "compare",
        "count",
        "csv",
        "cursor",
        "fill",
        "format",
        "limit",
        "order",
        "page",
        "points",
        "q",
        "quantile",
        "resolution",
        "rows_per_page",
        "select",
        "start",
        "stop",
        "tz",
        "top",
        "wait",
    ]
)
"""The words of the API's queries, which no column can be called."""

TYPES: Mapping[type, Any] = {str: PLAIN_TEXT, int: BigInteger(), float: Double()}
"""The types of columns, and those of SQL that hold them."""


@dataclass(frozen=True)
class Key:
    """A column by which the rows of one bucket are told apart.

    Args:
        name: of the column, lower-case letters, digits and underscores.
        role: what the values are, so that the API can explain a number by the messages behind it,
            and leave people (``user``) out of what the operator does not want to be served.
        type: ``str`` or ``int``.
    """

    name: str
    role: Role | None = None
    type: type = str


@dataclass(frozen=True)
class Value:
    """A column whose values are merged when two rows have the same keys and bucket.

    Args:
        name: of the column, lower-case letters, digits and underscores.
        merge: ``add`` (whole numbers only, because sums of floats depend on their order),
            ``smallest``, ``largest``, or ``newest``: the value of the message with the largest
            timestamp, and of two with the same timestamp the larger value. All the ``newest``
            columns of a row come from one message.
        type: ``int``, ``float`` or ``str``. There is no "no value".
    """

    name: str
    merge: Merge = "add"
    type: type = int

    @property
    def rule(self) -> MergeRule:
        """The rule that :attr:`merge` names."""
        return RULES[self.merge]


def merges_of(values: Iterable[Value]) -> dict[str, str]:
    """Returns the merge rules by the names of the columns."""
    return {value.name: value.merge for value in values}


def is_counter(values: Iterable[Value]) -> bool:
    """Whether rows have one number, which is added."""
    return [value.merge for value in values] == ["add"]


def keeps_newest_time(values: Iterable[Value], bucketed: bool) -> bool:
    """Whether rows need :data:`NEWEST_AT`: ``timestamp`` says it where there are no buckets."""
    return bucketed and any(value.rule.takes_newest for value in values)
