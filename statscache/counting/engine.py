"""The engine: it counts batches of messages, each in one transaction.

What happens to a batch is in :mod:`statscache.counting.commit`, what a lane remembers in
:mod:`statscache.counting.lanes`. All of a batch is committed, or none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from sqlalchemy import Connection

from statscache.clock import SYSTEM, Clock
from statscache.config import REJECTED_BYTES, TOLERATED_LOSS, Settings
from statscache.counting.batch import Batch, Origin, Outcome
from statscache.counting.classic.live_buffer import LiveBuffer
from statscache.counting.classic_lanes import ClassicLanes
from statscache.counting.commit import Committer, MustBeAlone
from statscache.counting.folding.lane_plugins import LanePlugins
from statscache.counting.heartbeat import Heartbeat
from statscache.counting.joining import Joining
from statscache.counting.lanes.checksums import prune_claims
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.counting.lanes.lanes import Lanes
from statscache.counting.membership import replayed
from statscache.counting.membership.membership import Membership
from statscache.counting.membership.plugin_rows import PluginRows
from statscache.counting.membership.quarantine import Quarantine
from statscache.counting.membership.rejections import RejectionLog
from statscache.counting.membership.retention import Retention
from statscache.counting.membership.shadows import Shadows
from statscache.counting.pruning import Pruning
from statscache.counting.retry import Refusal, Retry
from statscache.counting.startup import launch, prepare
from statscache.counting.transactions import Transactions
from statscache.database import migrations, schema
from statscache.database.connection import Database
from statscache.errors import PluginFault
from statscache.isolation.lost_connections import LostConnections
from statscache.isolation.time_limit import TimeLimit
from statscache.message import Message
from statscache.plugins.installed.discovery import Installed
from statscache.rejection import Rejection

log = logging.getLogger(__name__)

_PRUNING_SLACK = 60.0
"""Seconds by which claims outlive what the archive is asked for: copies are restamped."""


class Engine:
    """Counts messages for all the installed plugins.

    Any thread may use it, one at a time.

    Args:
        database: to write to.
        installed: the plugins.
        retention: schedule to the age at which rows of that resolution are deleted; it overrides
            what the plugins declare; an age of None: never.
        epoch: how far back history goes; None: as far as the archive does.
        has_history: whether there is an archive.
        rejected_bytes: how much is kept of what cannot be counted.
        time_limit: how long a plugin may take for a batch, while a thread runs
            :meth:`enforce_time_limit`.
        tolerated_loss: the share of what was counted that an archive may lack, 0 to 1.
        clock: of the engine, and of all that works with it.

    Attributes:
        is_open: whether :meth:`open` has succeeded.
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
        self.uri = database.uri
        self.installed = installed
        self.has_history = has_history
        self.tolerated_loss = tolerated_loss
        self.time_limit = TimeLimit(time_limit, clock)
        self.is_open = False
        self._lanes = Lanes(database.backend, clock)
        self._buffer = LiveBuffer(has_history=has_history)
        self._lost_connections = LostConnections(clock)
        self._rejections = RejectionLog(database.backend, rejected_bytes, clock)
        self._plugin_rows = PluginRows(self._lanes)
        self._shadows = Shadows(self._lanes, self._plugin_rows, clock)
        self._quarantine = Quarantine(installed, self._lanes, self._plugin_rows, clock)
        self._membership = Membership(
            installed,
            self._lanes,
            self._plugin_rows,
            self._shadows,
            self._quarantine,
            epoch,
            has_history=has_history,
            time_limit=self.time_limit,
            lost_connections=self._lost_connections,
            clock=clock,
        )
        self._transactions = Transactions(
            database,
            self._lanes,
            self._membership,
            self._quarantine,
            self._buffer,
            self._lost_connections,
            clock,
        )
        self._assemble(Retention(installed, retention or {}, self._plugin_rows, clock))

    def _assemble(self, retention: Retention) -> None:
        """Make the parts that use the transactions."""
        self._committer = Committer(
            self._transactions,
            self._plugin_rows,
            self._quarantine,
            self._buffer,
            self._rejections,
            has_history=self.has_history,
            clock=self.clock,
        )
        self._retry = Retry(
            self._transactions, self._committer, self._membership, self._shadows, self._rejections
        )
        self._joining = Joining(
            self._transactions,
            self._lanes,
            self._membership,
            self._plugin_rows,
            self._shadows,
            self._buffer,
            self._retry,
        )
        self._classic_lanes = ClassicLanes(
            self._transactions, self._quarantine, self._buffer, self._lost_connections
        )
        self._heartbeat = Heartbeat(self.database, self._transactions, self._buffer, self.clock)
        self._pruning = Pruning(self._transactions, retention, self._rejections)

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

    def open(self) -> None:
        """Check the schema, create missing tables of third-party plugins, and assign lanes.

        Raises:
            SchemaError: the schema is not the one of this version.
            DatabaseUnavailable: nothing has been done yet; call it again later.
        """
        schema.check(self.database)
        while True:
            try:
                prepare(
                    self.database,
                    self.installed,
                    self._lanes,
                    self._membership,
                    self._transactions,
                    self._lost_connections,
                )
                launch(self._transactions, self._lost_connections)
                self.join_complete()
                break
            except PluginFault:
                # Nothing was committed. This ends: the plugin is quarantined, or not asked for its
                # rows again.
                continue
        self.is_open = True
        log.info("the schema of the database is %s", migrations.HEAD)

    def close(self) -> None:
        """Stop the plugins and close the connections."""
        for runner in self._membership.runners.values():
            runner.stop()
        self.time_limit.end()
        self.database.dispose()

    def abandon(self) -> None:
        """Abandon the transaction of a thread that never returns; called by another thread."""
        self._transactions.abandon()

    def quarantine(self, fault: PluginFault) -> None:
        """Quarantine a plugin that spoilt a transaction, and let its lane back off.

        Raises:
            DatabaseUnavailable: nothing has happened.
        """
        self._transactions.quarantine(fault)

    def transaction(self, *, alone: bool = False) -> AbstractContextManager[Connection]:
        """A transaction in which lanes and their plugins stay as they are; others take turns.

        ``alone``: no other process counts meanwhile, so that lanes may be changed.

        Raises:
            DatabaseUnavailable: nothing of it was committed.
            PluginFault: the same; the plugin that is to blame has been quarantined.
            RuntimeError: there is one in this thread already.
        """
        return self._transactions.begin(alone=alone)

    # Counting.

    def count(self, messages: Sequence[Message], rejections: Iterable[Rejection] = ()) -> Outcome:
        """Count those of ``messages`` that were not counted before, and keep the rejections.

        For messages of the bus.

        Raises:
            DatabaseUnavailable: nothing of this was committed; the same call may be made again.
        """
        return self.commit(Batch(Origin.BUS, live=messages, rejections=list(rejections)))

    def commit(self, batch: Batch, within: Connection | None = None) -> Outcome:
        """Count a batch, for the lanes that take it.

        Args:
            within: that of :meth:`transaction`, to count it in that one. No other process counts
                meanwhile.

        Raises:
            DatabaseUnavailable: nothing of this was committed; the same call may be made again.
            MustBeAlone: other processes may count meanwhile; nothing may be committed.
            PluginFault: ``within`` a transaction, of which nothing may be committed.
        """
        if within is not None:
            return self._committer.commit(within, batch)
        while True:
            try:
                return self._commit(batch)
            except PluginFault:
                # It is quarantined, and nothing was committed. This ends: a quarantined plugin
                # counts nothing while its lane pauses, and there are only so many plugins.
                continue

    def _commit(self, batch: Batch) -> Outcome:
        # Held until live messages are released: those that another thread counts in between would
        # be kept, and then dropped.
        with self._transactions.lock:
            try:
                with self.transaction(alone=batch.origin.excludes) as connection:
                    outcome = self._committer.commit(connection, batch)
            except MustBeAlone:
                with self.transaction(alone=True) as connection:
                    outcome = self._committer.commit(connection, batch)
            if batch.is_last:
                for number in outcome.committed:
                    self._buffer.release(number)
            return outcome

    def retry(self, digest: str, refusal: Refusal | None = None) -> str | None:
        """Try again to count what was rejected; returns why that cannot be, or None.

        Input that no plugin got is decoded and counted like a new message. A message that a plugin
        rejected is counted for that plugin alone, since it is claimed already. The rejection is
        deleted in the same transaction, so that repeated retries count nothing twice. Returns None
        also if there is no such rejection.

        Args:
            digest: of the row of :data:`statscache.database.tables.rejected`.
            refusal: checks signatures again; default: messages with a bad signature stay rejected.

        Raises:
            DatabaseUnavailable: nothing has happened.
            PluginFault: the same; the plugin has been quarantined.
        """
        return self._retry.retry(digest, refusal)

    def cover(self, start: float, stop: float) -> None:
        """Note that a file had all messages from ``start`` to ``stop``, which have been counted.

        Raises:
            DatabaseUnavailable: nothing was noted; the same call may be made again.
        """
        with self.transaction(alone=True) as connection:
            idents: list[str] = []
            for lane in read_lanes(connection):
                plugins = self.plugins_of(lane)
                if plugins is not None and not self._committer.is_paused(lane):
                    idents += plugins.served
            failing = self._quarantine.failing(idents)
            replayed.note(connection, {*idents} - {*failing}, start, stop)

    def enforce_time_limit(
        self, give_up: Callable[[tuple[str, ...], str, int], None] = lambda *_: None
    ) -> None:
        """Limit the time that plugins take, until :meth:`close`; for a thread of its own.

        ``give_up`` is that of :meth:`statscache.isolation.time_limit.TimeLimit.enforce`.
        """
        self.time_limit.enforce(give_up)

    def plugin_at_work(self) -> str | None:
        """The plugin that is at work, and what it is doing; None where none is."""
        return self.time_limit.at_work()

    def allow_slow_plugins(self) -> None:
        """Log plugins that take long, and end none."""
        self.time_limit.limit = None

    # Lanes.

    def read_lanes(self) -> list[Lane]:
        """All lanes, oldest first; :meth:`plugins_of` is up to date afterwards.

        Raises:
            DatabaseUnavailable: try again later.
        """
        with self.transaction() as connection:
            return read_lanes(connection)

    def plugins_of(self, lane: Lane) -> LanePlugins | None:
        """The plugins of a lane, as of the last transaction; None when it has none."""
        return self._transactions.lane_plugins.get(lane.id)

    def renew_classics(self, lane: Lane) -> None:
        """Replace the classic plugins of a lane by new instances.

        Another process may have written since they read their tables.
        """
        plugins = self.plugins_of(lane)
        for runner in plugins.runners if plugins is not None else ():
            runner.renew()

    def prune_claims(self, overlap: float) -> None:
        """Forget the claims of messages that the archive will not be asked for again.

        Args:
            overlap: seconds behind a watermark for which it is asked again.
        """
        is_more = True
        while is_more:
            is_more = False
            with self.transaction(alone=True) as connection:
                for lane in read_lanes(connection):
                    if lane.watermark is not None and self.plugins_of(lane) is not None:
                        until = lane.watermark - overlap - _PRUNING_SLACK
                        is_more |= prune_claims(connection, lane, until)

    def join(self, number: int) -> list[str]:
        """Let a lane join its home, if both have counted the same messages.

        Rejections that block shadows of the lane are tried again before.

        Returns:
            The idents that joined: none, if they did not.
        """
        return self._joining.join(number)

    def join_complete(self) -> list[str]:
        """Let lanes join that no archive fills in, if replayed files have completed them.

        With an archive, :class:`statscache.catchup.loop.CatchUp` does it.

        Returns:
            The idents that joined.
        """
        return self._joining.join_complete()

    # Rebuilds.

    @property
    def blocked(self) -> frozenset[str]:
        """The idents whose new rows must not take the place of the old ones, as far as known."""
        return self._shadows.blocked

    def force(self, idents: Iterable[str]) -> None:
        """Let the shadows of these replace their tables, even if they lack rows."""
        self._shadows.forced = frozenset(idents)

    def rebuild(self, idents: Iterable[str]) -> list[str]:
        """Rebuild plugins, beside the rows that are served; returns those whose rebuild begins.

        The others are being rebuilt already, and continue.

        Raises:
            DatabaseUnavailable: nothing has happened.
        """
        with self.transaction(alone=True) as connection:
            return self._membership.rebuild(connection, idents)

    def to_rebuild(self, idents: Iterable[str]) -> dict[str, dict[str, float]]:
        """Those whose rebuild :meth:`rebuild` would begin, and from when on, UNIX seconds.

        By the name of the lane that they join when they are complete.
        """
        with self.transaction() as connection:
            groups = self._membership.to_rebuild(connection, idents)
        return {
            home: {dataset.ident: self._membership.history_start(dataset) for dataset in datasets}
            for home, datasets in groups.items()
        }

    def is_rebuilding(self, lane: Lane) -> bool:
        """Whether a plugin of a lane is being rebuilt."""
        with self.transaction() as connection:
            return self._shadows.is_rebuilding(connection, lane)

    def note_shortfall(self, lane: Lane, text: str) -> None:
        """Note why new rows must not take the place of old ones: the archive lacks so much."""
        with self.transaction() as connection:
            self._shadows.note_shortfall(connection, lane, text)

    # Classic plugins.

    def waits_for_history(self, number: int) -> bool:
        """Whether the classic plugins of a lane get no live messages yet."""
        return number in self._classic_lanes.waiting()

    def release_live(self) -> None:
        """Let live messages through to classic plugins, though their history is not there.

        For times when the archive cannot be asked; :meth:`rewind` corrects it later.
        """
        for number in self._classic_lanes.waiting():
            with self._buffer.releasing(number) as kept:
                self.count(kept)

    def rewind(self, number: int) -> None:
        """Revert what classic plugins of a lane wrote without their history."""
        self._classic_lanes.rewind(number)

    # What is due now and then.

    def prune(self) -> None:
        """Delete the rows that are older than their retention, and the oldest rejections."""
        self._pruning.prune()

    def note_ages(self, shown: float = 0.0) -> dict[str, float]:
        """Ident to the time before which its rows have outlived their retention.

        From then on no process writes such rows: a late message must not create a partial one. So
        they can be deleted in small parts later. Their age is measured by the newest message,
        since a clock that is ahead must not age them.

        Args:
            shown: the time of the newest message that an archive has, UNIX seconds: while history
                is filled in, that is long after the newest one that was counted.
        """
        return self._pruning.note_ages(shown)

    def beat(self, now: float) -> None:
        """Note that all live messages until ``now`` have been counted, even if there were none.

        So readers can distinguish a time without messages from one without a hub.

        Raises:
            DatabaseUnavailable: the same call may be made again.
        """
        self._heartbeat.beat(now)

    def note_end(self, reason: str) -> None:
        """Store why this process ends; the API reports it until a hub listens again.

        It does not wait for the transactions of other threads.

        Raises:
            DatabaseUnavailable: it is not noted.
        """
        self._heartbeat.note_end(reason)
