"""Fold messages into partial aggregates: dicts from a bucket and its keys to merged values.

Partials know nothing of databases. Any two of the same table merge into one, in any order, which
is what makes batches, workers and machines interchangeable.

A key of a partial is ``(bucket start, key, ...)``, or ``(key, ...)`` for latest values. Its value
is ``(value, ...)`` in the order of the declaration, behind the time of the newest message where
the table keeps one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from statscache.errors import InvalidRow
from statscache.message import Message
from statscache.people import people_of
from statscache.plugins.aggregate import Aggregate, AggregateTable, fits
from statscache.plugins.buckets import floored
from statscache.plugins.columns import Value, is_counter, keeps_newest_time
from statscache.plugins.merges import Row, row_merger

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
"""Of the numbers that a column holds."""

LONGEST_KEY = 300
"""Characters of a text key that are kept: a row of PostgreSQL's index holds some 2,700 bytes."""

_NOTHING = (0,)
"""The values of a counter before its first row."""

Partial = dict[Row, Row]


class Folder:
    """Folds the messages of one plugin into the partials of its tables.

    Args:
        plugin: whose rows are folded.
        tables: which of its tables, finest first; all of them when absent.

    Rows are folded at the finest resolution only; the coarser ones are made of the finer partial
    once per batch, never of the table, whose old rows may have been pruned.
    """

    def __init__(self, plugin: Aggregate, tables: Sequence[AggregateTable] | None = None) -> None:
        self.plugin = plugin
        self.subscribes = plugin.subscribes
        chosen = plugin.tables if tables is None else tuple(tables)
        self.idents = tuple(table.ident for table in chosen)
        self._finest, *coarser = chosen
        self._timed = keeps_time(plugin.values, self._finest)
        self._merge_values = row_merger([value.merge for value in plugin.values], timed=self._timed)
        # Counters are nearly everything: they have a path of their own. Not those with numbers as
        # keys, because True, 1 and 1.0 are one key of a dict.
        self._counts = (
            is_counter(plugin.values)
            and not self._timed
            and all(key.type is str for key in plugin.keys)
        )
        self._split = len(plugin.keys)
        self._refusal = people_of(plugin).refusal(plugin)
        self._types = tuple(column.type for column in plugin.columns)
        self._needs_cleaning = any(value.type is not int for value in plugin.values)
        self._rollups = _rollups(self._finest, coarser)
        self._rows = plugin.rows
        self._is_latest = self._finest.width is None
        self._width = self._finest.width or 1
        self._offset = self._finest.offset

    def fold(self, message: Message, partial: Partial) -> None:
        """Add the rows of ``message`` to ``partial``: all of them, or on an exception none.

        Raises:
            InvalidRow: a row does not fit the declared columns.
            Exception: whatever the plugin's own code raises.
        """
        rows = self._rows(message)
        if type(rows) is not tuple and type(rows) is not list:
            rows = tuple(rows)
        if self._counts and len(rows) == 1:
            # The path of nearly every message: calls of floored() and of the rule would cost too
            # much. The types of a known key were checked when it first came.
            row = rows[0]
            moment = int(message.timestamp)
            key = (moment - (moment - self._offset) % self._width,) + row[:-1]  # noqa: RUF005
            value = row[-1]
            known = partial.get(key)
            if known is None:
                key = key[:1] + self._checked(row)[:-1]
                known = partial.get(key, _NOTHING)
                partial[key] = (known[0] + value,)
                return
            if type(value) is not int or not _SMALLEST <= value <= _LARGEST:
                self._checked(row)
            partial[key] = (known[0] + value,)
            return
        rows = [self._checked(row) for row in rows]
        split = self._split
        prefix = self._prefix(message)
        head: Row = (message.timestamp,) if self._timed else ()
        for row in rows:
            self._merge_row(partial, prefix + row[:split], head + row[split:])

    def _prefix(self, message: Message) -> Row:
        if self._is_latest:
            return ()
        return (floored(int(message.timestamp), self._width, self._offset),)

    def merge(self, into: Partial, other: Partial) -> None:
        """Merge the partial ``other`` into ``into``."""
        for key, values in other.items():
            self._merge_row(into, key, values)

    def tables(self, partial: Partial) -> list[tuple[AggregateTable, list[Row]]]:
        """The rows to upsert into each table, in key order, in the order of its columns.

        The columns are ``timestamp``, the keys, the values, the time of the newest message.
        """
        partials = [self._cleaned(partial)]
        for rollup in self._rollups:
            coarse: Partial = {}
            width, offset = rollup.table.width, rollup.table.offset
            assert width is not None
            for key, values in partials[rollup.source].items():
                self._merge_row(coarse, (floored(key[0], width, offset), *key[1:]), values)
            partials.append(coarse)
        tables = (self._finest, *(rollup.table for rollup in self._rollups))
        return [
            (table, self._in_columns(rows)) for table, rows in zip(tables, partials, strict=True)
        ]

    def _merge_row(self, partial: Partial, key: Row, values: Row) -> None:
        known = partial.get(key)
        partial[key] = values if known is None else self._merge_values(known, values)

    def _in_columns(self, partial: Partial) -> list[Row]:
        items = sorted(partial.items(), key=itemgetter(0))
        if self._is_latest:
            # The time of the newest message is the timestamp of the row.
            return [(values[0], *key, *values[1:]) for key, values in items]
        if self._timed:
            return [(*key, *values[1:], values[0]) for key, values in items]
        return [key + values for key, values in items]

    def _cleaned(self, partial: Partial) -> Partial:
        """``partial`` with text that every database can store."""
        if self._refusal is not None:
            partial = self._without_hidden(partial)
        if all(_is_storable(item) for pair in partial.items() for part in pair for item in part):
            return partial
        clean: Partial = {}
        for key, values in partial.items():
            # Two keys may become one.
            self._merge_row(clean, tuple(map(_storable_key, key)), tuple(map(_storable, values)))
        return clean

    def _without_hidden(self, partial: Partial) -> Partial:
        """``partial`` without the rows that name a hidden person."""
        assert self._refusal is not None
        first_key = 0 if self._is_latest else 1
        first_value = 1 if self._timed else 0
        return {
            key: values
            for key, values in partial.items()
            if not self._refusal(key[first_key:] + values[first_value:])
        }

    def _checked(self, row: Any) -> Row:
        """``row``, its values as every database holds them.

        Before they are merged: which of two texts is the larger may depend on it.
        """
        is_plain = type(row) is tuple and tuple(map(type, row)) == self._types
        checked: Row = row if is_plain else self._with_plain_texts(row)
        for item in checked:
            if type(item) is int and not _SMALLEST <= item <= _LARGEST:
                raise InvalidRow("a number of rows() does not fit into 64 bits")
            if type(item) is float and not math.isfinite(item):
                raise InvalidRow(f"rows() must give finite numbers, not {row!r:.200}")
        if not self._needs_cleaning:
            return checked
        return checked[: self._split] + tuple(map(_cleaned_value, checked[self._split :]))

    def _with_plain_texts(self, row: Any) -> Row:
        """``row`` with texts of type str, in place of an enumeration's members, say.

        Which of them is in a dict first must not matter.
        """
        columns = self.plugin.columns
        wanted = ", ".join(f"{column.name}: {column.type.__name__}" for column in columns)
        refusal = f"rows() must give tuples ({wanted}), not {row!r:.200}"
        if type(row) is not tuple or len(row) != len(columns):
            raise InvalidRow(refusal)
        items = [str.__str__(item) if isinstance(item, str) else item for item in row]
        for column, item in zip(columns, items, strict=True):
            if type(item) is not column.type:
                raise InvalidRow(f"{refusal}: {column.name} is of type {type(item).__name__}")
        return tuple(items)


@dataclass(frozen=True)
class _Rollup:
    """How a coarser table is made: of which of the partials before it."""

    table: AggregateTable
    source: int


def _rollups(finest: AggregateTable, coarser: list[AggregateTable]) -> list[_Rollup]:
    rollups: list[_Rollup] = []
    done = [finest]
    for table in coarser:
        # Of the coarsest buckets that fit, since those are the fewest.
        fitting = [i for i, finer in enumerate(done) if fits(finer, table)]
        rollups.append(_Rollup(table, fitting[-1]))
        done.append(table)
    return rollups


def keeps_time(values: tuple[Value, ...], table: AggregateTable) -> bool:
    """Whether the values of a partial begin with the time of the newest message."""
    return table.width is None or keeps_newest_time(values, bucketed=True)


def _cleaned_value(value: Any) -> Any:
    # There are two zeros among floats, which are equal.
    return value + 0.0 if type(value) is float else _storable(value)


def _is_storable(value: Any) -> bool:
    return type(value) is not str or (
        value.isascii() and len(value) <= LONGEST_KEY and "\0" not in value
    )


def _storable(value: Any) -> Any:
    if type(value) is str and not (value.isascii() and "\0" not in value):
        return storable(value)
    return value


def _storable_key(value: Any) -> Any:
    value = _storable(value)
    if type(value) is str and len(value) > LONGEST_KEY:
        # Counted all the same, and told apart from others that begin alike.
        digest = hashlib.sha256(value.encode()).hexdigest()[:16]
        return f"{value[: LONGEST_KEY - 17]}\u2026{digest}"
    return value


def storable(text: str) -> str:
    """``text`` with U+FFFD in place of what PostgreSQL or UTF-8 cannot hold."""
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
