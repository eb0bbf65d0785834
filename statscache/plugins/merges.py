"""The merge rules: what becomes of the values of two rows that have the same keys and bucket.

A plugin names the rule of a column (``Value("volume", "add")``). Every rule merges in Python, where
messages are folded and coarser buckets are made of finer ones, and in SQL, where rows are upserted
and where the API reads a range. All of it is here, and the rest of the program asks the rule: to
add one, write its class, and add it to :data:`RULES` and its name to :data:`Merge`.

A rule must be commutative and associative, in both languages alike. Otherwise the order of the
messages, or the way they are split into batches, would change a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from sqlalchemy import ColumnElement, case, func, tuple_

Merge = Literal["add", "smallest", "largest", "newest"]
"""What a plugin may write."""

Row = tuple[Any, ...]
Columns = Mapping[str, ColumnElement[Any]]

NEWEST_AT = "_newest_at"
"""The column that holds the time of the newest message of a bucket, where a value needs it."""


class MergeRule:
    """One rule; the class attributes say what else depends on it."""

    types: ClassVar[tuple[type, ...]] = (int, float, str)
    """Of the values that it can merge."""
    refusal: ClassVar[str] = ""
    """Why it cannot merge others, for the author of a plugin."""
    adds_up: ClassVar[bool] = False
    """Whether the parts of a range make up the whole: where nothing happened the value is 0, and a
    part is a share of the whole. For other rules there is no value where nothing happened."""
    takes_newest: ClassVar[bool] = False
    """Whether it takes the value of the newest message. Those columns of a row belong together:
    all of them are taken from one message."""

    def merge(self, one: Any, other: Any) -> Any:
        """Returns the merged value of two."""
        raise NotImplementedError

    def merge_stored(
        self, name: str, stored: Columns, new: Columns, is_newer: ColumnElement[bool]
    ) -> ColumnElement[Any]:
        """Returns the SQL for the column ``name`` of a stored row that a new one is merged into.

        Args:
            is_newer: whether the new row is of a newer message.
        """
        raise NotImplementedError

    def merge_rows(self, column: Any) -> Any:
        """Returns the SQL aggregate that merges ``column`` over rows.

        Not asked where :attr:`takes_newest`: rows are then ordered by :func:`newest_columns`.
        """
        raise NotImplementedError

    def merge_rows_beyond_64_bits(self, column: Any) -> Any:
        """Returns the same for SQLite, after it has reported an integer overflow."""
        return self.merge_rows(column)

    def merge_in_order(self, earlier: Any, later: Any) -> Any:
        """Returns the merged value of two buckets, one after the other; None has no value."""
        if earlier is None or later is None:
            return later if earlier is None else earlier
        return self.merge(earlier, later)


class Add(MergeRule):
    """The sum."""

    # Sums of floats depend on their order.
    types = (int,)
    refusal = "only whole numbers are added"
    adds_up = True

    def merge(self, one: Any, other: Any) -> Any:
        return one + other

    def merge_stored(
        self, name: str, stored: Columns, new: Columns, is_newer: ColumnElement[bool]
    ) -> ColumnElement[Any]:
        return stored[name] + new[name]

    def merge_rows(self, column: Any) -> Any:
        return func.sum(column)

    def merge_rows_beyond_64_bits(self, column: Any) -> Any:
        """Returns the sum in halves; SQLite rounds the result of the last addition by itself."""
        half = 2**32
        return func.sum(column.op(">>")(32)) * half + func.sum(column.op("&")(half - 1))


class Smallest(MergeRule):
    """The smaller one."""

    def merge(self, one: Any, other: Any) -> Any:
        return other if other < one else one

    def merge_stored(
        self, name: str, stored: Columns, new: Columns, is_newer: ColumnElement[bool]
    ) -> ColumnElement[Any]:
        return case((new[name] < stored[name], new[name]), else_=stored[name])

    def merge_rows(self, column: Any) -> Any:
        return func.min(column)


class Largest(MergeRule):
    """The larger one."""

    def merge(self, one: Any, other: Any) -> Any:
        return other if other > one else one

    def merge_stored(
        self, name: str, stored: Columns, new: Columns, is_newer: ColumnElement[bool]
    ) -> ColumnElement[Any]:
        return case((new[name] > stored[name], new[name]), else_=stored[name])

    def merge_rows(self, column: Any) -> Any:
        return func.max(column)


class Newest(MergeRule):
    """The value of the message with the largest timestamp; of two such, the larger value."""

    takes_newest = True

    def merge_stored(
        self, name: str, stored: Columns, new: Columns, is_newer: ColumnElement[bool]
    ) -> ColumnElement[Any]:
        return case((is_newer, new[name]), else_=stored[name])

    def merge_in_order(self, earlier: Any, later: Any) -> Any:
        return earlier if later is None else later


RULES: Mapping[str, MergeRule] = {
    "add": Add(),
    "smallest": Smallest(),
    "largest": Largest(),
    "newest": Newest(),
}
"""By the name that a plugin writes."""


def newest_columns(merges: Mapping[str, str], clock: str = NEWEST_AT) -> list[str]:
    """Returns the columns that tell which of two rows is of the newer message, compared in turn.

    Args:
        merges: column name to rule, as declared.
        clock: the column of the time.
    """
    return [clock, *(name for name, merge in merges.items() if RULES[merge].takes_newest)]


def row_merger(merges: Sequence[str], *, timed: bool) -> Callable[[Row, Row], Row]:
    """Returns the function that merges the values of two rows of the same key.

    Args:
        merges: the rule of each value.
        timed: whether the values stand behind the time of the newest message.
    """
    first = 1 if timed else 0
    rules = [RULES[merge] for merge in merges]
    newest = [first + i for i, rule in enumerate(rules) if rule.takes_newest]
    others = [(first + i, rule.merge) for i, rule in enumerate(rules) if not rule.takes_newest]

    def merge_rows(a: Row, b: Row) -> Row:
        merged = list(a)
        if timed:
            # The values decide between two messages of one time, so that their order does not.
            if [b[0], *(b[i] for i in newest)] > [a[0], *(a[i] for i in newest)]:
                for i in newest:
                    merged[i] = b[i]
            merged[0] = max(a[0], b[0])
        for i, merge in others:
            merged[i] = merge(a[i], b[i])
        return tuple(merged)

    return merge_rows


def stored_row_merger(
    merges: Mapping[str, str], clock: str, *, keeps_clock: bool
) -> dict[str, Callable[[Columns, Columns], ColumnElement[Any]]]:
    """Returns for each column a function from a stored and a new row to its merged SQL.

    Args:
        merges: column name to rule.
        clock: the column of the time.
        keeps_clock: whether that is the time of the newest message, and merged as well.
    """
    deciding = newest_columns(merges, clock)

    def merger(name: str, rule: MergeRule) -> Callable[[Columns, Columns], ColumnElement[Any]]:
        def merge(stored: Columns, new: Columns) -> ColumnElement[Any]:
            # The comparison of row_merger in SQL: both must choose the same message.
            is_newer = tuple_(*(new[c] for c in deciding)) > tuple_(*(stored[c] for c in deciding))
            return rule.merge_stored(name, stored, new, is_newer)

        return merge

    rules = {name: RULES[merge] for name, merge in merges.items()}
    if keeps_clock:
        rules[clock] = RULES["largest"]
    return {name: merger(name, rule) for name, rule in rules.items()}


def merged_in_order(merge: str, values: Iterable[Any]) -> Any:
    """Returns ``values`` of buckets that follow each other, oldest first, as that of one bucket.

    None has no value; it is returned where none has.
    """
    found = None
    for value in values:
        found = RULES[merge].merge_in_order(found, value)
    return found
