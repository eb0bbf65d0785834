"""Read a stretch of an archive in windows of suitable width, several at a time, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

from statscache.archive.base import Archive, Slice, Window
from statscache.topics import EVERYTHING

FIRST_WIDTH = 300.0
"""Seconds of the first window."""

_MOST_GROWTH = 4.0
_NARROWEST = 1.0


class Sized(Protocol):
    """What a task gives for a window; widths are chosen so that ``size`` is near the target."""

    @property
    def window(self) -> Window:
        """What it is of: the window that was asked for, or the beginning of it."""

    @property
    def size(self) -> int:
        """How many messages there were."""


S = TypeVar("S", bound=Sized)
Task = Callable[[Archive, Window, tuple[str, ...]], S]


def fetch(archive: Archive, window: Window, topics: tuple[str, ...]) -> Slice:
    """The simplest task: what the archive has."""
    return archive.fetch(window, topics)


def read(
    archive: Archive,
    start: float,
    stop: float,
    topics: tuple[str, ...] = EVERYTHING,
    *,
    task: Task[Any] = fetch,
    executor: Executor | None = None,
    concurrency: int = 1,
    width: float = FIRST_WIDTH,
) -> Iterator[Any]:
    """What ``task`` gives for consecutive windows that cover ``start`` to before ``stop``.

    In the order of time, however many are under way. Empty stretches are crossed in windows that
    grow. Memory is bounded by ``concurrency`` windows.

    Args:
        task: called with the archive, a window and the topics; must be picklable when the
            executor's workers are processes.
        executor: any of ``concurrent.futures``, or with its interface (Dask's); absent, windows
            are fetched by ``concurrency`` threads, or, for 1, by the caller's own, when it asks.
        concurrency: how many windows are under way at a time.
        width: of the first window, in seconds.

    Raises:
        ArchiveUnavailable: in place of the window that could not be fetched.
    """
    pace = _Pace(archive.target, width)
    if executor is None and concurrency == 1:
        while start < stop:
            result = task(archive, pace.window(start, stop), topics)
            pace.learn(result.window, result.size)
            yield result
            start = result.window.stop
        return
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(ThreadPoolExecutor(concurrency))
        under_way: deque[tuple[Window, Future[Any]]] = deque()
        try:
            while True:
                while len(under_way) < concurrency and start < stop:
                    window = pace.window(start, stop)
                    under_way.append((window, executor.submit(task, archive, window, topics)))
                    start = window.stop
                if not under_way:
                    return
                window, future = under_way.popleft()
                result = future.result()
                pace.learn(result.window, result.size)
                if result.window.stop < window.stop:
                    # On from there, in smaller steps; what is under way lies too far ahead.
                    for _, later in under_way:
                        later.cancel()
                    under_way.clear()
                    start = result.window.stop
                yield result
        finally:
            for _, future in under_way:
                future.cancel()


class _Pace:
    """Chooses the widths of windows by how much the last ones held."""

    def __init__(self, target: int, width: float) -> None:
        self._target = target
        self._width = width

    def window(self, start: float, stop: float) -> Window:
        # Ends at whole seconds: archives have their times in them.
        end = float(int(start + max(self._width, _NARROWEST)))
        return Window(start, stop if end >= stop or end <= start else end)

    def learn(self, window: Window, size: int) -> None:
        growth = _MOST_GROWTH if size == 0 else min(self._target / size, _MOST_GROWTH)
        self._width = max(_NARROWEST, (window.stop - window.start) * growth)
