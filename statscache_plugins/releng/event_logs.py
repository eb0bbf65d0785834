"""The latest event of each piece of work of release engineering, for its dashboard."""

from __future__ import annotations

from statscache.plugins import Aggregate, Key, Message, Row, Value
from statscache_plugins.releng import cloud_images, composes, koji_tasks, updates
from statscache_plugins.releng.layout import LAYOUT

_AREAS = {
    "compose": composes.entries,
    "bodhi": updates.entries,
    "fedimg": cloud_images.entries,
    "buildsys": koji_tasks.entries,
}
"""The category of a message, to the function that reads it."""


class ReleaseEngineeringEventLogs(Aggregate):
    """Keeps one row per piece of work: that of the newest message about it, however they arrive.

    Only production's messages count: staging uses the names of production for its rehearsals, and
    would overwrite the latest real event.
    """

    name = "Release engineering event logs"
    summary = "the latest event of each compose, update push, cloud image and image build"
    description = (
        "What a release engineering dashboard shows: for each step of a compose, each repository "
        "of updates, each kind of cloud image per region, and each appliance, live CD and image "
        "that is built nightly, what happened to it last. The message of a row is a JSON object "
        "with a name, a status and, where there are any, a link, an extra_text and an extra_link."
    )
    topics = (*composes.TOPICS, *updates.TOPICS, *cloud_images.TOPICS, *koji_tasks.TOPICS)
    keys = (Key("category"), Key("category_constraint"))
    values = (Value("message", "newest", str),)
    layout = LAYOUT

    def rows(self, message: Message) -> list[Row]:
        """One per entry; none for a message that lacks what an entry needs."""
        if not isinstance(message.msg, dict):
            return []
        entries = _AREAS[message.category](message)
        return [(entry.category, entry.constraint, entry.message()) for entry in entries]
