"""A plugin that is installed for the API, and that no hub has seen yet."""

from __future__ import annotations

import datetime

from statscache.plugins import Aggregate, Key, Message, Row, Value


class Later(Aggregate):
    name = "later"
    summary = "installed a moment ago"
    description = "It has no table yet."
    keys = (Key("category", role="category"),)
    values = (Value("messages"),)
    resolutions = (datetime.timedelta(hours=1),)

    def rows(self, message: Message) -> list[Row]:
        return [(message.category, 1)]
