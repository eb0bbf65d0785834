"""Repeating intervals that are aligned to an epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from statscache.plugins.buckets import UNIX_EPOCH, floored
from statscache.times import naive_now


class Schedule:
    """A repeating interval: a point in time every ``interval``, counted from ``epoch``.

    Naive datetimes are UTC; an aware one is converted, and the result is then aware too.

    Args:
        interval: longer than zero.
        epoch: a point in time that belongs to the schedule; default: 1970-01-01 UTC.

    Raises:
        TypeError: the interval is no timedelta, or the epoch no datetime.
        ValueError: the interval is not longer than zero.
    """

    def __init__(self, interval: timedelta, epoch: datetime | None = None) -> None:
        if not isinstance(interval, timedelta):
            raise TypeError(f"the interval of a schedule must be a timedelta, not {interval!r}")
        if epoch is not None and not isinstance(epoch, datetime):
            raise TypeError(f"the epoch of a schedule must be a datetime, not {epoch!r}")
        if interval <= timedelta(0):
            raise ValueError(f"the interval of a schedule must be longer than zero: {interval!r}")
        self.interval = interval
        self.epoch = _naive(epoch) if epoch is not None else UNIX_EPOCH

    def last(self, now: datetime | None = None) -> datetime:
        """Returns the latest point of the schedule at or before ``now`` (default: the present)."""
        moment = _naive(now) if now is not None else naive_now()
        point = floored(moment, self.interval, self.epoch)
        return point.replace(tzinfo=UTC) if now is not None and now.tzinfo else point

    def next(self, now: datetime | None = None) -> datetime:
        """Returns the earliest point of the schedule after ``now`` (default: the present)."""
        return self.last(now) + self.interval

    def time_to_fire(self, now: datetime | None = None) -> timedelta:
        """Returns the time from ``now`` (default: the present) to the next point."""
        moment = naive_now() if now is None else now
        return self.next(moment) - moment

    @property
    def width(self) -> int:
        """The interval in whole seconds."""
        return int(self.interval.total_seconds())

    @property
    def offset(self) -> int:
        """The whole seconds from 1970 to the epoch."""
        return int((self.epoch - UNIX_EPOCH).total_seconds())

    @property
    def days(self) -> int:
        """The whole days of the interval."""
        return self.interval.days

    @property
    def hours(self) -> int:
        """The whole hours of the rest."""
        return self.interval.seconds // 3600

    @property
    def minutes(self) -> int:
        """The whole minutes of the rest."""
        return self.interval.seconds // 60 % 60

    @property
    def seconds(self) -> int:
        """The whole seconds of the rest."""
        return self.interval.seconds % 60

    def __json__(self) -> float:
        """The interval in seconds; a whole number where it is one."""
        seconds = self.interval.total_seconds()
        return int(seconds) if seconds.is_integer() else seconds

    def __float__(self) -> float:
        """The seconds from the present to the next point, as ``time.sleep`` wants them."""
        return self.time_to_fire().total_seconds()

    def __str__(self) -> str:
        """The interval in its units, such as ``1d``, ``15s`` or ``1d1h1m1s``."""
        return format_interval(self.interval)

    def __repr__(self) -> str:
        return f"Schedule({self.interval!r}, {self.epoch!r})"


def format_interval(interval: timedelta) -> str:
    """Returns ``interval`` in days, hours, minutes and seconds, without those that are zero."""
    minutes, seconds = divmod(interval.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((interval.days, "d"), (hours, "h"), (minutes, "m"))
    text = "".join(f"{count}{unit}" for count, unit in parts if count)
    if interval.microseconds:
        return f"{text}{seconds}.{interval.microseconds:06d}".rstrip("0") + "s"
    return f"{text}{seconds}s" if seconds or not text else text


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
