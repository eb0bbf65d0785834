"""Catch up with the archive: at start, over and over while live messages flow, for new plugins.

That one mechanism fills in history, cures the bus of losing messages, and repairs after a crash.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from statscache.archive import Archive, Slice, Window, read
from statscache.archive.reading import fetch
from statscache.audit import shortfall
from statscache.audit.background import Audit
from statscache.catchup.lane_log import LaneLog
from statscache.catchup.workers import Folded, FoldTask
from statscache.clock import SMALLEST_JUMP
from statscache.config import Settings
from statscache.counting import late
from statscache.counting.engine import Engine
from statscache.counting.lanes import leases
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.counting.lanes.leases import end_lease, end_leases, take_lease, take_lease_over
from statscache.errors import ArchiveUnavailable, DatabaseUnavailable
from statscache.logs.recurring import Recurring
from statscache.message import TIMESTAMP_TOLERANCE
from statscache.times import iso
from statscache.topics import EVERYTHING

log = logging.getLogger(__name__)

_TURN_OF_A_LANE = 2.0
"""Seconds after which a lane that fills in its history lets the others have their turn."""

_PATIENCE = 5.0
"""Seconds beyond the lag that a command waits for a lane to join."""

_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 15.0
"""Seconds between two looks of a command at lanes that others move, or that are to join."""

_LONGEST_GAP = 0.1
"""Seconds between two looks of SQLite at whether somebody else has let go of the lock."""

_SHORTEST_WAIT = 1.0
_LONGEST_WAIT = 300.0
"""Seconds between two tries while the archive cannot be asked, which others ask as well."""

_LONGEST_WAIT_FOR_DATABASE = 30.0

_AGING = 3600.0
"""Seconds after which it is looked what need not be filled in, because it is too old to be kept."""


@dataclass(frozen=True)
class Pace:
    """How the archive is asked; seconds, except where it says.

    Attributes:
        lag: how long after it was sent the archive has a message.
        overlap: how far back it is asked again every time, since rows may come late.
        interval: how often it is asked for what the bus lost.
        concurrency: windows under way at a time.
    """

    lag: float = 60.0
    overlap: float = 900.0
    interval: float = 60.0
    concurrency: int = 1

    @classmethod
    def from_settings(cls, settings: Settings) -> Pace:
        """As it is configured."""
        return cls(
            lag=settings.archive_lag.total_seconds(),
            overlap=settings.archive_overlap.total_seconds(),
            interval=settings.archive_interval.total_seconds(),
            concurrency=settings.archive_concurrency,
        )


@dataclass
class Progress:
    """What has been done since the start.

    Attributes:
        messages: that the archive gave.
        since: of each lane's name, where its history begins, UNIX seconds.
        until: of each lane's name, its watermark, UNIX seconds.
        target: up to when lanes can be moved, UNIX seconds; 0 where that is not known yet.
    """

    messages: int = 0
    since: dict[str, float] = field(default_factory=dict)
    until: dict[str, float] = field(default_factory=dict)
    target: float = 0.0

    def read(self, lanes: Iterable[Lane]) -> None:
        """Note where ``lanes`` are, whoever has moved them; others are not there any more."""
        self.since = {lane.name: lane.history_start or 0.0 for lane in lanes}
        self.until = {lane.name: _watermark(lane) for lane in lanes}


class CatchUp:
    """Moves the watermarks of all lanes towards the present.

    Args:
        engine: that counts; other threads may use it meanwhile.
        archive: that is asked.
        pace: how.
        executor: where windows are fetched and folded; absent, in threads of our own.
        config: fedmsg's configuration, with which plugins are made in other processes.
        idents: the plugins whose lanes are moved; absent, all.
        audit: what goes on in the background when all lanes are near the present.
        report: called now and then with the progress.
        takes_over: whether lanes of aggregates are taken from another process that fills them in,
            once: whoever asked for this has asked for more speed.
    """

    def __init__(
        self,
        engine: Engine,
        archive: Archive,
        pace: Pace,
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
        self._archive = archive
        self._pace = pace
        self._executor = executor
        self._config = config or {}
        self._idents = idents
        self._audit = audit
        self._report = report
        self._takes_over = takes_over
        self._taken: set[int] = set()
        self._weighed: set[int] = set()
        self._stop = threading.Event()
        self._readers: dict[int, tuple[float, Iterator[Any]]] = {}
        self._due = 0.0
        self._look_at = 0.0
        self._target = 0.0
        self._remark = ""
        self._forced: set[int] = set()
        self._log = LaneLog()
        self._aged = 0.0
        self.progress = Progress()

    def run(self, stop: threading.Event) -> None:
        """Go on until ``stop`` is set; nothing that can go wrong ends it."""
        wait = 0.0
        troubles = Recurring()
        self._stop = stop
        while not self._clock.wait(stop, wait):
            try:
                wait = self.turn()
            except (ArchiveUnavailable, DatabaseUnavailable) as error:
                self._forget_readers()
                is_archive = isinstance(error, ArchiveUnavailable)
                longest = _LONGEST_WAIT if is_archive else _LONGEST_WAIT_FOR_DATABASE
                wait = min(max(wait * 2, _SHORTEST_WAIT), longest)
                # Without what differs from try to try.
                if troubles.happened(str(error).partition(": ")[0]):
                    log.error("cannot catch up, next try in %.0f s: %s", wait, error)
                if is_archive:
                    self._let_live_messages_through()
            except Exception as error:
                self._forget_readers()
                if troubles.happened(type(error).__name__):
                    log.exception("catching up failed")
                wait = _LONGEST_WAIT
            else:
                if troubles.ended():
                    log.info("catching up again")
        self._end()

    def run_until_complete(
        self, stop: threading.Event | None = None, *, patience: float | None = None
    ) -> list[str]:
        """Go on until all the lanes have come up to the present, and have joined.

        The present is the newest message that the archive has, or now, less the lag.

        Gives the idents that are complete and could not join yet, because the others have counted
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
            patience = self._pace.lag + _PATIENCE
        deadline = None
        pause = _SHORTEST_PAUSE
        try:
            while not self._stop.is_set():
                wait = self.turn()
                behind, apart = self._unfinished()
                if not behind:
                    deadline = deadline or self._clock.monotonic() + patience
                    if not apart or self._clock.monotonic() >= deadline:
                        return apart
                if wait == 0.0:
                    pause = _SHORTEST_PAUSE
                    continue
                # The archive is asked again each time: less and less often.
                self._tell()
                self._clock.wait(self._stop, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                self._due = self._look_at = 0.0
            return []
        finally:
            self._end()

    def turn(self) -> float:
        """Do a part of what is to be done; gives the seconds until there is more.

        Raises:
            ArchiveUnavailable: what was done is committed.
            DatabaseUnavailable: the same.
        """
        lanes = self._lanes()
        self.progress.read(lanes)
        target = self.progress.target = self._present(lanes)
        far = [lane for lane in lanes if self._is_far(lane, target)]
        near = [lane for lane in lanes if lane not in far]
        if near and self._clock.monotonic() >= self._due:
            ours = self._leave_to_others(near, lanes)
            if ours:
                self._rewind(ours)
                self._reconcile(ours, target)
                self._join(ours)
            self._due = self._clock.monotonic() + self._pace.interval
            self._engine.prune_claims(self._pace.overlap)
            self._resolve()
        moved = [lane for lane in far if self._fill_in(lane, lanes, target)]
        if moved:
            self._engine.prune_claims(self._pace.overlap)
            return 0.0
        if far:
            return _SHORTEST_WAIT
        wait = max(0.0, self._due - self._clock.monotonic())
        return wait if self._audit is None else min(wait, self._audit.advance())

    def _present(self, lanes: list[Lane]) -> float:
        """Up to when lanes can be moved: the present, as far as the archive has shown it.

        That is the second of its newest message, and never later than the clock less the lag. The
        clock alone would not do: if it jumps ahead, what comes afterwards would be behind the
        watermark.
        """
        now = self._clock.monotonic()
        is_due = now >= self._due and any(not self._is_far(x, self._target) for x in lanes)
        if now < self._look_at and not is_due:
            return self._target
        clock = float(int(self._clock.time() - self._pace.lag))
        shown = max((_watermark(lane) for lane in lanes), default=0.0)
        newest = self._archive.newest(shown, clock)
        if newest is not None:
            shown = max(shown, float(int(newest) + 1))
        if any(_watermark(lane) > (lane.history_start or 0.0) for lane in lanes):
            self._compare(clock, shown)
        self._target = min(clock, shown)
        if self._target - self._aged > _AGING:
            self._engine.note_ages(self._target)
            self._aged = self._target
        self._look_at = now + self._pace.interval
        return self._target

    def _compare(self, clock: float, shown: float) -> None:
        """Say so when the clock and the archive come to differ."""
        remark = ""
        if shown - clock > SMALLEST_JUMP:
            remark = "is behind what the archive has given: later messages are not asked for"
        elif clock - shown > max(self._pace.overlap, 2 * self._pace.interval):
            remark = "is ahead of the newest message of the archive: that one is waited for"
        if remark and remark != self._remark:
            seconds = abs(clock - shown)
            log.warning("the clock %s (%.0f s, at %s)", remark, seconds, iso(shown))
        self._remark = remark

    def _resolve(self) -> None:
        """Find out about late messages, as long as a turn lasts."""
        deadline = self._clock.monotonic() + _TURN_OF_A_LANE
        while late.resolve(self._engine, self._archive) and self._clock.monotonic() < deadline:
            pass

    def _lanes(self) -> list[Lane]:
        """Those that have plugins that want messages, and are to be moved."""
        now = self._clock.time()
        with self._engine.transaction() as connection:
            lanes = read_lanes(connection)
        for lane in lanes:
            if lane.retry_at is not None and lane.retry_at > now:
                self._log.rests(lane)
        ready = [
            lane
            for lane in lanes
            if lane.watermark is not None
            and not lane.rests(now)
            and self._engine.crew(lane) is not None
        ]
        if self._idents is None:
            return ready
        wanted = [lane for lane in ready if self._idents.intersection(self._members(lane))]
        # A lane can join only one that is as far as it is.
        homes = {lane.joins for lane in wanted}
        return wanted + [lane for lane in ready if lane.name in homes and lane not in wanted]

    def _members(self, lane: Lane) -> tuple[str, ...]:
        crew = self._engine.crew(lane)
        return crew.idents if crew is not None else ()

    def _is_far(self, lane: Lane, target: float) -> bool:
        assert lane.watermark is not None
        return target - lane.watermark > max(self._pace.overlap, 2 * self._pace.interval)

    def _unfinished(self) -> tuple[list[str], list[str]]:
        """The idents that are still behind, and those that are not, but in lanes of their own."""
        behind: list[str] = []
        apart: list[str] = []
        for lane in self._lanes():
            is_ours = leases.is_ours(lane)
            waits = is_ours and self._engine.waits(lane.id)
            # Others look at the archive at other times.
            target = self._target - (0.0 if is_ours else 2 * max(self._pace.interval, 60.0))
            if waits or _watermark(lane) < target:
                behind += self._members(lane)
            elif lane.joins is not None:
                apart += set(self._members(lane)) - self._engine.shadows.held
        return behind, apart

    # Who works at which lanes.

    def _acquire(self, lane: Lane) -> bool:
        """Whether the lane is left to this process."""
        with self._engine.transaction() as connection:
            now = self._clock.time()
            if self._takes_over and not lane.ordered and lane.id not in self._taken:
                self._taken.add(lane.id)
                take_lease_over(connection, lane, now)
            elif not take_lease(connection, lane, now):
                return False
            crew = self._engine.crew(lane)
        if lane.leased_by != leases.owner() and crew is not None:
            for runner in crew.runners:
                # Another process may have written since it looked at its table.
                runner.renew()
        return True

    def _leave_to_others(self, near: list[Lane], lanes: list[Lane]) -> list[Lane]:
        """Those of the lanes near the present that this process moves.

        Any process may reconcile aggregates, even several at a time. Classic plugins remember
        things, so that all of them are run by one process: the one that has the ordered lane.
        """
        ours = []
        for lane in near:
            home = next((other for other in lanes if other.name == lane.joins), None)
            if not lane.ordered or ((home is None or self._acquire(home)) and self._acquire(lane)):
                ours.append(lane)
            elif leases.is_ours(lane):
                with self._engine.transaction() as connection:
                    end_lease(connection, lane)
        return ours

    def _end(self) -> None:
        """Let others go on."""
        self._forget_readers()
        try:
            with self._engine.transaction() as connection:
                end_leases(connection)
        except DatabaseUnavailable as error:
            log.info("the leases will run out: %s", error)

    # Near the present: all lanes at once, and an overlap again.

    def _reconcile(self, lanes: list[Lane], target: float) -> None:
        starts = {min(self._start(lane), target) for lane in lanes}
        numbers = frozenset(lane.id for lane in lanes)
        counted = 0
        # A lane takes no slice that begins before its start, so that one must begin there.
        for start, stop in pairwise([*sorted(starts), target]):
            for piece in read(self._archive, start, stop, concurrency=self._pace.concurrency):
                is_last = piece.window.stop >= target
                outcome = self._engine.count_slice(numbers, piece, is_last=is_last)
                counted += outcome.counted
                self.progress.messages += piece.size
        for lane in lanes:
            if self._engine.waits(lane.id) and self._start(lane) >= target:
                # There was nothing to read.
                here = Window(_watermark(lane), _watermark(lane))
                self._engine.count_slice({lane.id}, Slice(here), is_last=True)
            self.progress.until[lane.name] = target
            self._log.is_near(lane, target)
        self._tell()
        if counted:
            log.info("%d messages that the bus did not bring came from the archive", counted)

    def _start(self, lane: Lane) -> float:
        start = max(_watermark(lane) - self._pace.overlap, lane.history_start or 0.0)
        return (
            start
            if lane.claims_pruned_until is None
            else max(start, lane.claims_pruned_until + TIMESTAMP_TOLERANCE)
        )

    def _rewind(self, lanes: list[Lane]) -> None:
        """Fill in anew what classic plugins saw while the archive could not be asked."""
        for lane in lanes:
            if lane.id in self._forced:
                self._archive.fetch(Window(_watermark(lane), _watermark(lane) + 1.0))
                self._engine.rewind(lane.id)
                self._forced.discard(lane.id)

    def _let_live_messages_through(self) -> None:
        try:
            waiting = [
                lane.id
                for lane in self._lanes()
                if self._engine.waits(lane.id) and leases.is_ours(lane)
            ]
            if waiting:
                log.warning("classic plugins get live messages without their history")
                self._engine.flow()
                self._forced.update(waiting)
        except DatabaseUnavailable as error:
            log.error("the database is away too: %s", error)

    def _join(self, lanes: list[Lane]) -> None:
        for lane in lanes:
            if lane.joins is None:
                continue
            try:
                self._weigh(lane, lane.joins)
                self._engine.join(lane.id)
            except DatabaseUnavailable as error:
                log.warning("%s cannot join %s now: %s", lane.name, lane.joins, error)

    def _weigh(self, lane: Lane, home: str) -> None:
        """See, once, whether what was rebuilt came from an archive that has lost something."""
        if lane.id in self._weighed:
            return
        with self._engine.transaction() as connection:
            is_rebuilding = self._engine.shadows.is_rebuilding(connection, lane)
        objection = is_rebuilding and shortfall.objection(
            self._engine, self._archive, home, lane.history_start or 0.0
        )
        if objection:
            with self._engine.transaction() as connection:
                self._engine.shadows.note_shortfall(connection, lane, objection)
        self._weighed.add(lane.id)

    # Far from it: each lane by itself, in turns.

    def _fill_in(self, lane: Lane, lanes: list[Lane], target: float) -> bool:
        """Move a lane for a while; False if that is left to another process, or to nobody."""
        if self._stop.is_set():
            return False
        if not self._acquire(lane):
            self._log.is_left(lane)
            self._forget_reader(lane)
            return False
        self._log.fills_in(lane, self._members(lane), holds_live=self._engine.waits(lane.id))
        if lane.id in self._forced:
            self._rewind([lane])
            return True
        deadline = self._clock.monotonic() + _TURN_OF_A_LANE
        for result in self._reader(lane, lanes, target):
            began = self._clock.monotonic()
            stop = self._count(lane, result)
            self._give_way(self._clock.monotonic() - began)
            self.progress.messages += result.size
            self.progress.until[lane.name] = stop
            self._tell()
            position, reader = self._readers[lane.id]
            self._readers[lane.id] = (max(position, stop), reader)
            if self._clock.monotonic() >= deadline or self._stop.is_set():
                return True
        self._readers.pop(lane.id, None)
        return True

    def _give_way(self, seconds: float) -> None:
        """After a transaction of so many seconds, let others have SQLite's lock.

        They look for it now and then only, and where windows are folded elsewhere nothing lies
        between two transactions of ours.
        """
        if self._executor is not None and self._engine.uri.startswith("sqlite"):
            self._clock.sleep(min(seconds / 4, _LONGEST_GAP))

    def _reader(self, lane: Lane, lanes: list[Lane], target: float) -> Iterator[Any]:
        """Reads on where it stopped, unless the lane has been moved by somebody else."""
        position, reader = self._readers.get(lane.id, (None, None))
        if reader is not None and position == lane.watermark:
            return reader
        self._forget_reader(lane)
        crew = self._engine.crew(lane)
        assert crew is not None
        topics: tuple[str, ...] = EVERYTHING
        stop = target
        home = next((other for other in lanes if other.name == lane.joins), None)
        if home is not None and home.claims_pruned_until is not None and self._members(home):
            if _watermark(lane) < (home.history_start or 0.0):
                # Its home will remember this as well: all of it.
                stop = min(target, home.history_start or 0.0)
            elif _watermark(lane) < home.claims_pruned_until:
                # Up to where its home remembers claims, nothing else is needed. From there on both
                # must claim the same, so that they can be compared.
                topics, stop = crew.topics, min(target, home.claims_pruned_until)
        task: Any = fetch
        if self._executor is not None and not crew.runners:
            task = FoldTask(crew, self._engine.installed, self._config)
        made = read(
            self._archive,
            # What the archive had late before we were away for a while is asked for here.
            self._start(lane),
            stop,
            topics,
            task=task,
            executor=self._executor,
            concurrency=self._pace.concurrency,
        )
        self._readers[lane.id] = (_watermark(lane), made)
        return made

    def _count(self, lane: Lane, result: Any) -> float:
        """Count what was fetched, or folded; gives up to when."""
        window: Window = result.window
        if not isinstance(result, Folded):
            self._engine.count_slice({lane.id}, result)
        elif not self._engine.count_folded(lane.id, result):
            start = window.start
            while start < window.stop:
                piece = self._archive.fetch(Window(start, window.stop))
                self._engine.count_slice({lane.id}, piece)
                start = piece.window.stop
        return window.stop

    def _forget_reader(self, lane: Lane) -> None:
        _, reader = self._readers.pop(lane.id, (None, None))
        if reader is not None:
            reader.close()  # type: ignore[attr-defined]

    def _forget_readers(self) -> None:
        for _, reader in self._readers.values():
            reader.close()  # type: ignore[attr-defined]
        self._readers.clear()

    def _tell(self) -> None:
        if self._report is not None:
            self._report(self.progress)


def _watermark(lane: Lane) -> float:
    assert lane.watermark is not None
    return lane.watermark
