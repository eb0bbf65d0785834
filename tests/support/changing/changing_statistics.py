"""A plugin whose definition changes from one start to the next, as if it had been upgraded."""

import datetime
import os

from statscache.plugins import Aggregate, Key, Value

RELEASE = int(os.environ.get("CHANGING_STATISTICS_RELEASE", "1"))
"""Each has another version; the columns of even and odd ones differ."""


class Senders(Aggregate):
    name = "senders"
    summary = "who sends, when first and last"
    description = "How many messages of each category there are, and in which 15 s first and last."
    version = RELEASE
    keys = (Key("category"), Key("length", type=int)) if RELEASE % 2 else (Key("category"),)
    values = (Value("messages", "add"), Value("first", "smallest"), Value("last", "largest"))
    resolutions = (datetime.timedelta(hours=1), datetime.timedelta(days=1))

    def rows(self, message):
        key = (message.category, len(message.topic)) if RELEASE % 2 else (message.category,)
        window = int(message.timestamp) // 15
        return [(*key, 1, window, window)]
