"""How values of rows are served: times as UNIX seconds, sets as arrays.

A table has a set as the JSON text of a sorted array, with one member more than are kept, if some
are left out. JSON has it as an array, CSV as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import DateTime, Float

from statscache.plugins.installed.discovery import Dataset
from statscache.plugins.models import plain


def sets(dataset: Dataset) -> Mapping[str, int]:
    """The columns of sets, and how many members of each are served."""
    return {
        value.name: getattr(value, "most", 0)
        for value in dataset.values
        if getattr(value.rule, "is_set", False)
    }


def writer(
    dataset: Dataset, names: Sequence[str], types: Sequence[Any], *, as_text: bool
) -> Callable[[Sequence[Any]], Sequence[Sequence[Any]]]:
    """The function that makes rows, tuples of the columns ``names``, what is served.

    Args:
        types: of the columns, in SQL.
        as_text: whether sets are JSON texts, for CSV.
    """
    known = sets(dataset)
    found = [_set_writer(known[name], as_text) if name in known else None for name in names]
    if any(found):
        writers = [one or plain for one in found]
        return lambda rows: [
            [write(value) for write, value in zip(writers, row, strict=True)] for row in rows
        ]
    if not any(isinstance(type_, DateTime | Float) for type_ in types):
        return lambda rows: rows
    return lambda rows: [[plain(value) for value in row] for row in rows]


def _set_writer(most: int, as_text: bool) -> Callable[[str | None], Any]:
    def write(stored: str | None) -> Any:
        members = None if stored is None else orjson.loads(stored)[:most]
        return members if members is None or not as_text else orjson.dumps(members).decode()

    return write
