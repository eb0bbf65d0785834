"""How many rows tables have: exactly where that is cheap, about where it is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    ScalarSelect,
    Select,
    Table,
    bindparam,
    func,
    inspect,
    literal_column,
    select,
    text,
)

MOST_COUNTED = 2_000
"""Rows of a table that are counted one by one."""

_PARTS = (16, 4)
"""Parts of the time of a table that are sampled; fewer where one moment has too many rows."""

_ESTIMATES = text(
    "SELECT relname, reltuples FROM pg_class"
    " WHERE relkind = 'r' AND relname = ANY(:names) AND pg_table_is_visible(oid)"
)


@dataclass(frozen=True)
class Size:
    """How many rows a table has.

    Attributes:
        rows: the number.
        accuracy: ``exact``, ``estimate``, or ``at least``.
    """

    rows: int
    accuracy: Literal["exact", "estimate", "at least"]


def sizes(connection: Connection, tables: Iterable[Table]) -> Mapping[str, Size]:
    """The size of each of ``tables``, by name; those that are not there yet have no rows.

    Whatever they hold, some ten thousand rows of an index are looked at.
    """
    wanted = list(tables)
    existing = set(inspect(connection).get_table_names())
    estimates = _estimates(connection, [table.name for table in wanted])
    found = {}
    for table in wanted:
        if table.name not in existing:
            found[table.name] = Size(0, "exact")
            continue
        counted = _count(connection, table)
        if counted <= MOST_COUNTED:
            found[table.name] = Size(counted, "exact")
        else:
            estimate = estimates.get(table.name, 0) or _extrapolate(connection, table)
            found[table.name] = (
                Size(estimate, "estimate") if estimate > counted else Size(counted, "at least")
            )
    return found


def _count(connection: Connection, table: Table) -> int:
    """The number of rows, or one more than :data:`MOST_COUNTED`."""
    some = select(literal_column("1")).select_from(table).limit(MOST_COUNTED + 1).subquery()
    return connection.scalar(select(func.count()).select_from(some)) or 0


def _estimates(connection: Connection, names: list[str]) -> dict[str, int]:
    """The estimates of PostgreSQL's planner; none for tables that were never analysed."""
    if connection.dialect.name != "postgresql":
        return {}
    rows = connection.execute(_ESTIMATES, {"names": names})
    return {row.relname: int(row.reltuples) for row in rows if row.reltuples > 0}


def _extrapolate(connection: Connection, table: Table) -> int:
    """Estimates the number of rows from samples of an index; 0 if they say nothing.

    What was counted at one time may be much more than at another: of each part of all the time, as
    many rows as are at both of its ends stand for the rest of it.
    """
    keys = list(table.primary_key)
    if [column.name for column in keys] == ["id"] and isinstance(keys[0].type, Integer):
        # Numbered rows, few of which are ever deleted.
        return connection.scalar(select(func.max(keys[0]))) or 0
    if not keys or keys[0].name != "timestamp":
        return 0
    timestamp = keys[0]
    first, last = (connection.scalar(select(end(timestamp))) or 0 for end in (func.min, func.max))
    for count in _PARTS:
        edges = [first + (last - first) * number / count for number in range(count)]
        looked = max(1, 2 * MOST_COUNTED // count)
        look = _look(timestamp, looked)
        found = [
            _rows_of(looked, *connection.execute(look, {"start": start, "stop": stop}).one())
            for start, stop in itertools.pairwise((*edges, last + 1))
        ]
        known = [rows for rows in found if rows is not None]
        if len(known) == count:
            return round(sum(known))
    return 0


def _look(timestamp: Column[Any], looked: int) -> Select[Any]:
    """Reads ``looked`` rows at both ends of a part of the time, for :func:`_rows_of`."""
    inside = select(timestamp).where(
        timestamp >= bindparam("start", type_=Float), timestamp < bindparam("stop", type_=Float)
    )

    def at(offset: int, order: ColumnElement[Any]) -> ScalarSelect[Any]:
        return inside.order_by(order).offset(offset).limit(1).scalar_subquery()

    some = inside.limit(2 * looked).subquery()
    return select(
        select(func.count()).select_from(some).scalar_subquery(),
        at(0, timestamp.asc()),
        at(looked, timestamp.asc()),
        at(looked, timestamp.desc()),
        at(0, timestamp.desc()),
    )


def _rows_of(
    looked: int, rows: int, first: Any, after: Any, before: Any, last: Any
) -> float | None:
    """About how many rows there are of a time; None where a single moment has too many to tell.

    Args:
        looked: how many were looked at, at each end.
        rows: as far as they were counted, twice as many at most.
        first: the time of the first row.
        after: that of the one after those at the start; None where there is none.
        before: that of the one before those at the end.
        last: that of the last row.
    """
    if rows < 2 * looked:
        return float(rows)
    if first == after or before == last:
        return None
    return float(rows * max(1.0, (last - first) / (after - first + last - before)))
