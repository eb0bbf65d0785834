"""Near the present: compare what was counted live with the archive, for all lanes at once.

This counts what the bus lost. Messages that reach the archive late are found in the overlap of the
next rounds. Messages that arrive later still are decided one by one: see
:mod:`statscache.counting.late`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise

from statscache.archive import Archive, Slice, Window, read
from statscache.audit import shortfall
from statscache.catchup.lane_log import LaneLog
from statscache.catchup.polling import Polling
from statscache.catchup.progress import Progress
from statscache.catchup.ready_lanes import start_of, watermark_of
from statscache.counting import late
from statscache.counting.batch import Batch
from statscache.counting.engine import Engine
from statscache.counting.lanes.lane import Lane
from statscache.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

_LONGEST_LOOK_UP = 2.0
"""Seconds for which late messages are decided at a time."""


class Reconciler:
    """Moves lanes that are near the present up to it.

    Args:
        engine: that counts.
        archive: that is asked.
        polling: how.
        progress: where it is noted what was done.
        lane_log: where it is said.
    """

    def __init__(
        self,
        engine: Engine,
        archive: Archive,
        polling: Polling,
        progress: Progress,
        lane_log: LaneLog,
    ) -> None:
        self._engine = engine
        self._archive = archive
        self._polling = polling
        self._progress = progress
        self._lane_log = lane_log
        self._weighed: set[int] = set()

    def reconcile(self, lanes: Sequence[Lane], until: float) -> int:
        """Count what ``lanes`` lack of an overlap and of what follows, up to ``until``.

        Returns how many messages were counted, once for each lane.

        Raises:
            ArchiveUnavailable: what was done is committed.
            DatabaseUnavailable: the same.
        """
        starts = {min(start_of(lane, self._polling.overlap), until) for lane in lanes}
        numbers = frozenset(lane.id for lane in lanes)
        counted = 0
        # A lane takes no slice that begins before its start, so that one must begin there.
        for start, stop in pairwise([*sorted(starts), until]):
            for piece in read(self._archive, start, stop, concurrency=self._polling.concurrency):
                is_last = piece.window.stop >= until
                outcome = self._engine.commit(Batch.of_slice(numbers, piece, is_last=is_last))
                counted += outcome.counted
                self._progress.messages += piece.size
        for lane in lanes:
            if (
                self._engine.waits_for_history(lane.id)
                and start_of(lane, self._polling.overlap) >= until
            ):
                # There was nothing to read.
                here = Window(watermark_of(lane), watermark_of(lane))
                self._engine.commit(Batch.of_slice({lane.id}, Slice(here), is_last=True))
            self._progress.watermarks[lane.name] = until
            self._lane_log.is_near(lane, until)
        self._progress.tell()
        if counted:
            log.info("%d messages that the bus did not bring came from the archive", counted)
        return counted

    def prune_and_resolve_late(self) -> None:
        """Prune claims that are older than the overlap, and look up messages that came late.

        Raises:
            ArchiveUnavailable: the late messages are decided later.
            DatabaseUnavailable: the same.
        """
        self._engine.prune_claims(self._polling.overlap)
        clock = self._engine.clock
        deadline = clock.monotonic() + _LONGEST_LOOK_UP
        while late.resolve(self._engine, self._archive) and clock.monotonic() < deadline:
            pass

    def join_homes(self, lanes: Sequence[Lane]) -> None:
        """Let each of ``lanes`` join its home, if both have counted the same messages.

        Raises:
            ArchiveUnavailable: it is not known whether it has lost something.
        """
        for lane in lanes:
            if lane.joins is None:
                continue
            try:
                self._weigh(lane, lane.joins)
                self._engine.join(lane.id)
            except DatabaseUnavailable as error:
                log.warning("%s cannot join %s now: %s", lane.name, lane.joins, error)

    def _weigh(self, lane: Lane, home: str) -> None:
        """Check once whether a lane was rebuilt from an archive that has lost messages."""
        if lane.id in self._weighed:
            return
        objection = self._engine.is_rebuilding(lane) and shortfall.objection(
            self._engine, self._archive, home, lane.history_start or 0.0
        )
        if objection:
            self._engine.note_shortfall(lane, objection)
        self._weighed.add(lane.id)
