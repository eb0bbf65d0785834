"""Contributions to pagure.io: what counts, for whom and for which project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statscache.counting.folding.fold import Folder
from statscache.message import Message
from statscache.plugins import Aggregate
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from statscache_plugins.pagure import plugins
from statscache_plugins.pagure.by_project import ContributionsByProject
from statscache_plugins.pagure.by_user import ContributionsByUser
from statscache_plugins.pagure.total import Contributions
from tests.support.messages import NOON, bus_messages, message

PAGURE = "io.pagure.prod.pagure."
MIDNIGHT = int(NOON) - 12 * 60 * 60
CORPUS = [raw for raw in bus_messages() if "timestamp" in raw]


def table(plugin_class: type[Aggregate], messages: Iterable[Message]) -> list[tuple[Any, ...]]:
    """The rows of the days, as the engine would write them."""
    return tables(plugin_class, messages)["1d"]


def tables(
    plugin_class: type[Aggregate], messages: Iterable[Message]
) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each table, as the engine would write them, by schedule."""
    folder, partial = Folder(plugin_class({})), {}
    for one in messages:
        if folder.subscribes(one.topic):
            folder.fold(one, partial)
    return {str(table.schedule): rows for table, rows in folder.tables(partial)}


def pagure(event: str, timestamp: float = NOON, **body: Any) -> Message:
    return message(PAGURE + event, timestamp, body)


def projects(*messages: Message) -> dict[str, int]:
    return of_all_days(table(ContributionsByProject, messages))


def users(*messages: Message) -> dict[str, int]:
    return of_all_days(table(ContributionsByUser, messages))


def of_all_days(rows: list[tuple[Any, ...]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for _, name, volume in rows:
        found[name] += volume
    return dict(found)


def total(*messages: Message) -> int:
    return sum(row[1] for row in table(Contributions, messages))


def as_of_pagure_io() -> list[Message]:
    """The messages of pagures in the corpus, as if all were of pagure.io."""
    return [
        Message.from_fedmsg(raw | {"topic": PAGURE + raw["topic"].split(".pagure.")[-1]})
        for raw in CORPUS
        if ".pagure." in raw["topic"]
    ]


def test_the_declarations_are_accepted() -> None:
    installed = discovery.load([(Source("pagure = m:plugins", "dist", "1"), lambda: plugins)], {})
    assert installed.broken == []
    columns = {
        "number-of-contribution-to-pagure.io": ["timestamp", "volume"],
        "number-of-contribution-per-user-to-pagure.io": ["timestamp", "user", "volume"],
        "number-of-contribution-per-project-to-pagure.io": ["timestamp", "project", "volume"],
    }
    widths = {"15m": timedelta(minutes=15), "1d": timedelta(days=1)}
    assert {
        ident: (dataset.model.columns(), dataset.schedule.interval if dataset.schedule else None)
        for ident, dataset in installed.datasets.items()
    } == {
        f"{name}-{schedule}": (columns[name], width)
        for name in columns
        for schedule, width in widths.items()
    }
    [key] = ContributionsByUser.keys
    assert key.role == "user"


def test_topics() -> None:
    for plugin_class in plugins:
        subscribes = plugin_class({}).subscribes
        assert subscribes("io.pagure.prod.pagure.issue.new")
        assert not subscribes("io.pagure.stg.pagure.issue.new")
        assert not subscribes("io.pagure.dev.pagure.issue.new")
        # The pagure of Fedora's packages.
        assert not subscribes("org.fedoraproject.prod.pagure.project.new")
        assert not subscribes("org.fedoraproject.prod.git.receive")


def test_the_corpus() -> None:
    messages = [Message.from_fedmsg(raw) for raw in CORPUS]
    # One comment; two edits of comments do not count, nor what is not pagure.io in production.
    [(day, volume)] = table(Contributions, messages)
    assert volume == 1
    assert table(ContributionsByUser, messages) == [(day, "langdon", 1)]
    assert table(ContributionsByProject, messages) == [(day, "Fedora-Council/tickets", 1)]


def test_the_corpus_as_of_pagure_io() -> None:
    messages = as_of_pagure_io()
    assert len(messages) == 19
    assert total(*messages) == 14
    assert users(*messages) == {"langdon": 1, "mprahl": 1, "pingou": 11, "puiterwijk": 1}
    assert projects(*messages) == {
        "Fedora-Council/tickets": 1,
        "foo": 7,
        "forks/puiterwijk/rpms/ipsilon": 1,
        "pingoutest": 1,
        "rpms/arachne-pnr": 1,
        "test": 3,
    }


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        ("issue.new", True),
        ("issue.edit", True),
        ("issue.comment.added", True),
        ("issue.comment.edited", False),
        ("pull-request.new", True),
        ("pull-request.comment.added", True),
        ("pull-request.comment.edited", False),
        ("pull-request.flag.added", False),
        ("pull-request.flag.updated", False),
        ("commit.flag.added", False),
        ("commit.flag.updated", False),
        ("git.receive", True),
        ("project.new", True),
    ],
)
def test_what_is_a_contribution(event: str, counts: bool) -> None:
    one = pagure(event, agent="pingou", project={"name": "test"})
    assert total(one) == int(counts)
    assert users(one) == ({"pingou": 1} if counts else {})
    assert projects(one) == ({"test": 1} if counts else {})


def test_days() -> None:
    day = 24 * 60 * 60
    messages = [
        pagure("issue.new", MIDNIGHT + seconds, agent="pingou", project={"name": "test"})
        for seconds in (0, day - 0.5, day)
    ]
    assert table(Contributions, messages) == [(MIDNIGHT, 2), (MIDNIGHT + day, 1)]
    assert table(ContributionsByUser, reversed(messages)) == [
        (MIDNIGHT, "pingou", 2),
        (MIDNIGHT + day, "pingou", 1),
    ]
    # Of these the days of every time zone are made.
    assert tables(Contributions, messages)["15m"] == [
        (MIDNIGHT, 1),
        (MIDNIGHT + day - 900, 1),
        (MIDNIGHT + day, 1),
    ]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"project": {"name": "test", "namespace": None, "fullname": "test"}}, "test"),
        ({"project": {"name": "ipsilon", "fullname": "rpms/ipsilon"}}, "rpms/ipsilon"),
        ({"project": {"name": "tickets", "namespace": "Fedora-Council"}}, "Fedora-Council/tickets"),
        ({"project": {"name": "mdapi", "parent": None, "user": {"name": "pingou"}}}, "mdapi"),
        (
            {"project": {"name": "test", "parent": {"name": "test"}, "user": {"name": "pingou"}}},
            "forks/pingou/test",
        ),
        (
            {
                "project": {
                    "name": "ipsilon",
                    "namespace": "rpms",
                    "parent": {"name": "ipsilon"},
                    "user": {"name": "puiterwijk"},
                }
            },
            "forks/puiterwijk/rpms/ipsilon",
        ),
        # A push.
        ({"repo": {"name": "pagure", "fullname": "pagure"}}, "pagure"),
        # To the project, not to the fork that it comes from.
        (
            {
                "pullrequest": {
                    "project": {"fullname": "rpms/ipsilon"},
                    "repo_from": {"fullname": "forks/puiterwijk/rpms/ipsilon"},
                }
            },
            "rpms/ipsilon",
        ),
        ({"pullrequest": {"title": "x"}, "project": {"name": "test"}}, "test"),
        ({}, None),
        ({"project": None}, None),
        ({"project": "test"}, None),
        ({"project": {"name": ""}}, None),
        ({"project": {"name": 7}}, None),
    ],
)
def test_the_project(body: dict[str, Any], name: str | None) -> None:
    one = pagure("pull-request.new", **body)
    assert projects(one) == ({name: 1} if name else {})
    assert total(one) == 1


def test_projects_of_one_name_are_kept_apart() -> None:
    named = {"name": "tickets"}
    assert projects(
        pagure("issue.new", project=named | {"namespace": "Fedora-Council"}),
        pagure("issue.new", project=named | {"namespace": "fesco"}),
        pagure("issue.new", project=named),
        pagure("issue.new", project=named | {"fullname": "fesco/tickets"}),
    ) == {"Fedora-Council/tickets": 1, "fesco/tickets": 2, "tickets": 1}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"agent": "pingou"}, {"pingou": 1}),
        # Pushes of 2015 named the committer alone.
        ({"commit": {"username": "ralph"}}, {"ralph": 1}),
        ({"agent": "pingou", "commit": {"username": "ralph"}}, {"pingou": 1}),
        ({"agent": None}, {}),
        ({}, {}),
    ],
)
def test_the_user(body: dict[str, Any], found: dict[str, int]) -> None:
    one = pagure("git.receive", **body)
    assert users(one) == found
    assert total(one) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
PROJECT = JSON | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("name", "fullname", "namespace", "parent", "user"), JSON)
)
BODIES = JSON | st.fixed_dictionaries(
    {},
    optional={
        "agent": JSON,
        "project": PROJECT,
        "repo": PROJECT,
        "pullrequest": JSON | st.fixed_dictionaries({"project": PROJECT}),
    },
)


@given(
    event=st.sampled_from(["issue.new", "git.receive", "pull-request.new", "issue.comment.edited"]),
    body=BODIES,
)
def test_any_body_makes_rows_that_fit(event: str, body: Any) -> None:
    one = message(PAGURE + event, msg=body)
    for plugin_class in plugins:
        rows = table(plugin_class, [one])
        assert len(rows) <= 1
        assert all(row[-1] == 1 for row in rows)
