"""How many rows tables have: exactly where that is cheap, about where it is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    Table,
    func,
    inspect,
    literal_column,
    select,
    text,
)

MOST_COUNTED = 2_000
"""Rows of a table that are counted one by one."""

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

    Whatever they hold, few thousand rows of an index are looked at.
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
    """What PostgreSQL's planner believes; nothing of tables that were never analysed."""
    if connection.dialect.name != "postgresql":
        return {}
    rows = connection.execute(_ESTIMATES, {"names": names})
    return {row.relname: int(row.reltuples) for row in rows if row.reltuples > 0}


def _extrapolate(connection: Connection, table: Table) -> int:
    """About how many, from a look at both ends of an index; 0 where that says nothing."""
    keys = list(table.primary_key)
    if [column.name for column in keys] == ["id"] and isinstance(keys[0].type, Integer):
        # Numbered rows, few of which are ever deleted.
        return connection.scalar(select(func.max(keys[0]))) or 0
    if not keys or keys[0].name != "timestamp":
        return 0
    timestamp = keys[0]

    def at(offset: int, *, from_end: bool) -> int:
        query: Select[tuple[int]] = select(timestamp).offset(offset).limit(1)
        order = timestamp.desc() if from_end else timestamp.asc()
        return connection.scalar(query.order_by(order)) or 0

    first, last = at(0, from_end=False), at(0, from_end=True)
    seen = at(MOST_COUNTED, from_end=False) - first + last - at(MOST_COUNTED, from_end=True)
    return round(2 * MOST_COUNTED * (last - first) / seen) if seen > 0 else 0
