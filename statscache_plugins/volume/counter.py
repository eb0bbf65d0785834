"""What all the volumes share: a counter, and the buckets that it is kept in."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from statscache.plugins import Aggregate, Value


class Counter(Aggregate):
    """Counts messages in buckets of a quarter of a minute, a minute, a quarter of an hour, an hour
    and a day.

    The days of every time zone are made of whole quarters of an hour.
    """

    values = (Value("volume", "add"),)
    counts_messages = True
    resolutions = (
        timedelta(seconds=15),
        timedelta(minutes=1),
        timedelta(minutes=15),
        timedelta(hours=1),
        timedelta(days=1),
    )
    # Nine tenths of what all of them take: charts of longer times are drawn of wider buckets.
    retention: ClassVar[dict[timedelta, timedelta]] = {
        timedelta(seconds=15): timedelta(days=7),
        timedelta(minutes=1): timedelta(days=31),
    }
