"""A plugin that is uninstalled after it has counted something."""

from __future__ import annotations

import datetime

from statscache.plugins import Aggregate, Message, Row, Value


class Gone(Aggregate):
    name = "gone"
    summary = "is not there any more"
    description = "Uninstalled when the requests are made."
    values = (Value("messages"),)
    resolutions = (datetime.timedelta(days=1),)

    def rows(self, message: Message) -> list[Row]:
        return [(1,)]
