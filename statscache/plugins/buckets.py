"""Buckets of time: where each of them starts.

Buckets of one width stand side by side from an offset on.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, overload

UNIX_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
"""Naive, and UTC like every naive datetime here; a multiple of it is aligned to UTC midnight."""

MONDAY = timedelta(days=4)
"""From 1970-01-01, a Thursday, to the first Monday: weeks are counted from there."""


def bucket_epoch(width: timedelta) -> datetime:
    """Returns the start of a bucket of ``width``: midnight UTC, and a Monday for whole weeks."""
    return UNIX_EPOCH + MONDAY if width % timedelta(weeks=1) == timedelta(0) else UNIX_EPOCH


@overload
def floored(moment: int, width: int, offset: int = 0) -> int: ...
@overload
def floored(moment: float, width: float, offset: float = 0) -> float: ...
@overload
def floored(moment: datetime, width: timedelta, offset: datetime) -> datetime: ...
def floored(moment: Any, width: Any, offset: Any = 0) -> Any:
    """Returns the start of the bucket that ``moment`` is in."""
    return moment - (moment - offset) % width


def ceiled(moment: int, width: int, offset: int = 0) -> int:
    """Returns the first start of a bucket at ``moment`` or later."""
    return moment + (offset - moment) % width
