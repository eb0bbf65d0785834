"""Catch up with the archive: at start, over and over while live messages flow, for new plugins.

The same mechanism fills in history, counts what the bus lost, and recovers after a crash.
It goes in steps: :meth:`CatchUp.step` makes one, and says when the next is due.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from statscache.archive import Archive
from statscache.audit.background import Audit
from statscache.catchup.archive_end import ArchiveEnd
from statscache.catchup.fill_in import HistoryFiller
from statscache.catchup.lane_leases import LaneLeases
from statscache.catchup.lane_log import LaneLog
from statscache.catchup.outage import ArchiveOutage
from statscache.catchup.polling import Polling
from statscache.catchup.progress import Progress
from statscache.catchup.ready_lanes import ReadyLanes, members_of, watermark_of
from statscache.catchup.reconcile import Reconciler
from statscache.counting.engine import Engine
from statscache.counting.lanes import leases
from statscache.counting.lanes.lane import Lane
from statscache.errors import ArchiveUnavailable, DatabaseUnavailable
from statscache.logs.recurring import Recurring

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds beyond the lag that a command waits for a lane to join."""

_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 15.0
"""Seconds between two looks of a command at lanes that others move, or that are to join."""

_SHORTEST_WAIT = 1.0
_LONGEST_WAIT = 300.0
"""Seconds between two tries while the archive cannot be asked, which others ask as well."""

_LONGEST_WAIT_FOR_DATABASE = 30.0


class CatchUp:
    """Moves the watermarks of all lanes towards the present; one thread uses it.

    Args:
        engine: that counts, with whose clock it works; other threads may use it meanwhile.
        archive: that is asked.
        polling: how.
        executor: where windows are fetched and folded; absent, in threads of our own.
        config: fedmsg's configuration, with which plugins are made in other processes.
        idents: the plugins whose lanes are moved; absent, all.
        audit: what goes on in the background when all lanes are near the present.
        report: called now and then with the progress.
        takes_over: whether lanes of aggregates are taken from another process that fills them in,
            once: for a command that was started to be faster.
    """

    def __init__(
        self,
        engine: Engine,
        archive: Archive,
        polling: Polling,
        *,
        executor: Executor | None = None,
        config: Mapping[str, Any] | None = None,
        idents: frozenset[str] | None = None,
        audit: Audit | None = None,
        report: Callable[[Progress], None] | None = None,
        takes_over: bool = False,
    ) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._polling = polling
        self._audit = audit
        self.progress = Progress(report)
        self._lane_log = LaneLog()
        self._ready = ReadyLanes(engine, self._lane_log, idents)
        self._leases = LaneLeases(engine, takes_over=takes_over)
        self._outage = ArchiveOutage(engine, archive, self._ready)
        self._archive_end = ArchiveEnd(engine, archive, polling)
        self._reconciler = Reconciler(engine, archive, polling, self.progress, self._lane_log)
        self._filler = HistoryFiller(
            engine, archive, polling, self.progress, executor, config or {}
        )
        self._stop = threading.Event()
        self._reconcile_at = 0.0
        self._wait = 0.0
        self._troubles = Recurring(engine.clock)

    def run_until_stopped(self, stop: threading.Event) -> None:
        """Make one step after another until ``stop`` is set."""
        self._stop = stop
        wait = 0.0
        while not self._clock.wait(stop, wait):
            wait = self.step()
        self._end()

    def step(self) -> float:
        """Do a part of what is to be done; returns the seconds until the next step is due.

        Errors are not raised: they are logged, and the step is retried later.
        """
        try:
            self._wait = self.advance()
        except (ArchiveUnavailable, DatabaseUnavailable) as error:
            self._filler.forget_all()
            is_archive = isinstance(error, ArchiveUnavailable)
            longest = _LONGEST_WAIT if is_archive else _LONGEST_WAIT_FOR_DATABASE
            self._wait = min(max(self._wait * 2, _SHORTEST_WAIT), longest)
            # Without what differs from try to try.
            if self._troubles.happened(str(error).partition(": ")[0]):
                log.error("cannot catch up, next try in %.0f s: %s", self._wait, error)
            if is_archive:
                self._outage.let_live_messages_through()
        except Exception as error:
            self._filler.forget_all()
            if self._troubles.happened(type(error).__name__):
                log.exception("catching up failed")
            self._wait = _LONGEST_WAIT
        else:
            if self._troubles.ended():
                log.info("catching up again")
        return self._wait

    def run_until_complete(
        self, stop: threading.Event | None = None, *, patience: float | None = None
    ) -> list[str]:
        """Go on until all the lanes have come up to the present, and have joined.

        The present is the newest message that the archive has, or now, less the lag.

        Returns the idents that are complete and could not join yet, because the others have counted
        messages that the archive does not have: they will, when the overlap has passed.

        Args:
            stop: set, it ends earlier.
            patience: seconds that lanes which have come up to it may take to join; a little more
                than the lag when absent.

        Raises:
            ArchiveUnavailable: what was done is committed.
            DatabaseUnavailable: the same.
        """
        self._stop = stop or threading.Event()
        if patience is None:
            patience = self._polling.lag + _PATIENCE
        deadline = None
        pause = _SHORTEST_PAUSE
        try:
            while not self._stop.is_set():
                wait = self.advance()
                behind, apart = self._unfinished()
                if not behind:
                    deadline = deadline or self._clock.monotonic() + patience
                    if not apart or self._clock.monotonic() >= deadline:
                        return apart
                if wait == 0.0:
                    pause = _SHORTEST_PAUSE
                    continue
                # The archive is asked again each time: less and less often.
                self.progress.tell()
                self._clock.wait(self._stop, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                self._reconcile_at = 0.0
                self._archive_end.forget()
            return []
        finally:
            self._end()

    def advance(self) -> float:
        """Do a part of what is to be done; returns the seconds until there is more.

        Raises:
            ArchiveUnavailable: what was done is committed.
            DatabaseUnavailable: the same.
        """
        lanes = self._ready.read()
        self.progress.note_lanes(lanes)
        until = self.progress.until = self._find_end(lanes)
        far = [lane for lane in lanes if self._polling.is_far(lane, until)]
        near = [lane for lane in lanes if lane not in far]
        if near and self._clock.monotonic() >= self._reconcile_at:
            self._reconcile(self._leases.acquire_near(near, lanes), until)
            self._reconcile_at = self._clock.monotonic() + self._polling.interval
            self._reconciler.prune_and_resolve_late()
        moved = [lane for lane in far if self._fill_in(lane, lanes, until)]
        if moved:
            self._engine.prune_claims(self._polling.overlap)
            return 0.0
        if far:
            return _SHORTEST_WAIT
        wait = max(0.0, self._reconcile_at - self._clock.monotonic())
        return wait if self._audit is None else min(wait, self._audit.advance())

    def _find_end(self, lanes: list[Lane]) -> float:
        """Up to when lanes are moved; the archive is asked before each time of reconciling."""
        until = self._archive_end.until
        is_due = self._clock.monotonic() >= self._reconcile_at and any(
            not self._polling.is_far(lane, until) for lane in lanes
        )
        return self._archive_end.look(lanes) if is_due or self._archive_end.is_due else until

    def _reconcile(self, lanes: list[Lane], until: float) -> None:
        if lanes:
            for lane in lanes:
                self._outage.rewind(lane)
            self._reconciler.reconcile(lanes, until)
            self._reconciler.join_homes(lanes)

    def _fill_in(self, lane: Lane, lanes: list[Lane], until: float) -> bool:
        """Move a lane for a while; returns False if it is left to another process, or to none."""
        if self._stop.is_set():
            return False
        if not self._leases.acquire(lane):
            self._lane_log.is_left(lane)
            self._filler.forget(lane)
            return False
        idents = members_of(self._engine, lane)
        self._lane_log.fills_in(lane, idents, holds_live=self._engine.waits_for_history(lane.id))
        if not self._outage.rewind(lane):
            self._filler.fill_in(lane, lanes, until, self._stop)
        return True

    def _unfinished(self) -> tuple[list[str], list[str]]:
        """The idents that are still behind, and those that are not, but in lanes of their own."""
        behind: list[str] = []
        apart: list[str] = []
        for lane in self._ready.read():
            is_ours = leases.is_ours(lane)
            waits = is_ours and self._engine.waits_for_history(lane.id)
            # Others look at the archive at other times.
            slack = 0.0 if is_ours else 2 * max(self._polling.interval, 60.0)
            if waits or watermark_of(lane) < self._archive_end.until - slack:
                behind += members_of(self._engine, lane)
            elif lane.joins is not None:
                apart += set(members_of(self._engine, lane)) - self._engine.blocked
        return behind, apart

    def _end(self) -> None:
        self._filler.forget_all()
        self._leases.release_all()
