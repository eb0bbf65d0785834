"""Far from the present: fill in the history of one lane at a time, in turns.

Windows of the archive are fetched ahead, and folded where the executor says. What was fetched ahead
for a lane is kept from one of its turns to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from statscache.archive import Archive, Window, read
from statscache.archive.reading import fetch
from statscache.catchup.polling import Polling
from statscache.catchup.progress import Progress
from statscache.catchup.ready_lanes import home_of, members_of, start_of, watermark_of
from statscache.catchup.workers import FoldTask
from statscache.counting.batch import Batch
from statscache.counting.engine import Engine
from statscache.counting.folding.folded import Folded
from statscache.counting.lanes.lane import Lane
from statscache.topics import EVERYTHING

_LONGEST_STEP = 2.0
"""Seconds that a lane fills in its history before the next lane does."""

_LONGEST_GAP = 0.1
"""Seconds between two looks of SQLite at whether another process has let go of the lock."""


@dataclass
class _Prefetch:
    """What comes next for a lane, windows under way included.

    Attributes:
        position: the watermark that the lane has when the next result is counted, UNIX seconds.
        results: slices, or what workers folded.
    """

    position: float
    results: Generator[Any, None, None]


class HistoryFiller:
    """Fills in the history of lanes.

    Args:
        engine: that counts.
        archive: that is asked.
        polling: how.
        progress: where it is noted what was done.
        executor: where windows are fetched and folded; absent, in threads of our own.
        config: fedmsg's configuration, with which plugins are made in other processes.
    """

    def __init__(
        self,
        engine: Engine,
        archive: Archive,
        polling: Polling,
        progress: Progress,
        executor: Executor | None,
        config: Mapping[str, Any],
    ) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._archive = archive
        self._polling = polling
        self._progress = progress
        self._executor = executor
        self._config = config
        self._prefetched: dict[int, _Prefetch] = {}

    def fill_in(self, lane: Lane, lanes: list[Lane], until: float, stop: threading.Event) -> None:
        """Move a lane towards ``until`` for the time of a turn, or until ``stop`` is set.

        Raises:
            ArchiveUnavailable: what was done is committed.
            DatabaseUnavailable: the same.
        """
        deadline = self._clock.monotonic() + _LONGEST_STEP
        prefetch = self._prefetch(lane, lanes, until)
        for result in prefetch.results:
            began = self._clock.monotonic()
            self._count(lane, result)
            self._give_way(self._clock.monotonic() - began)
            watermark = result.window.stop
            self._progress.messages += result.size
            self._progress.watermarks[lane.name] = watermark
            self._progress.tell()
            prefetch.position = max(prefetch.position, watermark)
            if self._clock.monotonic() >= deadline or stop.is_set():
                return
        self._prefetched.pop(lane.id, None)

    def forget(self, lane: Lane) -> None:
        """Drop what was fetched ahead for a lane."""
        prefetch = self._prefetched.pop(lane.id, None)
        if prefetch is not None:
            prefetch.results.close()

    def forget_all(self) -> None:
        """Drop what was fetched ahead for any lane."""
        for prefetch in self._prefetched.values():
            prefetch.results.close()
        self._prefetched.clear()

    def _prefetch(self, lane: Lane, lanes: list[Lane], until: float) -> _Prefetch:
        """What comes next for a lane: it reads on, unless another process has moved the lane."""
        prefetch = self._prefetched.get(lane.id)
        if prefetch is not None and prefetch.position == lane.watermark:
            return prefetch
        self.forget(lane)
        plugins = self._engine.plugins_of(lane)
        assert plugins is not None
        topics, stop = self._need(lane, home_of(lane, lanes), until)
        task: Any = fetch
        if self._executor is not None and not plugins.runners:
            task = FoldTask(plugins, self._engine.installed, self._config)
        results: Any = read(
            self._archive,
            # What the archive had late before this process was away for a while is in the overlap.
            start_of(lane, self._polling.overlap),
            stop,
            topics,
            task=task,
            executor=self._executor,
            concurrency=self._polling.concurrency,
        )
        prefetch = self._prefetched[lane.id] = _Prefetch(watermark_of(lane), results)
        return prefetch

    def _need(self, lane: Lane, home: Lane | None, until: float) -> tuple[tuple[str, ...], float]:
        """Returns the topics that a lane needs next, and up to when it needs only those."""
        if home is None or home.claims_pruned_until is None or not members_of(self._engine, home):
            return EVERYTHING, until
        home_start = home.history_start or 0.0
        if watermark_of(lane) < home_start:
            # Its home will remember this as well: all of it.
            return EVERYTHING, min(until, home_start)
        if watermark_of(lane) < home.claims_pruned_until:
            # Up to where its home remembers claims, nothing else is needed. From there on both
            # must claim the same, so that they can be compared.
            plugins = self._engine.plugins_of(lane)
            assert plugins is not None
            return plugins.topics, min(until, home.claims_pruned_until)
        return EVERYTHING, until

    def _count(self, lane: Lane, result: Any) -> None:
        """Count what was fetched, or folded."""
        if not isinstance(result, Folded):
            self._engine.commit(Batch.of_slice({lane.id}, result))
        elif lane.id not in self._engine.commit(Batch.of_folded(lane.id, result)).committed:
            # The lane has counted some of it live, and the sums do not tell which: fold it here.
            window = result.window
            start = window.start
            while start < window.stop:
                piece = self._archive.fetch(Window(start, window.stop))
                self._engine.commit(Batch.of_slice({lane.id}, piece))
                start = piece.window.stop

    def _give_way(self, seconds: float) -> None:
        """After a transaction of so many seconds, let others have SQLite's lock.

        They poll for it, and where windows are folded elsewhere there is no pause between two
        transactions of ours.
        """
        if self._executor is not None and self._engine.database.backend == "sqlite":
            self._clock.sleep(min(seconds / 4, _LONGEST_GAP))
