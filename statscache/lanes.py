"""Lanes: sets of plugins that share a checkpoint, and which messages each has counted.

A lane remembers the messages that it has counted by *claims*. Behind its watermark everything has
been reconciled with the archive, so that claims which are older than what is asked for again are
pruned; a sum of each quarter of an hour is kept, with which a message that arrives later still can
be told from one that was counted (see :mod:`statscache.late`).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, delete, except_, func, insert, literal, select, update

from statscache import tables
from statscache.message import Message
from statscache.upsert import Upsert

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
_SHORTEST_BACKOFF = 5.0
_LONGEST_BACKOFF = 600.0
_LEASE = 60.0
_LOCK = 0x57A75CAC
"""The advisory lock of PostgreSQL under which lanes change."""


@dataclass(frozen=True)
class Lane:
    """A lane as it was when it was read; times are UNIX seconds.

    Attributes:
        joins: the name of the lane that it joins when it has caught up.
        ordered: whether its plugins want history before live messages.
        since: where its history begins; None where there is no archive.
        watermark: everything from ``since`` to here has been reconciled with the archive.
        horizon: claims of messages from ``since`` to here have been pruned.
        retry_at: nothing is counted before this time, because the last try failed.
        generation: in the main lane, of the membership of all lanes.
    """

    id: int
    name: str
    joins: str | None = None
    ordered: bool = False
    since: float | None = None
    watermark: float | None = None
    horizon: float | None = None
    retry_at: float | None = None
    failures: int = 0
    generation: int = 0

    def is_late(self, message: Message) -> bool:
        """Whether claims cannot tell any more if ``message``, from the bus, was counted.

        Either the claims of its time are pruned, or it has no id, and the archive, which has been
        asked for its time, would have given it an id of its own invention.
        """
        since, watermark, horizon = self.since, self.watermark, self.horizon
        if since is None or watermark is None or message.timestamp < since:
            return False
        if horizon is not None and message.timestamp < horizon:
            return True
        return not message.has_own_id and message.timestamp < watermark + RESTAMPING


_COLUMNS = [tables.lane.c[name] for name in Lane.__dataclass_fields__]


class Lanes:
    """Claims messages for lanes and moves their checkpoints, inside the engine's transaction."""

    def __init__(self, backend: str) -> None:
        self._insert = Upsert(tables.claim, backend, {})
        self._counted = Upsert(
            tables.counted,
            backend,
            {
                "messages": lambda old, new: new["messages"],
                "digest": lambda old, new: new["digest"],
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
        number = max((lane.id for lane in known.values()), default=0) + 1
        lane = Lane(number, name, **values)
        connection.execute(insert(tables.lane).values(_row(lane)))
        self.touch(connection)
        return lane

    def generation(self, connection: Connection) -> int:
        """A number that changes whenever lanes, or their plugins, do."""
        query = select(tables.lane.c.generation).where(tables.lane.c.id == 1)
        return int(connection.scalar(query) or 0)

    def forget(self, connection: Connection, lane: Lane, start: float) -> None:
        """Set a lane back to a time, as if nothing from then on had been counted."""
        mine = (tables.claim.c.lane == lane.id, tables.claim.c.timestamp >= start)
        connection.execute(delete(tables.claim).where(*mine))
        row = tables.lane.c
        connection.execute(
            update(tables.lane)
            .where(row.id == lane.id)
            .values(watermark=start, horizon=case((row.horizon > start, start), else_=row.horizon))
        )

    def touch(self, connection: Connection) -> None:
        """Let all processes notice that lanes, or their plugins, have changed."""
        column = tables.lane.c.generation
        connection.execute(
            update(tables.lane).where(tables.lane.c.id == 1).values(generation=column + 1)
        )

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
            since=lane.since,
            watermark=lane.watermark,
            horizon=lane.horizon,
        )
        for table in (tables.claim, tables.counted):
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
        for table in (tables.claim, tables.counted, tables.late, tables.gap):
            connection.execute(delete(table).where(table.c.lane == lane.id))
        connection.execute(delete(tables.lane).where(tables.lane.c.id == lane.id))
        self.touch(connection)

    def replace(self, connection: Connection, home: Lane, lane: Lane) -> Lane:
        """Let ``lane`` take the name of ``home``, which nobody is in; gives the lane that is home.

        The lane 1 stays what it is, because the generation is kept in it: it takes over what
        ``lane`` remembers.
        """
        for table in (tables.claim, tables.counted, tables.late, tables.gap):
            connection.execute(delete(table).where(table.c.lane == home.id))
            connection.execute(update(table).where(table.c.lane == lane.id).values(lane=home.id))
        connection.execute(
            update(tables.lane)
            .where(tables.lane.c.id == home.id)
            .values(since=lane.since, watermark=lane.watermark, horizon=lane.horizon)
        )
        self.remove(connection, lane)
        return home

    def share(self, connection: Connection) -> None:
        """Keep lanes and their plugins as they are, until the end of the transaction."""
        if self._is_postgresql:
            connection.execute(select(func.pg_advisory_xact_lock_shared(_LOCK)))

    def exclude(self, connection: Connection) -> None:
        """Let no other process count, until the end of the transaction."""
        if self._is_postgresql:
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))

    def can_join(self, connection: Connection, lane: Lane, other: Lane) -> bool:
        """Whether both have counted the same, of what they still remember by claims."""
        if lane.watermark is None or lane.watermark != other.watermark:
            return False
        if connection.scalar(
            select(func.count()).select_from(tables.late).where(tables.late.c.lane == lane.id)
        ):
            return False
        since = max(lane.horizon or 0.0, other.horizon or 0.0) + 3 * RESTAMPING

        def remembered(number: int, since: float) -> Any:
            return select(tables.claim.c.identity).where(
                tables.claim.c.lane == number, tables.claim.c.timestamp >= since
            )

        for first, second in ((lane.id, other.id), (other.id, lane.id)):
            # The copies that the two have counted may have been stamped differently.
            difference = except_(
                remembered(first, since), remembered(second, since - 2 * RESTAMPING)
            ).limit(1)
            if connection.execute(difference).first() is not None:
                return False
        return True

    def lease(self, connection: Connection, lane: Lane, owner: str) -> bool:
        """Whether ``owner`` may fill in the history of ``lane`` now, alone for a minute."""
        row = tables.lane.c
        now = time.time()
        taken = connection.execute(
            update(tables.lane)
            .where(
                row.id == lane.id,
                (row.leased_by.is_(None)) | (row.leased_by == owner) | (row.leased_until < now),
            )
            .values(leased_by=owner, leased_until=now + _LEASE)
        )
        return taken.rowcount == 1

    # What each has counted.

    def claim(
        self, connection: Connection, lane: Lane, messages: Sequence[Message], batch: int
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
            (lane.id, digest, message.timestamp, batch, 0 if message.has_own_id else 1)
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
        renamed = self._renamed(connection, lane, messages)
        claim = tables.claim
        for message, digest in renamed:
            mine = (claim.c.lane == lane.id) & (claim.c.identity == digest)
            connection.execute(
                update(claim)
                .where(mine, ~_is_claimed(lane, claim_digest(message.identity)))
                .values(identity=claim_digest(message.identity), anonymous=0)
            )
        return self.claim(connection, lane, messages, batch)

    def claim_partial(
        self,
        connection: Connection,
        lane: Lane,
        digests: Sequence[tuple[bytes, float]],
        batch: int,
    ) -> bool:
        """Claim messages that were folded elsewhere: all of them, or, giving False, none.

        The caller has seen that the lane has no anonymous claims.
        """
        rows = [(lane.id, digest, timestamp, batch, 0) for digest, timestamp in sorted(digests)]
        with connection.begin_nested() as savepoint:
            if self._insert.run(connection, rows) == len(rows):
                return True
            savepoint.rollback()
        return False

    def has_anonymous(self, connection: Connection, lane: Lane, start: float, stop: float) -> bool:
        """Whether the lane has counted messages without id of about this time."""
        query = select(tables.claim.c.identity).where(*_anonymous(lane, start, stop)).limit(1)
        return connection.execute(query).first() is not None

    def _renamed(
        self, connection: Connection, lane: Lane, messages: Sequence[Message]
    ) -> list[tuple[Message, bytes]]:
        """Those that were counted without an id, with the digests under which they were."""
        if not messages:
            return []
        query = select(tables.claim.c.identity).where(
            *_anonymous(lane, messages[0].timestamp, messages[-1].timestamp)
        )
        anonymous = {bytes(digest) for digest in connection.scalars(query)}
        if not anonymous:
            return []
        found = []
        for message in messages:
            for digest in content_digests(message):
                if digest in anonymous and message.has_own_id:
                    anonymous.discard(digest)
                    found.append((message, digest))
                    break
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
            "committed_at": time.time(),
        }
        if newest is not None:
            values["newest"] = case((row.newest > newest, row.newest), else_=newest)
        if watermark is not None:
            values["watermark"] = case((row.watermark > watermark, row.watermark), else_=watermark)
        if lane.failures:
            values |= {"failures": 0, "retry_at": None}
        connection.execute(update(tables.lane).where(row.id == lane.id).values(values))
        if lane.failures:
            self.touch(connection)

    def back_off(self, connection: Connection, lane: Lane) -> float:
        """Let a lane that failed rest, longer each time; gives the seconds."""
        pause = min(_SHORTEST_BACKOFF * 2.0**lane.failures, _LONGEST_BACKOFF)
        connection.execute(
            update(tables.lane)
            .where(tables.lane.c.id == lane.id)
            .values(failures=lane.failures + 1, retry_at=time.time() + pause)
        )
        self.touch(connection)
        return pause

    def note_gap(
        self, connection: Connection, lane: Lane, start: float, stop: float, missing: int
    ) -> None:
        """Remember that the archive did not give all that it has, or that now it did."""
        gap = tables.gap
        connection.execute(
            delete(gap).where(gap.c.lane == lane.id, gap.c.start >= start, gap.c.stop <= stop)
        )
        if missing:
            connection.execute(
                insert(gap).values(
                    lane=lane.id, start=start, stop=stop, missing=missing, noticed_at=time.time()
                )
            )

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
        row, plugin, gap = tables.lane.c, tables.plugin, tables.gap
        values = {"beat_at": now}
        if is_first:
            values["live_since"] = now
            last = connection.scalar(select(row.beat_at).where(row.id == lane.id))
            if lane.watermark is None and last is not None and last < now:
                # Nobody will ever give what was sent in between.
                connection.execute(
                    insert(gap).values(
                        lane=lane.id, start=last, stop=now, missing=0, noticed_at=now
                    )
                )
        connection.execute(update(tables.lane).where(row.id == lane.id).values(values))
        connection.execute(
            update(plugin)
            .where(plugin.c.ident.in_(list(idents)), plugin.c.live_since.is_(None))
            .values(live_since=now)
        )

    def prune(self, connection: Connection, lane: Lane, until: float) -> bool:
        """Replace claims from ``lane.since`` to before ``until`` by their sums.

        Gives whether there is more to do.

        Claims of messages from before the lane's history stay: the archive was never asked for
        them, so nothing else could tell that they were counted. At most 50,000 are pruned at a
        time.
        """
        if lane.since is None or until <= (lane.horizon or lane.since):
            return False
        claim = tables.claim
        mine = (claim.c.lane == lane.id, claim.c.timestamp >= lane.since)
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
            update(tables.lane).where(tables.lane.c.id == lane.id).values(horizon=until)
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

    def counted(
        self, connection: Connection, lane: Lane, start: float, stop: float
    ) -> dict[int, tuple[int, int]]:
        """The number and the sum of the pruned claims of each window from start to stop."""
        table = tables.counted
        query = select(table.c.start, table.c.messages, table.c.digest).where(
            table.c.lane == lane.id, table.c.start >= counted_window(start), table.c.start < stop
        )
        return {
            row.start: (row.messages, int.from_bytes(bytes(row.digest)))
            for row in connection.execute(query)
        }


def read_lanes(connection: Connection) -> list[Lane]:
    """All lanes, oldest first; a connection that only reads will do."""
    query = select(*_COLUMNS).order_by(tables.lane.c.id)
    return [_lane(row) for row in connection.execute(query)]


def new_batch() -> int:
    """A random number that names a transaction's claims."""
    return secrets.randbits(62)


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


def _is_claimed(lane: Lane, digest: bytes) -> Any:
    other = tables.claim.alias()
    return (
        select(other.c.identity).where(other.c.lane == lane.id, other.c.identity == digest).exists()
    )


def _slices(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
