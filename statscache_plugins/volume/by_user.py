"""Messages by the people whom they are about."""

from __future__ import annotations

from statscache.plugins import Key, Message, Row
from statscache_plugins.volume.counter import Counter


class VolumeByUser(Counter):
    """Counts a message once for each user whom it is about."""

    name = "volume, by user"
    summary = "the number of messages by the people whom they are about"
    description = (
        "How many messages were about each user in each window of time. A message that is about "
        "several users counts once for each of them, one that is about nobody for none."
    )
    keys = (Key("user", role="user"),)

    def rows(self, message: Message) -> list[Row]:
        """One for each user."""
        return [(username, 1) for username in message.usernames]
