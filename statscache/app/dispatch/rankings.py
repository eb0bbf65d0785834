"""Whether people may be listed and ranked: only where the operator lets them."""

from __future__ import annotations

from statscache import people
from statscache.app.dispatch.route import Call, Route, all_people
from statscache.app.http.problems import Problem
from statscache.people import LISTS, RANKINGS, People
from statscache.plugins.installed.discovery import Dataset


def may_list(who: People, dataset: Dataset, column: str) -> bool:
    """Whether the values of ``column`` may be ranked, and completed."""
    return (who.lists and who.rankings) or column not in people.columns(dataset)


def always_refuses(who: People, dataset: Dataset, route: Route) -> bool:
    """Whether ``route`` can only list the people of ``dataset``, and people are not listed."""
    lists_all = route.lists is all_people and not route.filterable
    return not who.lists and lists_all and bool(people.columns(dataset))


def check_lists(call: Call) -> None:
    """Refuse to list people other than those whom the query names.

    Raises:
        Problem: a 403.
    """
    if call.service.settings.people.lists or call.found is None:
        return
    named = {one.column for one in call.filters if not one.negated}
    said = {**call.values, **call.arguments}
    unnamed = [name for name in call.route.lists(call.dataset, said) if name not in named]
    for column in people.columns(call.dataset):
        if column in unnamed:
            ident = call.dataset.ident
            raise Problem(
                403,
                f"{column!r} is of people, whom this server does not list: name those whom you "
                f"know, as in /api/{ident}?{column}=somebody; the operator may let them be listed "
                f"by {LISTS}",
                parameter=column,
            )


def check_ranking(call: Call, column: str, parameter: str | None = None) -> None:
    """Refuse to rank or to complete the values of ``column``, where people are listed otherwise.

    Raises:
        Problem: a 403.
    """
    if not call.service.settings.people.rankings and column in people.columns(call.dataset):
        raise Problem(
            403,
            f"{column!r} is of people, whom this server does not rank: ask for those whom you know "
            f"by name, as in /api/{call.dataset.ident}/series?{column}=somebody; the operator may "
            f"allow it by {RANKINGS}",
            parameter=parameter,
        )
