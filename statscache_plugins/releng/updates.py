"""Updates: the repositories of updates that were synced out to the mirrors."""

from __future__ import annotations

from collections.abc import Iterator

from statscache.plugins import Message
from statscache_plugins.releng.entry import DONE, Entry, Status

_DISTRIBUTIONS = {
    "org.fedoraproject.prod.bodhi.updates.fedora.sync": "fedora",
    "org.fedoraproject.prod.bodhi.updates.epel.sync": "epel",
}
TOPICS = tuple(_DISTRIBUTIONS)
DISTRIBUTIONS = tuple(_DISTRIBUTIONS.values())

SYNCED_OUT = Status("synced out", "synced out", DONE)


def entries(message: Message) -> Iterator[Entry]:
    """At most one: the next sync of a repository takes the place of the last."""
    match message.msg:
        case {"release": str(release), "repo": str(repo)} if release and repo:
            yield Entry(
                category=f"updates-{_DISTRIBUTIONS[message.topic]}",
                constraint=f"{release}-{repo}",
                name=f"{release}-{repo}",
                status=SYNCED_OUT,
            )
