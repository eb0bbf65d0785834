"""Text that both databases order alike: by code point, NULL first.

Otherwise two rebuilds would have their rows in different orders: without a named collation,
PostgreSQL orders text by the locale of the server.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Dialect, Enum, String, Text, cast
from sqlalchemy.dialects import postgresql

PLAIN_TEXT = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""The type of our own columns of text."""

_BY_CODE_POINT = {"sqlite": "BINARY", "postgresql": "C"}
"""Backend to its collation; that of SQLite is its default."""


def ordered_alike(column: Any, dialect: Dialect) -> Any:
    """Returns what to order by for ``column``, so that every database orders alike.

    The columns of other people's models may be collated as the server likes. A column that is
    ordered by code point anyway is left as it is, so that its index serves.
    """
    expression = column
    if isinstance(column.type, JSON | Enum):
        expression = cast(column, Text())
    if isinstance(expression.type, String):
        collation = getattr(expression.type.dialect_impl(dialect), "collation", None)
        wanted = _BY_CODE_POINT[dialect.name]
        if collation != wanted and not (dialect.name == "sqlite" and collation is None):
            expression = expression.collate(wanted)
    return expression.nulls_first() if column.nullable else expression
