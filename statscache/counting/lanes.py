"""Lanes: sets of plugins that share a checkpoint, and which messages each has counted.

A lane remembers the messages that it has counted by *claims*. Behind its watermark everything has
been reconciled with the archive, so that claims of what the archive has are pruned when they are
older than what it is asked for again; a sum of each quarter of an hour is kept, with which a
message that arrives later still can be told from one that was counted (see
:mod:`statscache.counting.late`). Claims of what the archive does not have stay: nothing else could
tell that it was counted. So the table is bounded by what comes in while the archive lags and
overlaps, and by what the archive has lost.

Without an archive all claims stay for ever, some hundred bytes for each message: whatever is
replayed, a year later and in any order, is still counted once. A claim that was pruned without an
archive that knows the message would be a message that counts twice.

An id that comes again with another time is the same message for as long as it is claimed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, delete, except_, func, insert, literal, select, update

from statscache.clock import SYSTEM, Clock
from statscache.database import tables
from statscache.database.upsert import Upsert
from statscache.message import Message

MAIN = "main"
"""The lane of all the aggregates that have seen everything that the others have."""

ORDERED = "ordered"
"""The same for classic plugins, which want messages in the order of time."""

RESTAMPING = 2.0
"""Seconds by which the times of two copies of a message may differ: bridges restamp them."""

COUNTED_WIDTH = 15 * 60
"""Seconds of history for which one sum of pruned claims is kept."""

_IDS_PER_QUERY = 10_000
_PRUNED_AT_ONCE = 50_000
_MOST_SPANS = 200
_SHORTEST_BACKOFF = 5.0
_LONGEST_BACKOFF = 600.0
_LEASE = 60.0
_LEASE_OF_ORDERED = 600.0
"""Longer than the archive may be away between two tries: only one process runs their plugins."""
_LONGEST_LEASE = 2 * 60 * 60.0
"""Of more, the end was noted by a clock that has been put back."""
_LOCK = 0x57A75CAC
"""The advisory lock of PostgreSQL under which lanes change."""


@dataclass(frozen=True)
class Lane:
    """A lane as it was when it was read; times are UNIX seconds.

    Attributes:
        joins: the name of the lane that it joins when it has caught up.
        ordered: whether its plugins want history before live messages.
        history_start: where its history begins; None where there is no archive.
        watermark: everything from ``history_start`` to here has been reconciled with the archive.
        claims_pruned_until: claims of messages from ``history_start`` to here have been pruned.
        retry_at: nothing is counted before this time, because the last try failed.
        leased_by: the process that fills in its history; see :mod:`statscache.counting.leases`.
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

    def rests(self, now: float) -> bool:
        """Whether the last try failed, and the next one is not due.

        What is due later than any pause lasts was noted by a clock that has been put back.
        """
        return self.retry_at is not None and now < self.retry_at <= now + _LONGEST_BACKOFF

    def is_late(self, message: Message) -> bool:
        """Whether claims cannot tell any more if ``message``, from the bus, was counted.

        Either the claims of its time are pruned, or it has no id, and the archive, which has been
        asked for its time, would have given it an id of its own invention.
        """
        start, watermark, pruned_until = (
            self.history_start,
            self.watermark,
            self.claims_pruned_until,
        )
        if start is None or watermark is None or message.timestamp < start - RESTAMPING:
            return False
        if pruned_until is not None and message.timestamp < pruned_until + RESTAMPING:
            return True
        return not message.has_own_id and message.timestamp < watermark + RESTAMPING


_MEMORY = (tables.claim, tables.claim_checksum, tables.late, tables.gap)
"""What a lane remembers, by its number."""

_COLUMNS = [tables.lane.c[name] for name in Lane.__dataclass_fields__]


class Lanes:
    """Claims messages for lanes and moves their checkpoints, inside the engine's transaction."""

    def __init__(self, backend: str, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._insert = Upsert(tables.claim, backend, {})
        self._counted = Upsert(
            tables.claim_checksum,
            backend,
            {
                "messages": lambda old, new: new["messages"],
                "checksum": lambda old, new: new["checksum"],
            },
        )
        self._membership = Upsert(
            tables.membership,
            backend,
            {"version": lambda old, new: old["version"] + new["version"]},
        )
        self._gaps = Upsert(
            tables.gap,
            backend,
            {
                "stop": lambda old, new: case(
                    (new["stop"] > old["stop"], new["stop"]), else_=old["stop"]
                ),
                "missing": lambda old, new: new["missing"],
                "noticed_at": lambda old, new: new["noticed_at"],
            },
        )
        self._is_postgresql = backend == "postgresql"

    # Which lanes there are.

    def all(self, connection: Connection) -> list[Lane]:
        """The lanes, oldest first."""
        return read_lanes(connection)

    def open(self, connection: Connection, name: str, **values: Any) -> Lane:
        """The lane of this name; made of ``values`` when there is none yet."""
        known = {lane.name: lane for lane in self.all(connection)}
        if name in known:
            return known[name]
        # Never a number that was used before: other processes may still remember that lane.
        numbers = [lane.id for lane in known.values()]
        number = max([*numbers, self.membership_version(connection)]) + 1
        lane = Lane(number, name, **values)
        connection.execute(insert(tables.lane).values(_row(lane)))
        self.touch(connection)
        return lane

    def newest(self, connection: Connection) -> float | None:
        """The time of the newest message that any lane has counted; None: there is none."""
        found: float | None = connection.scalar(select(func.max(tables.lane.c.newest)))
        return found

    def membership_version(self, connection: Connection) -> int:
        """A number that grows whenever lanes, or their plugins, change."""
        return int(connection.scalar(select(tables.membership.c.version)) or 0)

    def forget(self, connection: Connection, lane: Lane, start: float) -> None:
        """Set a lane back to a time, as if nothing from then on had been counted.

        Where its claims are pruned, only the start of a window of :data:`COUNTED_WIDTH` will do: a
        sum cannot be divided.
        """
        for table, column in (
            (tables.claim, tables.claim.c.timestamp),
            (tables.claim_checksum, tables.claim_checksum.c.start),
            (tables.gap, tables.gap.c.start),
        ):
            connection.execute(delete(table).where(table.c.lane == lane.id, column >= start))
        row = tables.lane.c
        until, pruned_until = start - RESTAMPING, row.claims_pruned_until
        connection.execute(
            update(tables.lane)
            .where(row.id == lane.id)
            .values(
                watermark=start,
                claims_pruned_until=case((pruned_until > until, until), else_=pruned_until),
            )
        )

    def touch(self, connection: Connection) -> None:
        """Let all processes notice that lanes, or their plugins, have changed."""
        self._membership.run(connection, [(1, 1)])

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
                copied = copied.where(tables.claim.c.batch.not_in(batches))
            connection.execute(insert(table).from_select(names, copied))
        return apart

    def remove(self, connection: Connection, lane: Lane) -> None:
        """Forget a lane and all that it remembers."""
        for table in _MEMORY:
            connection.execute(delete(table).where(table.c.lane == lane.id))
        connection.execute(delete(tables.lane).where(tables.lane.c.id == lane.id))
        self.touch(connection)

    def replace(self, connection: Connection, home: Lane, lane: Lane) -> Lane:
        """Let ``lane`` take the name of ``home``, which nobody is in; gives the lane that is home.

        That keeps its row, which tells how much was counted in it, and takes over what ``lane``
        remembers.
        """
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

    def extend(self, connection: Connection, home: Lane, lane: Lane) -> None:
        """Let ``home`` remember what ``lane``, whose history begins earlier, has of before it."""
        start, earlier = home.history_start, lane.history_start
        if start is None or earlier is None or earlier >= start:
            return
        for table, column in (
            (tables.claim, tables.claim.c.timestamp),
            (tables.claim_checksum, tables.claim_checksum.c.start),
        ):
            times = (column >= earlier, column < start)
            connection.execute(delete(table).where(table.c.lane == home.id, *times))
            connection.execute(
                update(table).where(table.c.lane == lane.id, *times).values(lane=home.id)
            )
        row = tables.lane.c
        connection.execute(
            update(tables.lane).where(row.id == home.id).values(history_start=earlier)
        )

    def share(self, connection: Connection) -> None:
        """Keep lanes and their plugins as they are, until the end of the transaction."""
        if self._is_postgresql:
            connection.execute(select(func.pg_advisory_xact_lock_shared(_LOCK)))

    def exclude(self, connection: Connection) -> None:
        """Let no other process count, until the end of the transaction."""
        if self._is_postgresql:
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))

    def can_replace(self, connection: Connection, lane: Lane, home: Lane) -> bool:
        """Whether a lane has come as far as the one, where nobody is any more, that it joins."""
        if lane.watermark is None or lane.watermark < (home.watermark or 0.0):
            return False
        return not self._has_late(connection, lane)

    def can_join(
        self, connection: Connection, lane: Lane, other: Lane, *, may_lack: bool = False
    ) -> bool:
        """Whether both have counted the same, of what they still remember by claims.

        ``may_lack``: ``lane`` may lack some of it.
        """
        if lane.watermark != other.watermark:
            return False
        # What waits in one of them the other may have counted already.
        if self._has_late(connection, lane, other):
            return False
        pruned_until = max(lane.claims_pruned_until or 0.0, other.claims_pruned_until or 0.0)
        start = pruned_until + 3 * RESTAMPING

        def remembered(number: int, start: float) -> Any:
            return select(tables.claim.c.identity).where(
                tables.claim.c.lane == number, tables.claim.c.timestamp >= start
            )

        both = ((lane.id, other.id), (other.id, lane.id))
        for first, second in both[:1] if may_lack else both:
            # The copies that the two have counted may have been stamped differently.
            difference = except_(
                remembered(first, start), remembered(second, start - 2 * RESTAMPING)
            ).limit(1)
            if connection.execute(difference).first() is not None:
                return False
        return True

    def _has_late(self, connection: Connection, *lanes: Lane) -> bool:
        late = tables.late.c
        query = select(late.identity).where(late.lane.in_([lane.id for lane in lanes])).limit(1)
        return connection.execute(query).first() is not None

    def lease(self, connection: Connection, lane: Lane, owner: str) -> bool:
        """Whether ``owner`` may fill in the history of ``lane`` now, and others may not.

        For a minute; for ten where the lane is ordered.
        """
        row = tables.lane.c
        now = self._clock.time()
        has_run_out = ~row.leased_until.between(now, now + _LONGEST_LEASE)
        taken = connection.execute(
            update(tables.lane)
            .where(
                row.id == lane.id,
                row.leased_by.is_(None) | (row.leased_by == owner) | has_run_out,
            )
            .values(leased_by=owner, leased_until=now + _lease(lane))
        )
        return taken.rowcount == 1

    def take_over(self, connection: Connection, lane: Lane, owner: str) -> None:
        """Give ``owner`` the lease, whoever has it."""
        connection.execute(
            update(tables.lane)
            .where(tables.lane.c.id == lane.id)
            .values(leased_by=owner, leased_until=self._clock.time() + _lease(lane))
        )

    def release(self, connection: Connection, owner: str, lane: Lane | None = None) -> None:
        """End the lease that ``owner`` has of ``lane``, or, where that is absent, all of its."""
        row = tables.lane.c
        mine = row.leased_by == owner
        connection.execute(
            update(tables.lane)
            .where(mine if lane is None else mine & (row.id == lane.id))
            .values(leased_by=None, leased_until=None)
        )

    # What each has counted.

    def claim(
        self,
        connection: Connection,
        lane: Lane,
        messages: Sequence[Message],
        batch: int,
        archived: int = 0,
    ) -> list[Message]:
        """Those of ``messages`` that the lane has not counted before, each once.

        From then on they are claimed, if the transaction is committed. Of several copies the
        first one stands. Two processes that claim the same message at the same time wait for
        each other, and one of them gets it. ``batch``, from :func:`new_batch`, tells what this
        claim got from what others had before.
        """
        first_copies: dict[bytes, Message] = {}
        for message in messages:
            first_copies.setdefault(claim_digest(message.identity), message)
        rows = [
            (lane.id, digest, message.timestamp, batch, 0 if message.has_own_id else 1, archived)
            for digest, message in sorted(first_copies.items())
        ]
        if self._insert.run(connection, rows) == len(rows):
            return list(first_copies.values())
        claimed = self._claimed_by(connection, lane, batch, list(first_copies))
        return [message for digest, message in first_copies.items() if digest in claimed]

    def claim_archived(
        self, connection: Connection, lane: Lane, messages: Sequence[Message], batch: int
    ) -> list[Message]:
        """The same for messages of the archive, whose ids it may have invented.

        So each is looked for among the claims of messages without id as well. A claim that is
        found is put under the id of the archive, as which the message comes from now on.
        """
        claim = tables.claim
        for message, digest in self._renamed(connection, lane, messages):
            connection.execute(
                update(claim)
                .where(claim.c.lane == lane.id, claim.c.identity == digest)
                .values(identity=claim_digest(message.identity), anonymous=0, archived=1)
            )
        new = self.claim(connection, lane, messages, batch, 1)
        if len(new) < len(messages):
            mine = {message.identity for message in new}
            others = (m.identity for m in messages if m.identity not in mine)
            for some in _slices([claim_digest(identity) for identity in others], _IDS_PER_QUERY):
                connection.execute(
                    update(claim)
                    .where(
                        claim.c.lane == lane.id,
                        claim.c.identity.in_(some),
                        claim.c.archived == 0,
                    )
                    .values(archived=1)
                )
        return new

    def claim_partial(
        self,
        connection: Connection,
        lane: Lane,
        digests: Sequence[tuple[bytes, float, bool]],
        batch: int,
    ) -> bool:
        """Claim messages that were folded elsewhere: all of them, or, giving False, none.

        Each by its digest, its time and whether it has an id of its own. The caller has seen that
        the lane has no anonymous claims.
        """
        rows = [
            (lane.id, digest, timestamp, batch, 0 if has_own_id else 1, 1)
            for digest, timestamp, has_own_id in sorted(digests)
        ]
        with connection.begin_nested() as savepoint:
            if self._insert.run(connection, rows) == len(rows):
                return True
            savepoint.rollback()
        return False

    def has_anonymous(self, connection: Connection, lane: Lane, start: float, stop: float) -> bool:
        """Whether the lane has counted messages without id of about this time, from the bus."""
        query = select(tables.claim.c.identity).where(
            *_anonymous(lane, start, stop), tables.claim.c.archived == 0
        )
        return connection.execute(query.limit(1)).first() is not None

    def _renamed(
        self, connection: Connection, lane: Lane, messages: Sequence[Message]
    ) -> list[tuple[Message, bytes]]:
        """Those that were counted without an id, with the digests under which they were."""
        if not messages:
            return []
        times = [message.timestamp for message in messages]
        anonymous = self.anonymous(connection, lane, min(times), max(times))
        if not anonymous:
            return []
        named = [message for message in messages if message.has_own_id]
        known = self.claimed(connection, lane, [claim_digest(m.identity) for m in named])
        unknown = [m for m in named if claim_digest(m.identity) not in known]
        return match_contents(unknown, anonymous)

    def anonymous(
        self, connection: Connection, lane: Lane, start: float, stop: float
    ) -> set[bytes]:
        """The claims of messages without id of about this time."""
        query = select(tables.claim.c.identity).where(*_anonymous(lane, start, stop))
        return {bytes(digest) for digest in connection.scalars(query)}

    def claimed(self, connection: Connection, lane: Lane, digests: Sequence[bytes]) -> set[bytes]:
        """Those of ``digests`` that the lane has claimed."""
        claim = tables.claim.c
        found: set[bytes] = set()
        for some in _slices(digests, _IDS_PER_QUERY):
            query = select(claim.identity).where(claim.lane == lane.id, claim.identity.in_(some))
            found.update(bytes(digest) for digest in connection.scalars(query))
        return found

    def _claimed_by(
        self, connection: Connection, lane: Lane, batch: int, digests: list[bytes]
    ) -> set[bytes]:
        claim = tables.claim
        claimed: set[bytes] = set()
        for some in _slices(digests, _IDS_PER_QUERY):
            query = select(claim.c.identity).where(
                claim.c.lane == lane.id, claim.c.identity.in_(some), claim.c.batch == batch
            )
            claimed.update(bytes(digest) for digest in connection.scalars(query))
        return claimed

    # How far each is.

    def advance(
        self,
        connection: Connection,
        lane: Lane,
        counted: int,
        newest: float | None,
        watermark: float | None = None,
    ) -> None:
        """Move the checkpoint of the lane past what was just counted.

        ``newest`` is the largest timestamp among it, ``watermark`` the time up to which it has
        now been reconciled with the archive.
        """
        row = tables.lane.c
        values: dict[str, Any] = {
            "messages": row.messages + counted,
            "batches": row.batches + 1,
            "committed_at": self._clock.time(),
        }
        if newest is not None:
            values["newest"] = case((row.newest > newest, row.newest), else_=newest)
        if watermark is not None:
            values["watermark"] = case((row.watermark > watermark, row.watermark), else_=watermark)
        # An overlap in which there is nothing new says nothing about what failed.
        is_further = watermark is not None and watermark > (lane.watermark or 0.0)
        if lane.failures and (counted or is_further):
            values |= {"failures": 0, "retry_at": None}
        connection.execute(update(tables.lane).where(row.id == lane.id).values(values))

    def back_off(self, connection: Connection, lane: Lane, at_least: float = 0.0) -> float:
        """Let a lane that failed rest, longer each time; gives the seconds."""
        pause = max(min(_SHORTEST_BACKOFF * 2.0**lane.failures, _LONGEST_BACKOFF), at_least)
        connection.execute(
            update(tables.lane)
            .where(tables.lane.c.id == lane.id)
            .values(failures=lane.failures + 1, retry_at=self._clock.time() + pause)
        )
        return pause

    def wake(self, connection: Connection, number: int) -> None:
        """Let a lane that rests try again at once."""
        row = tables.lane
        connection.execute(update(row).where(row.c.id == number).values(failures=0, retry_at=None))

    def note_gap(
        self, connection: Connection, lane: Lane, start: float, stop: float, missing: int
    ) -> None:
        """Remember that the archive did not give all that it has, or that now it did."""
        gap = tables.gap.c
        mine = (gap.lane == lane.id, gap.start >= start, gap.start < stop)
        query = select(gap.stop, gap.missing).where(*mine, gap.stop > stop)
        rests = connection.execute(query.order_by(gap.stop.desc())).all()
        connection.execute(delete(tables.gap).where(*mine))
        now = self._clock.time()
        rows = [(lane.id, start, stop, missing, now)] if missing else []
        if rests:
            # Of a gap that reaches further, this was the beginning.
            rows.append((lane.id, stop, rests[0].stop, rests[0].missing, now))
        self._gaps.run(connection, rows)

    def gaps(self, connection: Connection, lane: Lane) -> list[tuple[float, float]]:
        """The times of which the archive has not given the lane all that it has."""
        gap = tables.gap.c
        query = select(gap.start, gap.stop).where(gap.lane == lane.id).order_by(gap.start)
        return [(row.start, row.stop) for row in connection.execute(query)]

    def beat(
        self,
        connection: Connection,
        lane: Lane,
        idents: Iterable[str],
        now: float,
        *,
        is_first: bool,
    ) -> None:
        """Note that live messages have been counted until ``now``, even if there were none.

        Args:
            idents: whose the messages were.
            is_first: not since the last beat, but from ``now`` on.
        """
        row, plugin = tables.lane.c, tables.plugin
        # Nobody has listened since a time that is yet to come: the clock has been put back.
        values: dict[str, Any] = {
            "beat_at": now,
            "live_since": case((row.live_since > now, now), else_=row.live_since),
        }
        if lane.watermark is None:
            self._end_gaps(connection, lane, now)
        if is_first:
            values["live_since"] = now
            last = connection.scalar(select(row.beat_at).where(row.id == lane.id))
            if lane.watermark is None and last is not None and last < now:
                # Nobody will ever give what was sent in between.
                self._gaps.run(connection, [(lane.id, last, now, 0, now)])
        connection.execute(update(tables.lane).where(row.id == lane.id).values(values))
        connection.execute(
            update(plugin)
            .where(
                plugin.c.ident.in_(list(idents)),
                plugin.c.live_since.is_(None) | (plugin.c.live_since > now),
            )
            .values(live_since=now)
        )

    def _end_gaps(self, connection: Connection, lane: Lane, now: float) -> None:
        """See that none reaches into the time to come, as where the clock has been put back."""
        gap = tables.gap.c
        mine = (gap.lane == lane.id, gap.stop > now)
        if connection.execute(select(gap.start).where(*mine).limit(1)).first() is not None:
            connection.execute(delete(tables.gap).where(*mine, gap.start >= now))
            connection.execute(update(tables.gap).where(*mine).values(stop=now))

    def prune(self, connection: Connection, lane: Lane, until: float) -> bool:
        """Replace claims from ``lane.history_start`` to before ``until`` by their sums.

        Gives whether there is more to do: at most 50,000 are pruned at a time.

        Claims of messages that the archive does not have stay, and so do those from before the
        lane's history, for which it was never asked: nothing else could tell that they were
        counted. Those in a gap stay until it is closed: there are many messages to be told apart.
        """
        start = lane.history_start
        if start is None or until <= (lane.claims_pruned_until or start):
            return False
        claim = tables.claim
        mine = [claim.c.lane == lane.id, claim.c.timestamp >= start, claim.c.archived == 1]
        for start, stop in _merged(self.gaps(connection, lane)):
            mine.append(~claim.c.timestamp.between(start - RESTAMPING, stop + RESTAMPING))
        old = select(claim.c.timestamp).where(*mine, claim.c.timestamp < until)
        first = connection.scalar(old.order_by(claim.c.timestamp).limit(1))
        bound = connection.scalar(old.order_by(claim.c.timestamp).offset(_PRUNED_AT_ONCE).limit(1))
        is_more = False
        if first is not None and bound is not None and bound > first:
            until, is_more = bound, True
        rows = connection.execute(
            select(claim.c.identity, claim.c.timestamp).where(*mine, claim.c.timestamp < until)
        ).all()
        self._sum_up(connection, lane, ((bytes(d), t) for d, t in rows))
        connection.execute(delete(claim).where(*mine, claim.c.timestamp < until))
        connection.execute(
            update(tables.lane).where(tables.lane.c.id == lane.id).values(claims_pruned_until=until)
        )
        return is_more

    def _sum_up(
        self, connection: Connection, lane: Lane, claims: Iterable[tuple[bytes, float]]
    ) -> None:
        sums: dict[int, tuple[int, int]] = {}
        for digest, timestamp in claims:
            start = counted_window(timestamp)
            messages, total = sums.get(start, (0, 0))
            sums[start] = (messages + 1, total ^ int.from_bytes(digest))
        self.add_counted(connection, lane, sums)

    def add_counted(
        self, connection: Connection, lane: Lane, sums: dict[int, tuple[int, int]]
    ) -> None:
        """Add to what is remembered of pruned claims: by window, their number and their sum."""
        if not sums:
            return
        known = self.counted(connection, lane, min(sums), max(sums) + 1)
        rows = []
        for start, (messages, total) in sorted(sums.items()):
            before, before_total = known.get(start, (0, 0))
            rows.append((lane.id, start, before + messages, (before_total ^ total).to_bytes(16)))
        self._counted.run(connection, rows)

    def set_counted(
        self,
        connection: Connection,
        lane: Lane,
        start: float,
        stop: float,
        sums: dict[int, tuple[int, int]],
    ) -> None:
        """Replace what is remembered of the pruned claims from start to stop by ``sums``.

        Both are edges of the windows of :data:`COUNTED_WIDTH`; what lies elsewhere is left alone.
        """
        table = tables.claim_checksum.c
        connection.execute(
            delete(tables.claim_checksum).where(
                table.lane == lane.id, table.start >= start, table.start < stop
            )
        )
        inside = {window: sums[window] for window in sums if start <= window < stop}
        self.add_counted(connection, lane, inside)

    def counted(
        self, connection: Connection, lane: Lane, start: float, stop: float
    ) -> dict[int, tuple[int, int]]:
        """The number and the sum of the pruned claims of each window from start to stop."""
        return read_counted(connection, lane, start, stop)


def read_lanes(connection: Connection) -> list[Lane]:
    """All lanes, oldest first; a connection that only reads will do."""
    query = select(*_COLUMNS).order_by(tables.lane.c.id)
    return [_lane(row) for row in connection.execute(query)]


def read_counted(
    connection: Connection, lane: Lane, start: float, stop: float
) -> dict[int, tuple[int, int]]:
    """The same as :meth:`Lanes.counted`; a connection that only reads will do."""
    table = tables.claim_checksum
    query = select(table.c.start, table.c.messages, table.c.checksum).where(
        table.c.lane == lane.id, table.c.start >= counted_window(start), table.c.start < stop
    )
    return {
        row.start: (row.messages, int.from_bytes(bytes(row.checksum)))
        for row in connection.execute(query)
    }


def new_batch() -> int:
    """A random number, larger than 0, that names a transaction's claims."""
    return secrets.randbits(62) + 1


def counted_window(timestamp: float) -> int:
    """The start of the window for which the claims of this time are summed up."""
    return int(timestamp) // COUNTED_WIDTH * COUNTED_WIDTH


def claim_digest(identity: str) -> bytes:
    """The 16 bytes under which a message is claimed."""
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def content_digests(message: Message) -> Iterator[bytes]:
    """Under what the message would have been claimed had it come without id.

    The digest of the content has the time in whole seconds, and the archive may have restamped
    the message: the seconds beside its own are tried as well.
    """
    for shift in (0, -1, 1):
        yield claim_digest(message.digest_at(int(message.timestamp) + shift))


def match_contents(
    archived: Sequence[Message], anonymous: Iterable[bytes]
) -> list[tuple[Message, bytes]]:
    """Which messages of the archive were counted without id, under which of these digests.

    Each at most once. Those of the same second first: a sender may say the same every second.
    """
    left = set(anonymous)
    found: dict[Message, bytes] = {}
    for digests in (_own_second, content_digests):
        for message in archived:
            if not left:
                break
            if message not in found:
                digest = next((d for d in digests(message) if d in left), None)
                if digest is not None:
                    left.discard(digest)
                    found[message] = digest
    return list(found.items())


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Few spans, in order, that cover all of ``spans``: a query cannot have any number of them."""
    merged: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    while len(merged) > _MOST_SPANS:
        # What lies between two is kept for longer than it must be.
        pairs = [merged[number : number + 2] for number in range(0, len(merged), 2)]
        merged = [(pair[0][0], pair[-1][1]) for pair in pairs]
    return merged


def _own_second(message: Message) -> Iterator[bytes]:
    yield claim_digest(message.digest)


def _lease(lane: Lane) -> float:
    return _LEASE_OF_ORDERED if lane.ordered else _LEASE


def _lane(row: Any) -> Lane:
    values = dict(row._mapping)
    return Lane(**values | {"ordered": bool(values["ordered"])})


def _row(lane: Lane) -> dict[str, Any]:
    values = {name: getattr(lane, name) for name in Lane.__dataclass_fields__}
    return values | {"ordered": int(lane.ordered), "messages": 0, "batches": 0}


def _anonymous(lane: Lane, start: float, stop: float) -> tuple[Any, ...]:
    claim = tables.claim.c
    return (
        claim.lane == lane.id,
        claim.anonymous == 1,
        claim.timestamp >= start - RESTAMPING,
        claim.timestamp <= stop + RESTAMPING,
    )


def _slices(items: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
