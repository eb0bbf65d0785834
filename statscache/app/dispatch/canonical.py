"""The one form of all queries that ask the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from statscache.app.http.parameters import Parameter
from statscache.app.state.filters import Filters
from statscache.plugins.installed.discovery import Dataset

_NEVER = frozenset({"callback", "_", "format", "wait"})
"""Parameters that do not change the answer, or are a separate part of the key."""


def write(
    address: str,
    parameters: Iterable[Parameter],
    values: Mapping[str, Any],
    filters: Filters,
    dataset: Dataset | None = None,
    now: float | None = None,
) -> str:
    """The canonical query, such as ``/api/volume-by-user-1d?start=1444000000&user=ralph``.

    Args:
        address: with the names of the rule filled in.
        parameters: of the route.
        values: by name, with times as UNIX seconds; those that are the default are left out.
        filters: whose values are sorted and distinct.
        dataset: of the ident.
        now: the present, where the answer depends on it.
    """
    pairs = []
    for parameter in parameters:
        value = values[parameter.name]
        if parameter.name in _NEVER or value is None or value == parameter.default:
            continue
        kind = parameter.kind_for(dataset)
        several = value if parameter.repeatable else (value,)
        pairs += [(parameter.name, kind.write(each)) for each in several]
    pairs += [(filter_.name, str(value)) for filter_ in filters for value in filter_.values]
    # Stable: what may come several times keeps its order where that means something.
    pairs.sort(key=lambda pair: pair[0])
    if now is not None:
        pairs.append(("now", repr(now)))
    query = "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in pairs)
    return f"{address}?{query}" if query else address
