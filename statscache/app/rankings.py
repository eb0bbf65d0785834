"""Whether people may be ranked: only where the operator says so."""

from __future__ import annotations

from statscache.app.problems import Problem
from statscache.app.route import Call
from statscache.plugins.aggregate import Aggregate
from statscache.plugins.discovery import Dataset


def is_of_people(dataset: Dataset, column: str) -> bool:
    """Whether the values of ``column`` are people."""
    plugin = dataset.plugin
    return isinstance(plugin, Aggregate) and any(
        key.name == column and key.role == "user" for key in plugin.keys
    )


def check(call: Call, column: str, parameter: str | None = None) -> None:
    """Refuse to rank or to list the values of ``column`` if they are people.

    Raises:
        Problem: a 403.
    """
    if not call.service.settings.people_rankings and is_of_people(call.dataset, column):
        raise Problem(
            403,
            f"{column!r} is of people, whom this server neither ranks nor lists: ask for those "
            f"whom you know by name, as in /api/{call.dataset.ident}/series?{column}=somebody; "
            "the operator may allow it by statscache.people.rankings",
            parameter=parameter,
        )
