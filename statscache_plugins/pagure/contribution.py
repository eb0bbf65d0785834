"""What a contribution is, who made it, and to which project."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any

from statscache.plugins import Aggregate, Message, Value

_TOPICS = "io.pagure.prod.pagure."

_NO_CONTRIBUTIONS = frozenset(
    _TOPICS + rest
    for rest in (
        # The comment has been counted already: to correct it is not to contribute again.
        "issue.comment.edited",
        "pull-request.comment.edited",
        # Continuous integration sets them.
        "commit.flag.added",
        "commit.flag.updated",
        "pull-request.flag.added",
        "pull-request.flag.updated",
    )
)

_PROJECTS = (
    # A pull request is a contribution to the project that it asks to pull.
    ("pullrequest", "project"),
    ("project",),
    # Pushes (git.receive) have it here.
    ("repo",),
)
"""Where in the body the project may be, the first one that is there counting."""


class ContributionCounter(Aggregate):
    """Counts contributions by day, and by quarter of an hour, for the days of any time zone.

    Everything that happens on pagure.io is a contribution (issues, comments, pull requests, pushes,
    changes of projects) except edits of comments and flags. The pagure of Fedora's packages
    announces itself under ``org.fedoraproject``, and is another one.
    """

    topics = (_TOPICS + "#",)
    values = (Value("volume", "add"),)
    resolutions = (timedelta(minutes=15), timedelta(days=1))


def is_contribution(message: Message) -> bool:
    """Whether the message, under a topic of pagure.io, announces a contribution."""
    return message.topic not in _NO_CONTRIBUTIONS


def contributors(message: Message) -> AbstractSet[str]:
    """Returns who acted; where that is not known, as in old pushes, whom the message is about."""
    match message.msg:
        case {"agent": str(agent)} if agent:
            return {agent}
    return message.usernames


def project(message: Message) -> str | None:
    """The full name of the project, or None where the message does not tell.

    Two projects of one name in different namespaces, or a project and its forks, are different
    ones, so the namespace and the owner of a fork belong to the name. Old messages lack
    ``fullname``; it is put together as pagure does it.
    """
    for path in _PROJECTS:
        match _at(message.msg, path):
            case {"fullname": str(fullname)} if fullname:
                return fullname
            case {"name": str(name)} as found if name:
                return _fork(found) + _namespace(found) + name
    return None


def _at(body: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        body = body.get(key) if isinstance(body, dict) else None
    return body


def _namespace(found: dict[str, Any]) -> str:
    match found:
        case {"namespace": str(namespace)} if namespace:
            return f"{namespace}/"
    return ""


def _fork(found: dict[str, Any]) -> str:
    match found:
        # The pattern {} is any object: the parent of what is not a fork is null.
        case {"parent": {}, "user": {"name": str(owner)}} if owner:
            return f"forks/{owner}/"
    return ""
