"""Messages by the service that sent them."""

from __future__ import annotations

from statscache.plugins import Key, Message, Row
from statscache_plugins.volume.counter import Counter


class VolumeByCategory(Counter):
    """Counts every message once, under the fourth token of its topic."""

    name = "volume, by category"
    summary = "the number of messages by the service that sent them"
    description = (
        "How many messages each service (the fourth token of a topic, such as git or bodhi) sent "
        "in each window of time."
    )
    keys = (Key("category", role="category"),)

    def rows(self, message: Message) -> tuple[Row, ...]:
        """One for the category."""
        return ((message.category, 1),)
