"""The engine: it counts one batch of messages in one transaction.

For each lane: claim the messages that were not counted before, fold them, upsert the rows, advance
the checkpoint. All of it is committed, or none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, delete, insert
from sqlalchemy.exc import DBAPIError

from statscache.archive.base import Slice
from statscache.clock import SYSTEM, Clock
from statscache.config import REJECTED_BYTES, TOLERATED_LOSS, Settings
from statscache.counting import replayed
from statscache.counting.classic.live_buffer import Held
from statscache.counting.folded import Folded
from statscache.counting.lane_plugins import Crew, Written, written_by
from statscache.counting.lanes import leases
from statscache.counting.lanes.checkpoints import advance, beat, rewind
from statscache.counting.lanes.checksums import checksum_window, prune_claims
from statscache.counting.lanes.claims import Claimed, claim, claim_folded
from statscache.counting.lanes.digests import claim_digest
from statscache.counting.lanes.gaps import note_gap
from statscache.counting.lanes.lane import (
    MAIN,
    PERMANENT,
    Lane,
    newest_message,
    read_lane,
    read_lanes,
)
from statscache.counting.lanes.lanes import Lanes
from statscache.counting.membership import Membership
from statscache.counting.plugin_rows import PluginRows
from statscache.counting.quarantine import Quarantine
from statscache.counting.rejections import RejectionLog, forget
from statscache.counting.retention import Retention
from statscache.counting.shadows import Shadows
from statscache.database import migrations, schema, tables
from statscache.database.announcements import announce
from statscache.database.connection import Database
from statscache.database.failures import is_unavailable
from statscache.database.upsert import Upsert
from statscache.errors import DatabaseUnavailable, InvalidMessage, PluginFault, described
from statscache.isolation.blame import blames_plugin
from statscache.isolation.lost_connections import LostConnections
from statscache.isolation.time_limit import TimeLimit
from statscache.logs.recurring import Recurring
from statscache.message import TIMESTAMP_TOLERANCE, Message, decode
from statscache.people import people_of
from statscache.plugins.bundled import BUNDLED_DISTRIBUTION
from statscache.plugins.discovery import Installed
from statscache.rejection import LONGEST_CONTENT, SIGNATURE, Rejection

log = logging.getLogger(__name__)

_PRUNING_SLACK = 60.0
"""Seconds by which claims outlive what the archive is asked for: copies are restamped."""

BEAT_EVERY = 10.0
"""Seconds between two notes of the hub that it listens."""


@dataclass
class Outcome:
    """What became of a batch."""

    counted: int = 0
    duplicates: int = 0
    late: int = 0
    """Messages so old that the archive must tell whether they were counted; they wait."""
    rejections: list[Rejection] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)
    """Ident to error of the plugins whose rows of this batch could not be written."""
    changed: set[str] = field(default_factory=set)
    """The idents whose rows changed."""
    span: tuple[float, float] | None = None
    """The first and the last time of the messages, UNIX seconds; None where there are none."""
    lanes: dict[str, int] = field(default_factory=dict)
    """Name of a lane to the messages that it counted, of those that came live or from a file."""


_REST = 20
"""A plugin that was too slow rests for so many times as long as it took."""


P = ParamSpec("P")
T = TypeVar("T")


def _without_the_guilty(
    method: Callable[Concatenate[Engine, P], T],
) -> Callable[Concatenate[Engine, P], T]:
    """Call ``method`` again when a plugin was quarantined: nothing was committed."""

    @wraps(method)
    def call(engine: Engine, /, *arguments: P.args, **more: P.kwargs) -> T:
        while True:
            try:
                return method(engine, *arguments, **more)
            except PluginFault:
                continue

    return call


class Engine:
    """Counts messages for all the installed plugins.

    Any thread may use it; they take turns.

    Args:
        database: to write to.
        installed: the plugins.
        retention: schedule to the age at which rows of that resolution are deleted; it overrides
            what the plugins declare; an age of None: never.
        epoch: how far back history goes; None: as far as the archive does.
        has_history: whether there is an archive that gives what was missed.
        rejected_bytes: how much is kept of what cannot be counted.
        time_limit: how long a plugin may take for a batch, while a thread runs
            :meth:`TimeLimit.enforce <statscache.isolation.time_limit.TimeLimit.enforce>`.
        clock: of the engine, and of all that works with it.
    """

    def __init__(
        self,
        database: Database,
        installed: Installed,
        retention: Mapping[str, timedelta | None] | None = None,
        epoch: datetime | None = None,
        *,
        has_history: bool = False,
        rejected_bytes: int = REJECTED_BYTES,
        time_limit: timedelta | None = None,
        tolerated_loss: float = TOLERATED_LOSS,
        clock: Clock = SYSTEM,
    ) -> None:
        self.clock = clock
        self.database = database
        self.installed = installed
        self.has_history = has_history
        self.tolerated_loss = tolerated_loss
        backend = database.backend
        self.lanes = Lanes(backend, clock)
        self.time_limit = TimeLimit(time_limit, clock)
        self._lost_connections = LostConnections(clock)
        self.plugin_rows = PluginRows(self.lanes)
        self.shadows = Shadows(self.lanes, self.plugin_rows, clock)
        self._quarantine = Quarantine(installed, self.lanes, self.plugin_rows, clock)
        self._retention = Retention(installed, retention or {}, self.plugin_rows, clock)
        self.membership = Membership(
            installed,
            self.lanes,
            self.plugin_rows,
            self.shadows,
            self._quarantine,
            epoch,
            has_history=has_history,
            time_limit=self.time_limit,
            lost_connections=self._lost_connections,
            clock=clock,
        )
        self._rejections = RejectionLog(backend, rejected_bytes, clock)
        self._late = Upsert(tables.late, backend, {})
        self._revisions = Upsert(
            tables.revision,
            backend,
            {
                "revision": lambda old, new: old["revision"] + new["revision"],
                "changed_at": lambda old, new: new["changed_at"],
            },
        )
        self.uri = database.uri
        self._crews: dict[int, Crew] = {}
        self._membership_version = -1
        self._turn = threading.RLock()
        self._is_busy = False
        self._is_alone = False
        self._is_ending = False
        self.is_open = False
        self._connection: Connection | None = None
        # The idents whose rows the transaction in hand has changed.
        self._revised: set[str] = set()
        # Ordered lanes: which take live messages, and what is held for those that do not yet.
        self._flowing: set[int] = set()
        self._held: dict[int, Held] = {}
        # The lanes that have been given all live messages since the last beat.
        self._beating: set[int] = set()
        # The plugins that could not write when they last tried.
        self._failures: dict[tuple[str, ...], Recurring] = {}

    @classmethod
    def from_settings(cls, settings: Settings, installed: Installed) -> Engine:
        """An engine on the configured database."""
        return cls(
            Database(settings.uri),
            installed,
            settings.retention,
            settings.epoch,
            has_history=settings.has_archive,
            rejected_bytes=settings.rejected_bytes,
            time_limit=settings.plugin_time_limit,
            tolerated_loss=settings.tolerated_loss,
        )

    @_without_the_guilty
    def open(self) -> None:
        """Check the schema, create what third-party plugins lack, and give each its lane.

        Raises:
            SchemaError: the schema is not the one of this version.
            DatabaseUnavailable: nothing has been done yet; call it again later.
        """
        schema.check(self.database)
        others = [
            dataset.model.__table__
            for dataset in self.installed.datasets.values()
            if dataset.source.distribution != BUNDLED_DISTRIBUTION
        ]
        self._lost_connections.begin_transaction()
        try:
            with self.database.begin() as connection:
                # Another hub may be starting too.
                self.lanes.exclude(connection)
                for name in schema.create_missing(connection, others):
                    log.info("created the table %s", name)
                self.membership.settle(connection)
                self._forget_hidden(connection)
        except BaseException as error:
            fault = self._give_up(error)
            if fault is None:
                raise
            # It has no lane yet out of which it could be taken.
            log.error("%s: %s", ", ".join(fault.idents), fault)
            self.membership.assume_no_rows(fault.idents)
            raise fault from error
        with self.transaction() as connection:
            for crew in self._crews.values():
                for runner in crew.runners:
                    with self._lost_connections.turn(connection, (runner.ident,), 0):
                        runner.launch(connection)
        self.join_complete()
        self.is_open = True
        log.info("the schema of the database is %s", migrations.HEAD)

    def close(self) -> None:
        """Stop the plugins and close the connections."""
        for runner in self.membership.runners.values():
            runner.stop()
        self.time_limit.end()
        self.database.dispose()

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[Connection]:
        """A transaction in which lanes and their plugins stay as they are; others take turns.

        ``alone``: no other process counts meanwhile, so that lanes may be changed.

        Raises:
            DatabaseUnavailable: nothing of it was committed.
            PluginFault: the same; the plugin that is to blame has been quarantined.
            RuntimeError: there is one in this thread already.
        """
        with self._turn:
            try:
                with self._transaction(alone=alone) as connection:
                    yield connection
            except BaseException as error:
                fault = self._give_up(error)
                if fault is None:
                    raise
                self.quarantine(fault)
                raise fault from error
            for runner in self.membership.runners.values():
                runner.commit()

    @contextmanager
    def _transaction(self, *, alone: bool) -> Iterator[Connection]:
        if self._is_busy:
            raise RuntimeError("a transaction of the engine cannot begin inside another one")
        self._is_busy = True
        self._revised.clear()
        self._lost_connections.begin_transaction()
        try:
            with self.database.begin() as connection:
                self._connection = connection
                if alone:
                    self.lanes.exclude(connection)
                else:
                    self.lanes.share(connection)
                # A writer of SQLite always is.
                self._is_alone = alone or self.database.backend == "sqlite"
                self._sync(connection)
                yield connection
                if connection.in_transaction():
                    announce(connection, self._revised)
        finally:
            self._is_busy = False
            self._connection = None

    def _give_up(self, error: BaseException) -> PluginFault | None:
        """Forget what a failed transaction did; gives whose fault it is."""
        fault = self._fault(error)
        for runner in self.membership.runners.values():
            runner.roll_back()
        return fault

    def _fault(self, error: BaseException) -> PluginFault | None:
        """Whose fault an exception is that a transaction has ended with."""
        if isinstance(error, PluginFault):
            return error
        # What follows on a connection that was given up hides the cause.
        faults = (runner.fault for runner in self.membership.runners.values())
        fault = next((fault for fault in faults if fault is not None), None)
        if fault is None and isinstance(error, DatabaseUnavailable):
            return self._lost_connections.judge(error)
        return fault

    def quarantine(self, fault: PluginFault) -> None:
        """Let a plugin that spoilt a transaction rest in a lane of its own.

        Raises:
            DatabaseUnavailable: nothing has happened.
        """
        log.error("%s: %s", ", ".join(fault.idents), fault)
        # So that it cannot take much of the time of all, whatever it does.
        rest = fault.seconds * _REST
        with self._turn, self._transaction(alone=True) as connection:
            for lane in read_lanes(connection):
                crew = self._crews.get(lane.id)
                idents = [i for i in crew.idents if i in fault.idents] if crew is not None else []
                if crew is None or not idents:
                    continue
                if lane.name in PERMANENT or len(idents) < len(crew.idents):
                    self._quarantine.isolate(connection, lane, tuple(idents), str(fault), (), rest)
                else:
                    self._quarantine.note_failure(connection, idents, str(fault), 0)
                    self._rest(connection, lane, rest)

    def abandon(self) -> None:
        """Give up the transaction of a thread that never comes back; from any other one.

        The database rolls it back, and whoever waits for its locks goes on.
        """
        connection = self._connection
        if connection is not None:
            raw: Any = connection.connection.dbapi_connection
            raw.fence = None
            raw.close()

    def crew(self, lane: Lane) -> Crew | None:
        """The plugins of a lane, as of the last transaction; None when it has none."""
        return self._crews.get(lane.id)

    @_without_the_guilty
    def count(self, messages: Sequence[Message], rejections: Iterable[Rejection] = ()) -> Outcome:
        """Count those of ``messages`` that were not counted before, and keep the rejections.

        For messages of the bus, or of a file that somebody replays.

        Raises:
            DatabaseUnavailable: nothing of this was committed; the same call may be made again.
        """
        try:
            with self.transaction() as connection:
                return self._count(connection, messages, rejections)
        except _MustBeAlone:
            # From the beginning: two that waited for each other to leave would dead-lock.
            with self.transaction(alone=True) as connection:
                return self._count(connection, messages, rejections)

    def cover(self, start: float, stop: float) -> None:
        """Note that a file had all messages from ``start`` to ``stop``, which have been counted.

        Raises:
            DatabaseUnavailable: nothing was noted; the same call may be made again.
        """
        with self.transaction(alone=True) as connection:
            idents: list[str] = []
            for lane in read_lanes(connection):
                crew = self._crews.get(lane.id)
                if crew is not None and not self._rests(lane):
                    idents += crew.served
            failing = self._quarantine.failing(idents)
            replayed.note(connection, {*idents} - {*failing}, start, stop)

    @_without_the_guilty
    def count_slice(self, lanes: Iterable[int], piece: Slice, *, is_last: bool = False) -> Outcome:
        """Count what the archive has of a time, for those of ``lanes`` that have come so far.

        Args:
            lanes: the numbers of lanes.
            piece: of the archive, under all the topics that the plugins of the lanes want.
            is_last: nothing older than now is missing after it: classic plugins that waited for
                their history get the live messages that were held for them, and all that follow.

        Raises:
            DatabaseUnavailable: nothing of this was committed; the same call may be made again.
        """
        outcome = Outcome(rejections=list(piece.rejected))
        window = piece.window
        flowing: list[int] = []
        # Alone: another process may be counting a message without id, which the archive has under
        # one, and until that is committed nobody can tell.
        with self.transaction(alone=True) as connection:
            for lane in read_lanes(connection):
                crew = self._crews.get(lane.id)
                if lane.id not in lanes or crew is None or not self._reaches(lane, window.start):
                    continue
                if lane.ordered and not leases.is_ours(lane):
                    continue  # its plugins remember things, in the process that runs them
                live: Sequence[Message] = ()
                begins = is_last and lane.ordered and self._waits(lane)
                if begins:
                    held = list(self._held.get(lane.id, ()))
                    live = [m for m in held if not lane.is_late(m)]
                    self.put_aside(connection, lane, [m for m in held if lane.is_late(m)])
                is_settled = self._count_archived(connection, lane, crew, piece, live, outcome)
                if begins and is_settled:
                    flowing.append(lane.id)
            self._finish(connection, outcome)
        for number in flowing:
            self._flowing.add(number)
            self._held.pop(number, None)
        return outcome

    def count_folded(self, number: int, folded: Folded) -> bool:
        """Count a slice that was folded elsewhere; gives False if it must be folded here.

        That is so when the lane has counted some of its messages before: a partial aggregate does
        not tell which part of it is whose.

        Raises:
            DatabaseUnavailable: nothing of this was committed; the same call may be made again.
        """
        window = folded.window
        outcome = Outcome()
        with self.transaction(alone=True) as connection:
            lane = read_lane(connection, number)
            crew = self._crews.get(number)
            if lane is None or crew is None or not self._reaches(lane, window.start):
                return False
            if crew.idents != folded.idents or crew.runners:
                return False
            claimed = claim_folded(connection, lane, folded.digests, window.start, window.stop)
            if claimed is None:
                return False
            written = Written()
            size, rejections = len(folded.digests), folded.rejections
            crew.write(connection, folded.partials, written, size)
            if not self._settle(
                connection, lane, crew, written, claimed.batches, rejections, size, outcome
            ):
                # Counted here, it fails again, and then it is dealt with.
                connection.rollback()
                return False
            newest = max((timestamp for _, timestamp, _ in folded.digests), default=None)
            advance(connection, lane, len(folded.digests), newest, self.clock.time(), window.stop)
            note_gap(connection, lane, window.start, window.stop, folded.missing, self.clock.time())
            self._finish(connection, outcome)
        return True

    def count_late(
        self,
        connection: Connection,
        lane: Lane,
        fresh: Sequence[Message],
        archived: Sequence[Message],
        rejections: Iterable[Rejection] = (),
    ) -> bool:
        """Count what was put aside and turned out to be new; other processes do not count now.

        Gives False if nobody in the lane could write it: then nothing has happened.

        Args:
            fresh: messages that the archive does not have.
            archived: the archive's copies of the others.
        """
        crew = self._crews.get(lane.id)
        if crew is None:
            return False
        outcome = Outcome(rejections=list(rejections))
        with connection.begin_nested() as savepoint:
            claimed = claim(connection, lane, fresh, archived)
            is_settled = self._write(connection, lane, crew, claimed, None, outcome)
            if is_settled:
                new = claimed.messages
                advance(connection, lane, len(new), _newest(new), self.clock.time())
            else:
                savepoint.rollback()
        if not is_settled:
            self._rest(connection, lane)
            return False
        self._finish(connection, outcome)
        return True

    @_without_the_guilty
    def count_gap(self, number: int, piece: Slice) -> bool:
        """Count what the archive gives now of a gap; False if that is not all of it either.

        Claims in a gap are not pruned, so that they tell what was counted.

        Args:
            number: of a lane that has noted the gap.
            piece: all that the archive has of the time of the gap, or of its beginning.

        Raises:
            DatabaseUnavailable: nothing of this was committed; the same call may be made again.
        """
        outcome = Outcome(rejections=list(piece.rejected))
        with self.transaction(alone=True) as connection:
            lane = read_lane(connection, number)
            crew = self._crews.get(number)
            if lane is None or crew is None or self._rests(lane):
                return False
            if lane.watermark is None or lane.watermark < piece.window.start:
                return False
            is_settled = self._count_archived(connection, lane, crew, piece, (), outcome)
            self._finish(connection, outcome)
        return is_settled and not piece.missing

    def retry(
        self, digest: str, refusal: Callable[[dict[str, Any]], str | None] | None = None
    ) -> str | None:
        """Try again to count what was rejected; gives why that cannot be, or None.

        What is no message for anybody is decoded and counted as if it came now. A message that a
        plugin could not take is counted for that plugin alone: it is claimed already. Either way
        the rejection is deleted in the same transaction, so that nothing is counted twice however
        often it is tried. None as well when the rejection is not there (any more).

        Args:
            digest: of the row of :data:`statscache.database.tables.rejected`.
            refusal: says of a fedmsg dict why its signature is refused, or None. Without it nothing
                is counted that was refused for its signature.

        Raises:
            DatabaseUnavailable: nothing has happened.
        """
        with self.transaction(alone=True) as connection:
            row = self._rejections.find(connection, digest)
            if row is None:
                return None
            if len(row.content) >= LONGEST_CONTENT:
                return (
                    f"only the first {LONGEST_CONTENT:,} characters of it were kept: what the "
                    "archive has of it can be counted by 'statscache rebuild'"
                )
            left: str = row.plugin
            reason: str | None
            try:
                message = decode(row.content)
            except InvalidMessage as error:
                reason = str(error)
            else:
                reason = None
                if row.reason.startswith(f"{SIGNATURE}:"):
                    reason = row.reason if refusal is None else refusal(message.raw)
                if reason is None:
                    left, reason = self._count_rejected(connection, row.plugin, message)
            if reason is None:
                self._rejections.done(connection, digest)
            else:
                self._rejections.again(connection, digest, left, reason)
            return reason

    def prune_claims(self, overlap: float) -> None:
        """Forget the claims of messages that the archive will not be asked for again."""
        is_more = True
        while is_more:
            is_more = False
            with self.transaction(alone=True) as connection:
                for lane in read_lanes(connection):
                    if lane.watermark is not None and lane.id in self._crews:
                        until = lane.watermark - overlap - _PRUNING_SLACK
                        is_more |= prune_claims(connection, lane, until)

    def flow(self) -> None:
        """Let live messages through to classic plugins, though their history is not there.

        For when the archive cannot be asked; :meth:`rewind` puts it right later.
        """
        for number in list(self._crews):
            if self._crews[number].runners and number not in self._flowing:
                self._flowing.add(number)
                try:
                    self.count(list(self._held.get(number, ())))
                except BaseException:
                    self._flowing.discard(number)
                    raise
                self._held.pop(number, None)

    def rewind(self, number: int) -> None:
        """Take back what classic plugins of a lane wrote without their history."""
        with self.transaction(alone=True) as connection:
            lane = next(lane for lane in read_lanes(connection) if lane.id == number)
            crew = self._crews[number]
            start = _rewound(lane, crew)
            for runner, since in zip(crew.runners, crew.sinces_of_runners, strict=True):
                first = max(start, since or 0.0)
                try:
                    with (
                        self._lost_connections.turn(connection, (runner.ident,), 0),
                        connection.begin_nested(),
                    ):
                        runner.revert(connection, first)
                except BaseException as error:
                    if not blames_plugin(error):
                        raise
                    log.exception("%s cannot take back its rows: they stay", runner.ident)
                    text = described(error)
                    self._quarantine.isolate(connection, lane, (runner.ident,), text, ())
                else:
                    forget(connection, runner.ident, first)
            self.note_changes(connection, [runner.ident for runner in crew.runners])
            rewind(connection, lane, start)
            replayed.forget(connection, crew.idents, start)
        self._flowing.discard(number)

    def beat(self, now: float) -> None:
        """Note that all live messages until ``now`` have been counted, even if there were none.

        Only so can readers tell that nothing happened from that nobody listened.

        Raises:
            DatabaseUnavailable: the same call may be made again.
        """
        with self.transaction() as connection:
            beating = set()
            for lane in read_lanes(connection):
                crew = self._crews.get(lane.id)
                if crew is None or lane.retry_at is not None:
                    continue
                if lane.ordered and self._waits(lane):
                    continue
                is_first = lane.id not in self._beating
                beat(connection, lane, crew.idents, now, is_first=is_first)
                beating.add(lane.id)
            if not self._is_ending:
                connection.execute(delete(tables.hub_failure))
        self._beating = beating

    def note_end(self, reason: str) -> None:
        """Let whoever asks the API know why this process ends, until one of them listens again.

        Whatever its other threads are at: it does not wait for its turn.

        Raises:
            DatabaseUnavailable: nobody will know.
        """
        self._is_ending = True
        with self.database.begin() as connection:
            connection.execute(delete(tables.hub_failure))
            connection.execute(
                insert(tables.hub_failure).values(id=1, failed_at=self.clock.time(), reason=reason)
            )

    def waits(self, number: int) -> bool:
        """Whether the classic plugins of a lane get no live messages yet."""
        return number in self._crews and bool(
            self._crews[number].runners and number not in self._flowing
        )

    def join(self, number: int) -> list[str]:
        """Let a lane join the one that it is meant for, if both have counted the same.

        What the plugins of the lane rejected, and are held for, is tried again before. Gives the
        idents that joined: none, if they did not.
        """
        self._retry_held(number)
        with self.transaction(alone=True) as connection:
            lanes = {lane.id: lane for lane in read_lanes(connection)}
            lane = lanes.get(number)
            if lane is None or lane.joins is None or lane.retry_at is not None:
                return []
            home = next((other for other in lanes.values() if other.name == lane.joins), None)
            if home is None or self._crews.get(lane.id) is None:
                return []
            if self.plugin_rows.has_members(connection, home):
                may_lack = self.shadows.is_forced(connection, lane)
                if not self.lanes.can_join(connection, lane, home, may_lack=may_lack):
                    return []
            elif not self.lanes.can_replace(connection, lane, home):
                return []
            held = self.shadows.hold(connection, lane)
            if held is not None and held.id == lane.id:
                return []
            shadows = {*self._crews[lane.id].idents} - {*self._crews[lane.id].served}
            joined = self.membership.join(connection, lane, home)
            # The rows of the others are as they were: one that never had any still has not.
            self.note_changes(connection, shadows.intersection(joined))
        log.info("complete: %s", ", ".join(joined))
        if number in self._flowing:
            self._flowing.add(home.id)
        self._flowing.discard(number)
        self._held.pop(number, None)
        return joined

    def _retry_held(self, number: int) -> None:
        """Count what keeps the shadows of a lane from their places, until it is rejected again."""
        with self.transaction() as connection:
            digests = self.shadows.retriable(connection, number)
        try:
            for digest in digests:
                if self.retry(digest) is not None:
                    return
        except PluginFault:
            return  # the plugin rests by now, in a lane of its own

    def join_complete(self) -> list[str]:
        """Let plugins that no archive fills in join the others, where files have given them all.

        Gives the idents that joined. Where there is an archive, :class:`CatchUp` sees to it.
        """
        with self.transaction() as connection:
            lanes = read_lanes(connection)
        apart = [lane.id for lane in lanes if lane.joins is not None and lane.watermark is None]
        return [ident for number in apart for ident in self.join(number)]

    def prune(self) -> None:
        """Delete the rows that are older than their retention, and the oldest rejections."""
        aged = self.note_ages()
        deleted: dict[str, int] = {}
        for ident, until in aged.items():
            is_more = True
            while is_more:
                with self.transaction(alone=True) as connection:
                    number, is_more = self._retention.delete_rows(connection, ident, until)
                    if number:
                        self.note_changes(connection, [ident])
                        deleted[ident] = deleted.get(ident, 0) + number
        if deleted:
            log.info(
                "rows that have outlived their retention were deleted: %s",
                ", ".join(f"{number} of {ident}" for ident, number in deleted.items()),
            )
        with self.transaction() as connection:
            self._rejections.prune(connection)

    def note_ages(self, shown: float = 0.0) -> dict[str, float]:
        """Ident to the time before which its rows have outlived their retention.

        Args:
            shown: the time of the newest message that an archive has, UNIX seconds: while history
                is filled in, that is long after the newest one that was counted.
        """
        with self.transaction(alone=True) as connection:
            newest = max(newest_message(connection) or 0.0, shown)
            if not newest:
                return {}
            return self._retention.note(connection, newest)

    def put_aside(self, connection: Connection, lane: Lane, late: Sequence[Message]) -> None:
        """Let messages wait until the archive tells whether the lane has counted them."""
        now = self.clock.time()
        rows = {
            digest: (lane.id, digest, message.timestamp, message.to_json(), now)
            for message in late
            for digest in [claim_digest(message.identity)]
        }
        self._late.write(connection, [rows[digest] for digest in sorted(rows)])

    def note_changes(self, connection: Connection, idents: Iterable[str]) -> None:
        """Let readers know that the rows of ``idents`` have changed."""
        now = self.clock.time()
        changed = sorted(idents)
        self._revisions.write(connection, [(ident, 1, now) for ident in changed])
        self._revised.update(changed)

    def _forget_hidden(self, connection: Connection) -> None:
        """Delete what was counted for people who have asked since to appear nowhere."""
        purged = []
        for ident, dataset in self.installed.datasets.items():
            try:
                with connection.begin_nested():
                    if people_of(dataset.plugin).purge(connection, dataset):
                        purged.append(ident)
            except DBAPIError as error:
                if is_unavailable(error):
                    raise
                # A table that waits to be replaced may lack a column; its shadow has no such rows.
                log.warning("hidden people are not yet deleted from %s: %s", ident, error.orig)
        if purged:
            log.info("rows of hidden people were deleted from %s", ", ".join(purged))
            self.note_changes(connection, purged)

    # The parts of a batch.

    def _sync(self, connection: Connection) -> None:
        """Learn which plugins are in which lanes, if that has changed."""
        version = self.lanes.membership_version(connection)
        if version != self._membership_version:
            self._crews = self.membership.crews(connection, self.database.backend)
            main = self.lanes.open(connection, MAIN)
            # Somebody must count the messages, even if no plugin wants them.
            self._crews.setdefault(main.id, Crew([], [], self.database.backend))
            self._membership_version = version

    def _count(
        self,
        connection: Connection,
        messages: Sequence[Message],
        rejections: Iterable[Rejection] = (),
    ) -> Outcome:
        outcome = Outcome(rejections=list(rejections))
        for lane in read_lanes(connection):
            crew = self._crews.get(lane.id)
            if crew is None:
                continue
            if self._rests(lane):
                # The archive has the others, but it will not be asked for these again.
                self.put_aside(connection, lane, [m for m in messages if lane.is_late(m)])
                if not self.has_history:
                    self.plugin_rows.add_missed(connection, crew.idents, len(messages))
            elif lane.ordered and self._waits(lane):
                self._hold(lane, messages)
            else:
                self._count_live(connection, lane, crew, messages, outcome)
        self._finish(connection, outcome)
        return outcome

    def _count_live(
        self,
        connection: Connection,
        lane: Lane,
        crew: Crew,
        messages: Sequence[Message],
        outcome: Outcome,
    ) -> None:
        timely = messages
        if lane.watermark is not None:
            late = [message for message in messages if lane.is_late(message)]
            if late:
                timely = [message for message in messages if not lane.is_late(message)]
                self.put_aside(connection, lane, late)
                if lane.name in PERMANENT:
                    outcome.late = max(outcome.late, len(late))
        with connection.begin_nested() as savepoint:
            claimed = claim(connection, lane, timely)
            new = claimed.messages
            is_settled = self._write(connection, lane, crew, claimed, None, outcome)
            if is_settled:
                advance(connection, lane, len(new), _newest(new), self.clock.time())
            else:
                savepoint.rollback()
        if not is_settled:
            self._rest(connection, lane)
        else:
            outcome.lanes[lane.name] = len(new)
            if lane.name in PERMANENT or lane.watermark is None:
                self._note(outcome, len(timely), len(new))

    def _count_archived(
        self,
        connection: Connection,
        lane: Lane,
        crew: Crew,
        piece: Slice,
        live: Sequence[Message],
        outcome: Outcome,
    ) -> bool:
        """Count a slice and what was held; False if nobody in the lane could write it."""
        window = piece.window
        now = self.clock.time()
        with connection.begin_nested() as savepoint:
            claimed = claim(connection, lane, live, piece.messages)
            new = claimed.messages
            is_settled = self._write(connection, lane, crew, claimed, window.start, outcome)
            if is_settled:
                advance(connection, lane, len(new), _newest(new), now, window.stop)
                note_gap(connection, lane, window.start, window.stop, piece.missing, now)
            else:
                savepoint.rollback()
        if is_settled:
            self._note(outcome, len(piece.messages), claimed.archived)
        else:
            self._rest(connection, lane)
        return is_settled

    def _count_rejected(
        self, connection: Connection, plugin: str, message: Message
    ) -> tuple[str, str | None]:
        """Count it; gives by whom it still is rejected, and why."""
        reason: str | None = None
        idents = plugin.split()
        left = [ident for ident in idents if self._crew_of(ident) is None]
        with connection.begin_nested() as savepoint:
            try:
                if not idents:
                    self._count(connection, [message])
                for ident in idents:
                    crew = self._crew_of(ident)
                    if crew is not None and reason is None:
                        reason = crew.count_again(connection, ident, message)
            except BaseException as error:
                if not blames_plugin(error):
                    raise
                reason = described(error)
            if reason is not None:
                savepoint.rollback()
        if reason is not None:
            for ident in self.membership.runners.keys() & {*idents}:
                self.membership.runners[ident].roll_back()
            return plugin, reason
        self.note_changes(connection, {*idents} - {*left})
        if left:
            return written_by(left), "it is not installed, or does not fit its table"
        return plugin, None

    def _crew_of(self, ident: str) -> Crew | None:
        return next((crew for crew in self._crews.values() if ident in crew.idents), None)

    def _write(
        self,
        connection: Connection,
        lane: Lane,
        crew: Crew,
        claimed: Claimed,
        start: float | None,
        outcome: Outcome,
    ) -> bool:
        """Write what was claimed; False if nobody in the lane could."""
        written = Written()
        rejections: list[Rejection] = []
        new = claimed.messages
        crew.count(connection, new, written, rejections, start)
        return self._settle(
            connection, lane, crew, written, claimed.batches, rejections, len(new), outcome
        )

    def _note(self, outcome: Outcome, given: int, new: int) -> None:
        """Several lanes count the same messages: what is told is of the one that counted most."""
        if new > outcome.counted or not outcome.duplicates:
            outcome.counted, outcome.duplicates = new, given - new

    def _settle(
        self,
        connection: Connection,
        lane: Lane,
        crew: Crew,
        written: Written,
        batches: Sequence[int],
        rejections: Iterable[Rejection],
        counted: int,
        outcome: Outcome,
    ) -> bool:
        """Deal with the plugins that could not write; False if nobody in the lane could.

        A plugin that gets the batch again, from the archive, rejects its messages again then.
        """
        again: set[str] = set()
        for idents, reason in written.failed:
            error = described(reason)
            self._tell_failure(idents, reason)
            outcome.failing.update(dict.fromkeys(idents, error))
            if not self._is_alone:
                raise _MustBeAlone
            if not self.has_history:
                self._quarantine.note_failure(connection, idents, error, counted)
            elif lane.name in PERMANENT or crew.plugins > 1:
                self._quarantine.isolate(connection, lane, idents, error, batches)
                again.add(written_by(idents))
            else:
                return False
        self._tell_success(written.changed)
        outcome.changed.update(written.changed)
        outcome.rejections += [r for r in rejections if r.plugin not in again]
        mended = [] if self.has_history else self._quarantine.failing(written.changed)
        if mended:
            if not self._is_alone:
                raise _MustBeAlone
            self._quarantine.end(connection, mended)
        return True

    def _tell_failure(self, idents: tuple[str, ...], error: BaseException) -> None:
        """Log that a plugin cannot write; the traceback once, however many batches follow."""
        failures = self._failures.setdefault(idents, Recurring())
        kind = type(error).__name__
        is_new = failures.is_new(kind)
        if failures.happened(kind):
            log.error(
                "the rows of %s cannot be written: %s",
                ", ".join(idents),
                described(error),
                exc_info=error if is_new else None,
            )

    def _tell_success(self, changed: Iterable[str]) -> None:
        for idents in [each for each in self._failures if not {*each}.isdisjoint(changed)]:
            del self._failures[idents]
            log.info("the rows of %s can be written again", ", ".join(idents))

    def _rests(self, lane: Lane) -> bool:
        """Whether a lane that failed counts nothing now; the archive makes up for it."""
        return lane.retry_at is not None and (self.has_history or lane.rests(self.clock.time()))

    def _reaches(self, lane: Lane, start: float) -> bool:
        """Whether what follows from ``start`` on is what a lane lacks, and can be told apart."""
        if lane.watermark is None or lane.watermark < start:
            return False
        pruned_until = lane.claims_pruned_until
        if pruned_until is not None and start < pruned_until + TIMESTAMP_TOLERANCE:
            return False
        return not lane.rests(self.clock.time())

    def _rest(self, connection: Connection, lane: Lane, at_least: float = 0.0) -> None:
        self.lanes.back_off(connection, lane, at_least)
        # Classic plugins get what they miss before they get live messages again.
        self._flowing.discard(lane.id)

    def _finish(self, connection: Connection, outcome: Outcome) -> None:
        self._rejections.record(connection, outcome.rejections)
        self.note_changes(connection, outcome.changed)

    def _waits(self, lane: Lane) -> bool:
        return self.has_history and lane.id not in self._flowing

    def _hold(self, lane: Lane, messages: Sequence[Message]) -> None:
        self._held.setdefault(lane.id, Held()).extend(messages)


class _MustBeAlone(Exception):
    """A plugin is to be quarantined, while other processes count."""


def _rewound(lane: Lane, crew: Crew) -> float:
    """Where classic plugins and their lane can begin anew: at or before its watermark."""
    assert lane.watermark is not None
    start = lane.watermark
    first = lane.history_start or 0.0
    while start > first:
        # Until all of them agree: a window of one may begin inside that of another.
        earlier = min(runner.window_start(start) for runner in crew.runners)
        pruned_until = lane.claims_pruned_until
        if pruned_until is not None and earlier < pruned_until + TIMESTAMP_TOLERANCE:
            earlier = checksum_window(earlier)
        if earlier == start:
            return start
        start = earlier
    return first


def _newest(messages: Sequence[Message]) -> float | None:
    return max((message.timestamp for message in messages), default=None)
