"""How a batch is counted, wherever it comes from.

For each lane, in the transaction of the caller::

    take      what of the batch the lane counts now; the rest waits, or comes again
    claim     the messages that it has not counted before
    write     the rows that its plugins fold of that
    isolate   plugins that could not write
    advance   the checkpoint

A batch (:class:`~statscache.counting.batch.Batch`) tells what depends on its origin: whether it is
claimed already, and which plugins count it. A window of an archive is taken by the lanes that lack
it, live messages by those that do not wait; late ones are deferred. From the claim on, a lane works
inside a savepoint: if none of its plugins could write, nothing of the batch is claimed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from statscache.clock import Clock
from statscache.counting.batch import Batch, Origin, Outcome
from statscache.counting.classic.live_buffer import LiveBuffer
from statscache.counting.folding.lane_plugins import LanePlugins, WriteResult, written_by
from statscache.counting.lanes import leases
from statscache.counting.lanes.checkpoints import advance
from statscache.counting.lanes.claims import Claimed, claim, claim_folded
from statscache.counting.lanes.gaps import note_gap
from statscache.counting.lanes.lane import PERMANENT, Lane, read_lanes
from statscache.counting.lanes.waiting import defer
from statscache.counting.membership.plugin_rows import PluginRows
from statscache.counting.membership.quarantine import Quarantine
from statscache.counting.membership.rejections import RejectionLog
from statscache.counting.transactions import Transactions
from statscache.errors import described
from statscache.isolation.write_failures import WriteFailures
from statscache.message import TIMESTAMP_TOLERANCE, Message


class MustBeAlone(Exception):
    """No other process may count meanwhile: the transaction must begin again, alone."""


class Committer:
    """Counts batches inside the transactions of an engine.

    Args:
        transactions: of the engine; they know the plugins of each lane.
        plugin_rows: of all plugins, in the database.
        quarantine: of plugins that could not write.
        buffer: what waits for the history of classic plugins.
        rejections: the log of what cannot be counted.
        has_history: whether there is an archive.
        clock: the present.
    """

    def __init__(
        self,
        transactions: Transactions,
        plugin_rows: PluginRows,
        quarantine: Quarantine,
        buffer: LiveBuffer,
        rejections: RejectionLog,
        *,
        has_history: bool,
        clock: Clock,
    ) -> None:
        self._transactions = transactions
        self._plugin_rows = plugin_rows
        self._quarantine = quarantine
        self._buffer = buffer
        self._rejections = rejections
        self._has_history = has_history
        self._clock = clock
        self._write_failures = WriteFailures(clock)

    def commit(self, connection: Connection, batch: Batch) -> Outcome:
        """Count a batch.

        Raises:
            MustBeAlone: nothing may be committed.
            PluginFault: the same.
        """
        if batch.origin.excludes:
            self._be_alone()
        outcome = Outcome(rejections=list(batch.rejections))
        for lane in read_lanes(connection):
            plugins = self._transactions.lane_plugins.get(lane.id)
            plugins = None if plugins is None else batch.counted_by(lane, plugins)
            if plugins is None:
                continue
            share = self._take(connection, lane, plugins, batch, outcome)
            if share is not None:
                self._count(connection, lane, plugins, share, outcome)
        self._rejections.record(connection, outcome.rejections)
        self._transactions.note_changes(connection, outcome.changed)
        return outcome

    def _count(
        self,
        connection: Connection,
        lane: Lane,
        plugins: LanePlugins,
        batch: Batch,
        outcome: Outcome,
    ) -> None:
        """Count what a lane takes of a batch."""
        # Undone as a whole if no plugin of the lane could write: nothing is claimed then.
        with connection.begin_nested() as savepoint:
            claimed = _claim(connection, lane, batch)
            if claimed is not None:
                result = _write(connection, plugins, batch, claimed)
                if self._isolate(connection, lane, plugins, batch, claimed, result, outcome):
                    self._advance(connection, lane, batch, claimed)
                    outcome.note(lane, batch, claimed)
                    return
            savepoint.rollback()
        if batch.backs_off:
            self._transactions.back_off(connection, lane)

    # Take.

    def _take(
        self,
        connection: Connection,
        lane: Lane,
        plugins: LanePlugins,
        batch: Batch,
        outcome: Outcome,
    ) -> Batch | None:
        """The part of a batch that a lane counts now; None: nothing."""
        if batch.is_decided:
            return batch
        if batch.window is None:
            return self._take_live(connection, lane, plugins, batch, outcome)
        if not self._takes_window(lane, batch):
            return None
        if batch.folded is not None:
            # Partials are by position: with other plugins than the worker had, they do not fit.
            is_same = plugins.idents == batch.folded.idents and not plugins.runners
            return batch if is_same else None
        if batch.is_last and self._waits_for_history(lane):
            return self._take_kept(connection, lane, batch)
        return batch

    def _take_live(
        self,
        connection: Connection,
        lane: Lane,
        plugins: LanePlugins,
        batch: Batch,
        outcome: Outcome,
    ) -> Batch | None:
        if self.is_paused(lane):
            # The others come again from the archive, which is not asked for this time again.
            self._defer_late(connection, lane, batch.live)
            if not self._has_history:
                self._plugin_rows.add_missed(connection, plugins.idents, len(batch.live))
            return None
        if self._waits_for_history(lane):
            self._buffer.keep(lane.id, batch.live)
            return None
        timely = self._defer_late(connection, lane, batch.live)
        if lane.name in PERMANENT:
            outcome.late = max(outcome.late, len(batch.live) - len(timely))
        return replace(batch, live=timely)

    def _takes_window(self, lane: Lane, batch: Batch) -> bool:
        """Whether a lane may lack messages of a window, and can recognise the others."""
        assert batch.window is not None
        start, pruned_until = batch.window.start, lane.claims_pruned_until
        if lane.watermark is None or lane.watermark < start:
            return False
        if batch.origin is Origin.GAP:
            # Claims in a gap are not pruned, so they still tell what was counted.
            return not self.is_paused(lane)
        if pruned_until is not None and start < pruned_until + TIMESTAMP_TOLERANCE:
            return False
        if lane.is_backing_off(self._clock.time()):
            return False
        # Classic plugins have state in the memory of the process that runs them.
        return not lane.ordered or batch.folded is not None or leases.is_ours(lane)

    def _take_kept(self, connection: Connection, lane: Lane, batch: Batch) -> Batch:
        """The last window of its history, and the live messages that waited for it."""
        kept = self._buffer.kept(lane.id)
        return replace(batch, live=self._defer_late(connection, lane, kept))

    def _defer_late(
        self, connection: Connection, lane: Lane, messages: Sequence[Message]
    ) -> Sequence[Message]:
        """Let those that are late for a lane wait; returns the others."""
        late = [] if lane.watermark is None else [m for m in messages if lane.is_late(m)]
        if not late:
            return messages
        defer(connection, lane, late, self._clock.time())
        return [m for m in messages if not lane.is_late(m)]

    def is_paused(self, lane: Lane) -> bool:
        """Whether a lane that failed counts nothing now; the archive makes up for it."""
        return lane.has_failed and (self._has_history or lane.is_backing_off(self._clock.time()))

    def _waits_for_history(self, lane: Lane) -> bool:
        return lane.ordered and not self._buffer.is_released(lane.id)

    # Isolate.

    def _isolate(
        self,
        connection: Connection,
        lane: Lane,
        plugins: LanePlugins,
        batch: Batch,
        claimed: Claimed,
        result: WriteResult,
        outcome: Outcome,
    ) -> bool:
        """Deal with the plugins that could not write; False if none in the lane could.

        A plugin that gets the batch again from the archive rejects its messages then, not now.
        """
        if batch.is_claimed:
            return outcome.note_retry(plugins.idents, result)
        again: set[str] = set()
        for idents, reason in result.failed:
            error = described(reason)
            self._write_failures.note_failure(idents, reason)
            outcome.failing.update(dict.fromkeys(idents, error))
            self._be_alone()
            if not self._has_history:
                self._quarantine.note_failure(connection, idents, error, batch.size(claimed))
            elif lane.name in PERMANENT or plugins.plugins > 1:
                self._quarantine.isolate(connection, lane, idents, error, claimed.batches)
                again.add(written_by(idents))
            else:
                return False
        self._write_failures.note_success(result.changed)
        outcome.changed.update(result.changed)
        outcome.rejections += [r for r in result.rejections if r.plugin not in again]
        mended = [] if self._has_history else self._quarantine.failing(result.changed)
        if mended:
            self._be_alone()
            self._quarantine.end(connection, mended)
        return True

    def _be_alone(self) -> None:
        if not self._transactions.is_alone:
            # No upgrade of the lock: two that share it, and both upgrade, would dead-lock.
            raise MustBeAlone

    # Advance.

    def _advance(self, connection: Connection, lane: Lane, batch: Batch, claimed: Claimed) -> None:
        if not batch.advances:
            return
        window, now = batch.window, self._clock.time()
        watermark = None if window is None else window.stop
        size, newest = batch.size(claimed), batch.newest(claimed)
        advance(connection, lane, size, newest, now, watermark)
        if window is not None:
            note_gap(connection, lane, window.start, window.stop, batch.missing, now)


def _claim(connection: Connection, lane: Lane, batch: Batch) -> Claimed | None:
    if batch.is_claimed:
        return Claimed(list(batch.live))
    if batch.folded is not None:
        window = batch.folded.window
        return claim_folded(connection, lane, batch.folded.digests, window.start, window.stop)
    return claim(connection, lane, batch.live, batch.archived)


def _write(
    connection: Connection, plugins: LanePlugins, batch: Batch, claimed: Claimed
) -> WriteResult:
    if batch.replace is not None:
        return WriteResult(changed=batch.replace(connection))
    if batch.folded is None:
        start = None if batch.window is None else batch.window.start
        return plugins.count(connection, claimed.messages, start)
    result = plugins.write(connection, batch.folded.partials, batch.folded.size)
    result.rejections += batch.folded.rejections
    return result
