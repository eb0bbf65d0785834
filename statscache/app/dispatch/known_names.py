"""The people whom a query names, as far as an answer may tell.

Hidden people appear nowhere (:mod:`statscache.people`), and no answer may reveal who is hidden. So
a name that no row has is never repeated in an answer, hidden or not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import literal, select, union_all

from statscache import people
from statscache.app.dispatch.route import Call
from statscache.app.state import filters
from statscache.app.state.filters import Filter, Filters
from statscache.plugins.installed.discovery import Dataset


def columns(dataset: Dataset) -> list[str]:
    """The columns that may have names of people, under the names that clients see."""
    naming = people.naming(dataset)
    return [name for name, column in filters.columns(dataset).items() if column in naming]


def known(call: Call, names: Collection[str]) -> Filters:
    """The filters of a query, without the values of the columns ``names`` that no row has.

    One search in an index for each value, or through the table of a classic plugin.
    """
    asked = ((one.column, value) for one in call.filters for value in one.values)
    found = _found(call, [pair for pair in asked if pair[0] in names])
    return tuple(
        replace(one, values=tuple(v for v in one.values if (one.column, v) in found))
        if one.column in names
        else one
        for one in call.filters
    )


def _found(call: Call, pairs: Sequence[tuple[str, Any]]) -> set[tuple[str, Any]]:
    """Those of the columns and values that some row has."""
    if not pairs or not call.reader.exists(call.transaction):
        return set()
    available = filters.columns(call.dataset)
    searches = []
    for number, (name, value) in enumerate(pairs):
        clauses = filters.clauses([Filter(name, False, (value,))], call.dataset)
        found = select(available[name]).where(*clauses).limit(1).subquery()
        searches.append(select(literal(number)).select_from(found))
    return {pairs[number] for number in call.connection.scalars(union_all(*searches))}
