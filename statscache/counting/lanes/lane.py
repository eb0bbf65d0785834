"""A lane as it was when it was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from statscache.database import tables
from statscache.message import TIMESTAMP_TOLERANCE, Message

MAIN = "main"
"""The lane of the aggregates that have caught up."""

ORDERED = "ordered"
"""The lane of the classic plugins that have caught up; they need messages in the order of time."""

PERMANENT = (MAIN, ORDERED)
"""The lanes that others join."""

LONGEST_BACKOFF = 600.0
"""Seconds between two tries of a lane that fails."""

_LEASE_LENGTH = 60.0
_ORDERED_LEASE_LENGTH = 600.0
"""Seconds: longer than the archive may be away between two tries, so that no other process begins
to run classic plugins without what they remember."""


@dataclass(frozen=True)
class Lane:
    """A lane as it was when it was read; times are UNIX seconds.

    Attributes:
        joins: the name of the lane that it joins when it has caught up.
        ordered: whether its plugins need history before live messages.
        history_start: where its history begins; None without an archive.
        watermark: everything from ``history_start`` to here has been reconciled with the archive.
        claims_pruned_until: claims of messages from ``history_start`` to here have been pruned.
        retry_at: nothing is counted before this time, because the last try failed.
        leased_by: the process that fills in its history; see
            :mod:`statscache.counting.lanes.leases`.
    """

    id: int
    name: str
    joins: str | None = None
    ordered: bool = False
    history_start: float | None = None
    watermark: float | None = None
    claims_pruned_until: float | None = None
    retry_at: float | None = None
    failures: int = 0
    leased_by: str | None = None

    @property
    def lease_length(self) -> float:
        """Seconds for which one process keeps it, to fill in its history."""
        return _ORDERED_LEASE_LENGTH if self.ordered else _LEASE_LENGTH

    @property
    def has_failed(self) -> bool:
        """Whether the last try failed."""
        return self.retry_at is not None

    def is_backing_off(self, now: float) -> bool:
        """Whether the last try failed, and the next one is not due.

        A time further away than the longest pause was noted before the clock was put back.
        """
        return self.retry_at is not None and now < self.retry_at <= now + LONGEST_BACKOFF

    def is_late(self, message: Message) -> bool:
        """Whether claims no longer tell if ``message``, from the bus, was counted.

        Either the claims of its time are pruned, or it has no id, and the archive, which has been
        asked for its time, would have assigned it an id.
        """
        start, watermark = self.history_start, self.watermark
        pruned_until = self.claims_pruned_until
        # The archive was never asked for what is older than the history: those claims stay.
        if start is None or watermark is None or message.timestamp < start - TIMESTAMP_TOLERANCE:
            return False
        # The copy that was counted may have been stamped on the other side of the edge.
        if pruned_until is not None and message.timestamp < pruned_until + TIMESTAMP_TOLERANCE:
            return True
        # The archive has been asked for its time, and its copy may be claimed under another id.
        return not message.has_own_id and message.timestamp < watermark + TIMESTAMP_TOLERANCE


_COLUMNS = [tables.lane.c[name] for name in Lane.__dataclass_fields__]


def read_lanes(connection: Connection) -> list[Lane]:
    """All lanes, oldest first; a read-only connection is enough."""
    query = select(*_COLUMNS).order_by(tables.lane.c.id)
    return [_lane(row) for row in connection.execute(query)]


def read_lane(connection: Connection, number: int) -> Lane | None:
    """The lane of this number; None: it does not exist, or has joined another one."""
    row = connection.execute(select(*_COLUMNS).where(tables.lane.c.id == number)).one_or_none()
    return None if row is None else _lane(row)


def newest_message(connection: Connection) -> float | None:
    """The time of the newest message that any lane has counted; None: there is none."""
    found: float | None = connection.scalar(select(func.max(tables.lane.c.newest)))
    return found


def _lane(row: Any) -> Lane:
    values = dict(row._mapping)
    return Lane(**values | {"ordered": bool(values["ordered"])})
