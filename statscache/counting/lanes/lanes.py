"""Which lanes there are: opening, splitting, joining and removing them.

Counting takes the lock shared (:meth:`Lanes.share`), changing lanes or their plugins takes it
exclusive (:meth:`Lanes.exclude`). Both are held until the end of the transaction, and are taken
before anything else in it is locked. A transaction never upgrades: two that share the lock, and
both want it exclusive, would dead-lock.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, except_, func, insert, literal, select, update

from statscache.clock import Clock
from statscache.counting.lanes.lane import LONGEST_BACKOFF, Lane, read_lanes
from statscache.database import tables
from statscache.database.upsert import Upsert
from statscache.message import TIMESTAMP_TOLERANCE

_SHORTEST_BACKOFF = 5.0
_LOCK = 0x57A75CAC
"""The advisory lock of PostgreSQL under which lanes change."""

_MEMORY = (tables.claim, tables.claim_checksum, tables.late, tables.gap)
"""What a lane remembers, by its number."""


class Lanes:
    """The lanes of a database, inside the engine's transaction.

    Args:
        backend: the name of the database's dialect.
        clock: the present.
    """

    def __init__(self, backend: str, clock: Clock) -> None:
        self._clock = clock
        self._is_postgresql = backend == "postgresql"
        self._membership = Upsert(
            tables.membership,
            backend,
            {"version": lambda old, new: old["version"] + new["version"]},
        )

    def share(self, connection: Connection) -> None:
        """Keep lanes and their plugins as they are, until the end of the transaction."""
        # SQLite has only one writer at a time anyway.
        if self._is_postgresql:
            connection.execute(select(func.pg_advisory_xact_lock_shared(_LOCK)))

    def exclude(self, connection: Connection) -> None:
        """Let no other process count, until the end of the transaction."""
        if self._is_postgresql:
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))

    def membership_version(self, connection: Connection) -> int:
        """A number that grows whenever lanes, or their plugins, change."""
        return int(connection.scalar(select(tables.membership.c.version)) or 0)

    def touch(self, connection: Connection) -> None:
        """Let all processes notice that lanes, or their plugins, have changed."""
        self._membership.write(connection, [(1, 1)])

    def all(self, connection: Connection) -> list[Lane]:
        """The lanes, oldest first."""
        return read_lanes(connection)

    def open(self, connection: Connection, name: str, **values: Any) -> Lane:
        """The lane of this name; made of ``values`` when there is none yet."""
        known = {lane.name: lane for lane in self.all(connection)}
        if name in known:
            return known[name]
        # Never reuse a number: other processes may still remember that lane. Each new lane raises
        # the version, so no number was ever larger than the version.
        numbers = [lane.id for lane in known.values()]
        number = max([*numbers, self.membership_version(connection)]) + 1
        lane = Lane(number, name, **values)
        connection.execute(insert(tables.lane).values(_row(lane)))
        self.touch(connection)
        return lane

    def vacant_name(self, connection: Connection, name: str) -> str:
        """``name``, or, if there is a lane of that name, ``name`` with a number."""
        taken = {lane.name for lane in self.all(connection)}
        names = itertools.chain([name], (f"{name} {number}" for number in itertools.count(2)))
        return next(each for each in names if each not in taken)

    def split(
        self, connection: Connection, lane: Lane, name: str, batches: Sequence[int] = ()
    ) -> Lane:
        """A lane that has counted what ``lane`` has, but not the claims of ``batches``."""
        joins = lane.joins or lane.name
        apart = self.open(
            connection,
            name,
            joins=joins,
            ordered=lane.ordered,
            history_start=lane.history_start,
            watermark=lane.watermark,
            claims_pruned_until=lane.claims_pruned_until,
        )
        for table in _MEMORY:
            names = [column.name for column in table.columns]
            copied = select(literal(apart.id), *(table.c[column] for column in names[1:])).where(
                table.c.lane == lane.id
            )
            if table is tables.claim:
                # The plugins that leave get again what they could not write.
                copied = copied.where(tables.claim.c.batch.not_in(batches))
            connection.execute(insert(table).from_select(names, copied))
        return apart

    def remove(self, connection: Connection, lane: Lane) -> None:
        """Forget a lane and all that it remembers."""
        for table in _MEMORY:
            connection.execute(delete(table).where(table.c.lane == lane.id))
        connection.execute(delete(tables.lane).where(tables.lane.c.id == lane.id))
        self.touch(connection)

    def replace_memory(self, connection: Connection, home: Lane, lane: Lane) -> Lane:
        """Let ``home``, which has no plugins, remember what ``lane`` does; returns ``home``.

        Its row stays, since it has the number of messages counted under its name.
        """
        # What only the home remembers is of plugins that have left it.
        for table in _MEMORY:
            connection.execute(delete(table).where(table.c.lane == home.id))
            connection.execute(update(table).where(table.c.lane == lane.id).values(lane=home.id))
        connection.execute(
            update(tables.lane)
            .where(tables.lane.c.id == home.id)
            .values(
                history_start=lane.history_start,
                watermark=lane.watermark,
                claims_pruned_until=lane.claims_pruned_until,
            )
        )
        self.remove(connection, lane)
        return home

    def extend_history(self, connection: Connection, home: Lane, lane: Lane) -> None:
        """Move what ``lane`` remembers of before the history of ``home`` to ``home``."""
        start, earlier = home.history_start, lane.history_start
        if start is None or earlier is None or earlier >= start:
            return
        for table, column in (
            (tables.claim, tables.claim.c.timestamp),
            (tables.claim_checksum, tables.claim_checksum.c.start),
        ):
            times = (column >= earlier, column < start)
            # What the home has of that time came from the bus, and was never compared with the
            # archive. The lane has all of it, and its checksums are complete.
            connection.execute(delete(table).where(table.c.lane == home.id, *times))
            connection.execute(
                update(table).where(table.c.lane == lane.id, *times).values(lane=home.id)
            )
        row = tables.lane.c
        connection.execute(
            update(tables.lane).where(row.id == home.id).values(history_start=earlier)
        )

    def can_replace(self, connection: Connection, lane: Lane, home: Lane) -> bool:
        """Whether a lane has come as far as the one that it joins, which has no plugins."""
        if lane.watermark is None or lane.watermark < (home.watermark or 0.0):
            return False
        return not self._has_late(connection, lane)

    def can_join(
        self, connection: Connection, lane: Lane, other: Lane, *, may_lack: bool = False
    ) -> bool:
        """Whether both have counted the same messages, as far as they still have claims of them.

        ``may_lack``: ``lane`` may lack some of it.
        """
        # If only one of them has compared a time with the archive, the other may lack messages.
        if lane.watermark != other.watermark:
            return False
        # A message that waits in one of them may have been counted by the other already.
        if self._has_late(connection, lane, other):
            return False
        pruned_until = max(lane.claims_pruned_until or 0.0, other.claims_pruned_until or 0.0)
        # Below this edge one lane may have pruned a copy that the other still claims. The second
        # query below starts two tolerances earlier, and still stays above the edge.
        # The other lane is searched from two tolerances earlier on, which is still one behind the
        # edge: before that, the copy of a message may have been pruned.
        start = pruned_until + 3 * TIMESTAMP_TOLERANCE

        def remembered(number: int, start: float) -> Any:
            return select(tables.claim.c.identity).where(
                tables.claim.c.lane == number, tables.claim.c.timestamp >= start
            )

        # Checksums are not compared: those of a lane that fills in its history are of fewer topics.
        both = ((lane.id, other.id), (other.id, lane.id))
        for first, second in both[:1] if may_lack else both:
            # The two may have counted different copies: each within one tolerance of the time of
            # the message, so within two of each other.
            difference = except_(
                remembered(first, start), remembered(second, start - 2 * TIMESTAMP_TOLERANCE)
            ).limit(1)
            if connection.execute(difference).first() is not None:
                return False
        return True

    def back_off(self, connection: Connection, lane: Lane, at_least: float = 0.0) -> float:
        """Let a lane that failed rest, longer each time; returns the seconds."""
        pause = max(min(_SHORTEST_BACKOFF * 2.0**lane.failures, LONGEST_BACKOFF), at_least)
        connection.execute(
            update(tables.lane)
            .where(tables.lane.c.id == lane.id)
            .values(failures=lane.failures + 1, retry_at=self._clock.time() + pause)
        )
        return pause

    def wake(self, connection: Connection, number: int) -> None:
        """Let a lane that backs off try again at once."""
        row = tables.lane
        connection.execute(update(row).where(row.c.id == number).values(failures=0, retry_at=None))

    def _has_late(self, connection: Connection, *lanes: Lane) -> bool:
        late = tables.late.c
        query = select(late.identity).where(late.lane.in_([lane.id for lane in lanes])).limit(1)
        return connection.execute(query).first() is not None


def _row(lane: Lane) -> dict[str, Any]:
    values = {name: getattr(lane, name) for name in Lane.__dataclass_fields__}
    return values | {"ordered": int(lane.ordered), "messages": 0, "batches": 0}
