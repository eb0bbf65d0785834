"""The engine: it counts one batch of messages in one transaction.

For each lane: claim the messages that were not counted before, fold them, upsert the rows, advance
the checkpoint. All of it is committed, or none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete
from sqlalchemy.exc import DBAPIError

from statscache import tables
from statscache.announcements import announce
from statscache.archive.base import Slice
from statscache.config import Settings
from statscache.crew import Crew, Written
from statscache.database import Database, is_unavailable
from statscache.lanes import (
    MAIN,
    ORDERED,
    Lane,
    Lanes,
    claim_digest,
    counted_window,
    new_batch,
)
from statscache.message import Message
from statscache.migrations import BUNDLED_DISTRIBUTION
from statscache.people import people_of
from statscache.plugins.discovery import Installed
from statscache.rejections import Rejection, RejectionLog
from statscache.roster import FAILING, Roster
from statscache.upsert import Upsert

if TYPE_CHECKING:
    from statscache.backfill import Folded

log = logging.getLogger(__name__)

PERMANENT = (MAIN, ORDERED)
"""The lanes that others join."""

_PRUNING_SLACK = 60.0
"""Seconds by which claims outlive what the archive is asked for: copies are restamped."""

BEAT_EVERY = 10.0
"""Seconds between two notes of the hub that it listens."""

MOST_HELD = 200_000
"""Live messages that are held for classic plugins while their history is filled in."""


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


class Engine:
    """Counts messages for all the installed plugins.

    Any thread may use it; they take turns.

    Args:
        database: to write to.
        installed: the plugins.
        retention: schedule to the age at which rows of that resolution are deleted; it overrides
            what the plugins declare.
        epoch: how far back history goes; None: as far as the archive does.
        has_history: whether there is an archive that gives what was missed.
    """

    def __init__(
        self,
        database: Database,
        installed: Installed,
        retention: Mapping[str, timedelta] | None = None,
        epoch: datetime | None = None,
        *,
        has_history: bool = False,
    ) -> None:
        self._database = database
        self.installed = installed
        self.has_history = has_history
        self._retention = retention or {}
        backend = database.backend
        self.lanes = Lanes(backend)
        self.roster = Roster(installed, self.lanes, epoch, has_history=has_history)
        self._rejections = RejectionLog(backend)
        self._late = Upsert(tables.late, backend, {})
        self._revisions = Upsert(
            tables.revision,
            backend,
            {
                "revision": lambda old, new: old["revision"] + new["revision"],
                "changed_at": lambda old, new: new["changed_at"],
            },
        )
        self._crews: dict[int, Crew] = {}
        self._generation = -1
        self._turn = threading.RLock()
        # The idents whose rows the transaction in hand has changed.
        self._revised: set[str] = set()
        # Ordered lanes: which take live messages, and what is held for those that do not yet.
        self._flowing: set[int] = set()
        self._held: dict[int, deque[Message]] = {}
        # The lanes that have been given all live messages since the last beat.
        self._beating: set[int] = set()

    @classmethod
    def from_settings(cls, settings: Settings, installed: Installed) -> Engine:
        """An engine on the configured database."""
        return cls(
            Database(settings.uri),
            installed,
            settings.retention,
            settings.epoch,
            has_history=settings.has_archive,
        )

    def open(self) -> None:
        """Check the schema, create what third-party plugins lack, and give each its lane.

        Raises:
            SchemaError: the schema is not the one of this version.
            DatabaseUnavailable: nothing has been done yet; call it again later.
        """
        self._database.check_schema()
        others = [
            dataset.model.__table__
            for dataset in self.installed.datasets.values()
            if dataset.source.distribution != BUNDLED_DISTRIBUTION
        ]
        for name in self._database.create_missing(others):
            log.info("created the table %s", name)
        with self._database.begin() as connection:
            self.lanes.exclude(connection)
            self.roster.settle(connection)
            self._forget_hidden(connection)
        with self.transaction() as connection:
            for crew in self._crews.values():
                for runner in crew.runners:
                    runner.launch(connection)

    def close(self) -> None:
        """Stop the plugins and close the connections."""
        for runner in self.roster.runners.values():
            runner.stop()
        self._database.dispose()

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[Connection]:
        """A transaction in which lanes and their plugins stay as they are; others take turns.

        ``alone``: no other process counts meanwhile, so that lanes may be changed.

        Raises:
            DatabaseUnavailable: nothing of it was committed.
        """
        with self._turn:
            self._revised.clear()
            try:
                with self._database.begin() as connection:
                    if alone:
                        self.lanes.exclude(connection)
                    else:
                        self.lanes.share(connection)
                    self._sync(connection)
                    yield connection
                    if connection.in_transaction():
                        announce(connection, self._revised)
            except BaseException:
                # What classic plugins have in memory no longer agrees with their tables.
                for runner in self.roster.runners.values():
                    runner.renew()
                raise

    def crew(self, lane: Lane) -> Crew | None:
        """The plugins of a lane, as of the last transaction; None when it has none."""
        return self._crews.get(lane.id)

    def count(self, messages: Sequence[Message], rejections: Iterable[Rejection] = ()) -> Outcome:
        """Count those of ``messages`` that were not counted before, and keep the rejections.

        For messages of the bus, or of a file that somebody replays.

        Raises:
            DatabaseUnavailable: nothing of this was committed; the same call may be made again.
        """
        outcome = Outcome(rejections=list(rejections))
        with self.transaction() as connection:
            for lane in self.lanes.all(connection):
                crew = self._crews.get(lane.id)
                if crew is None or lane.retry_at is not None:
                    continue
                if lane.ordered and self._waits(lane):
                    self._hold(lane, messages)
                    continue
                self._count_live(connection, lane, crew, messages, outcome)
            self._finish(connection, outcome)
        return outcome

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
        with self.transaction() as connection:
            for lane in self.lanes.all(connection):
                crew = self._crews.get(lane.id)
                if lane.id not in lanes or crew is None or not _reaches(lane, window.start):
                    continue
                live: Sequence[Message] = ()
                if is_last and lane.ordered and self._waits(lane):
                    flowing.append(lane.id)
                    held = self._held.get(lane.id, ())
                    live = [m for m in held if not lane.is_late(m)]
                    self._put_aside(connection, lane, [m for m in held if lane.is_late(m)])
                self._count_archived(connection, lane, crew, piece, live, outcome)
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
        outcome = Outcome(rejections=list(folded.rejections))
        with self.transaction() as connection:
            lane = next((x for x in self.lanes.all(connection) if x.id == number), None)
            crew = self._crews.get(number)
            if lane is None or crew is None or not _reaches(lane, window.start):
                return False
            if crew.idents != folded.idents or crew.runners:
                return False
            batch = new_batch()
            if self.lanes.has_anonymous(connection, lane, window.start, window.stop):
                return False
            if not self.lanes.claim_partial(connection, lane, folded.digests, batch):
                return False
            written = Written()
            crew.write(connection, folded.partials, written)
            if not self._settle(
                connection, lane, crew, written, (batch,), len(folded.digests), outcome
            ):
                # Counted here, it fails again, and then it is dealt with.
                connection.rollback()
                return False
            newest = max((timestamp for _, timestamp in folded.digests), default=None)
            self.lanes.advance(connection, lane, len(folded.digests), newest, window.stop)
            self.lanes.note_gap(connection, lane, window.start, window.stop, folded.missing)
            self._finish(connection, outcome)
        return True

    def count_pruned(
        self,
        connection: Connection,
        lane: Lane,
        messages: Sequence[Message],
        digests: Mapping[str, bytes],
    ) -> None:
        """Count messages, known to be new, of a time whose claims are pruned.

        Args:
            digests: under what each identity is remembered.
        """
        outcome = Outcome()
        crew = self._crews.get(lane.id)
        if crew is None or not messages:
            return
        self._write(connection, lane, crew, messages, None, (), outcome)
        sums: dict[int, tuple[int, int]] = {}
        for message in messages:
            start = counted_window(message.timestamp)
            number, total = sums.get(start, (0, 0))
            digest = int.from_bytes(digests[message.identity])
            sums[start] = (number + 1, total ^ digest)
        self.lanes.add_counted(connection, lane, sums)
        self.lanes.advance(connection, lane, len(messages), _newest(messages))
        self._finish(connection, outcome)

    def count_remembered(
        self,
        connection: Connection,
        lane: Lane,
        messages: Sequence[Message],
        rejections: Iterable[Rejection] = (),
    ) -> None:
        """Count those of ``messages`` that are not claimed, wherever the archive stands."""
        outcome = Outcome(rejections=list(rejections))
        crew = self._crews.get(lane.id)
        if crew is not None and messages:
            batch = new_batch()
            new = self.lanes.claim(connection, lane, messages, batch)
            self._write(connection, lane, crew, new, None, (batch,), outcome)
            self.lanes.advance(connection, lane, len(new), _newest(new))
        self._finish(connection, outcome)

    def prune_claims(self, overlap: float) -> None:
        """Forget the claims of messages that the archive will not be asked for again."""
        is_more = True
        while is_more:
            is_more = False
            with self.transaction(alone=True) as connection:
                for lane in self.lanes.all(connection):
                    if lane.watermark is not None and lane.id in self._crews:
                        until = lane.watermark - overlap - _PRUNING_SLACK
                        is_more |= self.lanes.prune(connection, lane, until)

    def flow(self) -> None:
        """Let live messages through to classic plugins, though their history is not there.

        For when the archive cannot be asked; :meth:`rewind` puts it right later.
        """
        for number in list(self._crews):
            if self._crews[number].runners and number not in self._flowing:
                held = self._held.pop(number, deque())
                self._flowing.add(number)
                if held:
                    self.count(list(held))

    def rewind(self, number: int) -> None:
        """Take back what classic plugins of a lane wrote without their history."""
        with self.transaction(alone=True) as connection:
            lane = next(lane for lane in self.lanes.all(connection) if lane.id == number)
            crew = self._crews[number]
            assert lane.watermark is not None
            start = lane.watermark
            for _ in crew.runners:
                # Until all of them agree: a window of one may begin inside that of another.
                start = min(runner.window_start(start) for runner in crew.runners)
            for runner in crew.runners:
                runner.revert(connection, start)
            self._revise(connection, [runner.ident for runner in crew.runners])
            self.lanes.forget(connection, lane, start)
        self._flowing.discard(number)

    def beat(self, now: float) -> None:
        """Note that all live messages until ``now`` have been counted, even if there were none.

        Only so can readers tell that nothing happened from that nobody listened.

        Raises:
            DatabaseUnavailable: the same call may be made again.
        """
        with self.transaction() as connection:
            beating = set()
            for lane in self.lanes.all(connection):
                crew = self._crews.get(lane.id)
                if crew is None or lane.retry_at is not None:
                    continue
                if lane.ordered and self._waits(lane):
                    continue
                is_first = lane.id not in self._beating
                self.lanes.beat(connection, lane, crew.idents, now, is_first=is_first)
                beating.add(lane.id)
        self._beating = beating

    def waits(self, number: int) -> bool:
        """Whether the classic plugins of a lane get no live messages yet."""
        return number in self._crews and bool(
            self._crews[number].runners and number not in self._flowing
        )

    def join(self, number: int) -> list[str]:
        """Let a lane join the one that it is meant for, if both have counted the same.

        Gives the idents that joined: none, if they did not.
        """
        with self.transaction(alone=True) as connection:
            lanes = {lane.id: lane for lane in self.lanes.all(connection)}
            lane = lanes.get(number)
            if lane is None or lane.joins is None or lane.retry_at is not None:
                return []
            home = next((other for other in lanes.values() if other.name == lane.joins), None)
            if home is None or self._crews.get(lane.id) is None:
                return []
            is_empty = home.id not in self._crews or not self._crews[home.id].idents
            if not is_empty and not self.lanes.can_join(connection, lane, home):
                return []
            joined = self.roster.join(connection, lane, home)
            self._revise(connection, joined)
        log.info("complete: %s", ", ".join(joined))
        if number in self._flowing:
            self._flowing.add(home.id)
        return joined

    def prune(self) -> None:
        """Delete the rows that are older than their retention, and the oldest rejections."""
        now = time.time()
        changed = []
        with self.transaction() as connection:
            row = tables.plugin
            for plugin in self.installed.aggregates:
                for table in plugin.tables:
                    if table.width is None:
                        continue
                    age = self._retention.get(str(table.schedule), table.retention)
                    if age is None:
                        continue
                    until = int(now - age.total_seconds())
                    old = table.table.c.timestamp < until
                    if connection.execute(delete(table.table).where(old)).rowcount:
                        # A late message must not bring back a part of a row.
                        connection.execute(
                            row.update()
                            .where(row.c.ident == table.ident)
                            .values(pruned_until=until)
                        )
                        self.lanes.touch(connection)
                        changed.append(table.ident)
            self._revise(connection, changed)
            self._rejections.prune(connection)

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
            self._revise(connection, purged)

    # The parts of a batch.

    def _sync(self, connection: Connection) -> None:
        """Learn which plugins are in which lanes, if that has changed."""
        generation = self.lanes.generation(connection)
        if generation != self._generation:
            self._crews = self.roster.crews(connection, self._database.backend)
            main = self.lanes.open(connection, MAIN)
            # Somebody must count the messages, even if no plugin wants them.
            self._crews.setdefault(main.id, Crew([], [], self._database.backend))
            self._generation = generation

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
            timely = [message for message in messages if not lane.is_late(message)]
            if len(timely) < len(messages):
                late = [message for message in messages if lane.is_late(message)]
                self._put_aside(connection, lane, late)
                if lane.name in PERMANENT:
                    outcome.late = max(outcome.late, len(late))
        batch = new_batch()
        with connection.begin_nested() as savepoint:
            new = self.lanes.claim(connection, lane, timely, batch)
            is_settled = self._write(connection, lane, crew, new, None, (batch,), outcome)
            if is_settled:
                self.lanes.advance(connection, lane, len(new), _newest(new))
            else:
                savepoint.rollback()
        if not is_settled:
            self.lanes.back_off(connection, lane)
        elif lane.name in PERMANENT:
            self._note(outcome, len(timely), len(new))

    def _count_archived(
        self,
        connection: Connection,
        lane: Lane,
        crew: Crew,
        piece: Slice,
        live: Sequence[Message],
        outcome: Outcome,
    ) -> None:
        window = piece.window
        # What was held comes first: the archive may have it under an id of its own invention.
        # Two numbers, because each claim gives all that bears its own.
        batches = (new_batch(), new_batch())
        with connection.begin_nested() as savepoint:
            held = self.lanes.claim(connection, lane, live, batches[0])
            archived = self.lanes.claim_archived(connection, lane, piece.messages, batches[1])
            new = [*archived, *held]
            is_settled = self._write(connection, lane, crew, new, window.start, batches, outcome)
            if is_settled:
                self.lanes.advance(connection, lane, len(new), _newest(new), window.stop)
                self.lanes.note_gap(connection, lane, window.start, window.stop, piece.missing)
            else:
                savepoint.rollback()
        if is_settled:
            self._note(outcome, len(piece.messages), len(archived))
        else:
            self.lanes.back_off(connection, lane)

    def _write(
        self,
        connection: Connection,
        lane: Lane,
        crew: Crew,
        new: Sequence[Message],
        start: float | None,
        batches: Sequence[int],
        outcome: Outcome,
    ) -> bool:
        """Write what ``new`` adds; False if nobody in the lane could."""
        written = Written()
        crew.write(connection, crew.fold(new, outcome.rejections, start), written)
        crew.run_classics(connection, new, written, outcome.rejections, start)
        return self._settle(connection, lane, crew, written, batches, len(new), outcome)

    def _note(self, outcome: Outcome, given: int, new: int) -> None:
        """Several lanes count the same messages: the largest number is what is told."""
        outcome.counted = max(outcome.counted, new)
        outcome.duplicates = max(0, given - outcome.counted)

    def _settle(
        self,
        connection: Connection,
        lane: Lane,
        crew: Crew,
        written: Written,
        batches: Sequence[int],
        counted: int,
        outcome: Outcome,
    ) -> bool:
        """Deal with the plugins that could not write; False if nobody in the lane could."""
        outcome.changed.update(written.changed)
        for idents, error in written.failed:
            outcome.failing.update(dict.fromkeys(idents, error))
            if not self.has_history:
                self._note_failure(connection, idents, error, counted)
            elif lane.name in PERMANENT or crew.plugins > 1:
                self.lanes.exclude(connection)
                self.roster.set_apart(connection, lane, idents, error, batches)
            else:
                return False
        return True

    def _finish(self, connection: Connection, outcome: Outcome) -> None:
        self._rejections.record(connection, outcome.rejections)
        self._revise(connection, outcome.changed)

    def _revise(self, connection: Connection, changed: Iterable[str]) -> None:
        """Let readers know that the rows of these idents are others."""
        now = time.time()
        idents = sorted(changed)
        self._revisions.run(connection, [(ident, 1, now) for ident in idents])
        self._revised.update(idents)

    def _put_aside(self, connection: Connection, lane: Lane, late: Sequence[Message]) -> None:
        now = time.time()
        rows = {
            digest: (lane.id, digest, message.timestamp, message.to_json(), now)
            for message in late
            for digest in [claim_digest(message.identity)]
        }
        self._late.run(connection, [rows[digest] for digest in sorted(rows)])

    def _waits(self, lane: Lane) -> bool:
        return self.has_history and lane.id not in self._flowing

    def _hold(self, lane: Lane, messages: Sequence[Message]) -> None:
        # The oldest go first: the archive will have them by the time that they are wanted.
        self._held.setdefault(lane.id, deque(maxlen=MOST_HELD)).extend(messages)

    def _note_failure(
        self, connection: Connection, idents: Iterable[str], error: str, missed: int
    ) -> None:
        plugin = tables.plugin
        for ident in idents:
            connection.execute(
                plugin.update()
                .where(plugin.c.ident == ident)
                .values(
                    state=FAILING,
                    error=error[:10_000],
                    failed_at=time.time(),
                    missed=plugin.c.missed + missed,
                )
            )


def _reaches(lane: Lane, start: float) -> bool:
    """Whether what follows from ``start`` on is what a lane lacks, and can be told apart."""
    if lane.watermark is None or lane.watermark < start:
        return False
    if lane.horizon is not None and start < lane.horizon:
        return False
    return lane.retry_at is None or lane.retry_at <= time.time()


def _newest(messages: Sequence[Message]) -> float | None:
    return max((message.timestamp for message in messages), default=None)
