"""All messages."""

from __future__ import annotations

from statscache.plugins import Message, Row
from statscache_plugins.volume.counter import Counter

_ONE: tuple[Row, ...] = ((1,),)


class Volume(Counter):
    """Counts every message once."""

    name = "volume"
    summary = "the number of messages"
    description = "How many messages went over the bus in each window of time."

    def rows(self, message: Message) -> tuple[Row, ...]:
        """One."""
        return _ONE
