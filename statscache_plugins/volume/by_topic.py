"""Messages by topic."""

from __future__ import annotations

from statscache.plugins import Key, Message, Row
from statscache_plugins.volume.counter import Counter


class VolumeByTopic(Counter):
    """Counts every message once, under its whole topic."""

    name = "volume, by topic"
    summary = "the number of messages by topic"
    description = "How many messages went over the bus under each topic in each window of time."
    keys = (Key("topic", role="topic"),)

    def rows(self, message: Message) -> tuple[Row, ...]:
        """One for the topic."""
        return ((message.topic, 1),)
