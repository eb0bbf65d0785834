"""Times are UNIX seconds; here is how they become datetimes and text, and back. All is UTC."""

from __future__ import annotations

from datetime import UTC, datetime

HOUR = 3_600
DAY = 24 * HOUR
"""Seconds; a day of UTC has no other length."""

_UNITS = ((DAY, "days"), (HOUR, "hours"), (60, "minutes"))


def aware(moment: datetime) -> datetime:
    """Returns ``moment`` in UTC; a naive one is UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def unix_seconds(moment: datetime) -> float:
    """Returns UNIX seconds; a naive ``moment`` is UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def naive(seconds: float) -> datetime:
    """Returns a naive datetime, as classic plugins and their tables have it."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def naive_now() -> datetime:
    """Returns the present, as classic plugins have it."""
    return datetime.now(UTC).replace(tzinfo=None)


def iso(seconds: float) -> str:
    """Returns ISO 8601, such as ``2015-10-05T12:00:00Z``."""
    return _format(seconds, "%Y-%m-%dT%H:%M:%SZ")


def to_the_second(seconds: float) -> str:
    """Returns what a person reads, such as ``2015-10-05 12:00:00 UTC``."""
    return _format(seconds, "%Y-%m-%d %H:%M:%S UTC")


def to_the_minute(seconds: float) -> str:
    """Returns what a person reads, such as ``2015-10-05 12:00 UTC``."""
    return _format(seconds, "%Y-%m-%d %H:%M UTC")


def to_the_day(seconds: float) -> str:
    """Returns the day, such as ``2015-10-05``."""
    return _format(seconds, "%Y-%m-%d")


def duration(seconds: float) -> str:
    """Returns what a person reads, in one unit, such as ``3 days`` or ``45 s``."""
    for size, unit in _UNITS:
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _format(seconds: float, pattern: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(pattern)
