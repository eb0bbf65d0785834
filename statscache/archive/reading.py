"""Read a stretch of an archive in windows of suitable width, several at a time, in order."""

from __future__ import annotations

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
    """What a task returns for a window; its ``size`` is to be near :attr:`Archive.slice_size`."""

    @property
    def window(self) -> Window:
        """What it is of: the window that was asked for, or the beginning of it."""

    @property
    def size(self) -> int:
        """How many messages there were."""


S = TypeVar("S", bound=Sized)
Task = Callable[[Archive, Window, tuple[str, ...]], S]


def fetch(archive: Archive, window: Window, topics: tuple[str, ...]) -> Slice:
    """The simplest task: returns what the archive has."""
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
    """Yield what ``task`` returns for consecutive windows from ``start`` to before ``stop``.

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
    widths = _Widths(archive, width)
    if executor is None and concurrency == 1:
        while start < stop:
            window = widths.window(start, stop)
            result = task(archive, window, topics)
            widths.learn(window, result)
            yield result
            start = result.window.stop
        return
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(ThreadPoolExecutor(concurrency))
        ahead = _Ahead(start, stop)
        try:
            while True:
                while ahead.under_way < concurrency and (rest := ahead.rest()) is not None:
                    window = widths.window(rest.start, rest.stop)
                    ahead.submit(window, executor.submit(task, archive, window, topics))
                if not ahead.under_way:
                    return
                window, future = ahead.next()
                result = future.result()
                widths.learn(window, result)
                ahead.put_back(result.window.stop, window.stop)
                yield result
        finally:
            ahead.cancel()


class _Ahead:
    """What lies ahead, in the order of time: windows that are under way, and gaps between them."""

    def __init__(self, start: float, stop: float) -> None:
        self._pieces: list[tuple[Window, Future[Any] | None]] = []
        self.put_back(start, stop)

    @property
    def under_way(self) -> int:
        """How many windows are."""
        return sum(future is not None for _, future in self._pieces)

    def rest(self) -> Window | None:
        """Returns the first stretch that is not under way."""
        return next((window for window, future in self._pieces if future is None), None)

    def submit(self, window: Window, future: Future[Any]) -> None:
        """Note that the beginning of :meth:`rest` is under way."""
        place = next(i for i, (_, future) in enumerate(self._pieces) if future is None)
        rest = self._pieces[place][0]
        self._pieces[place] = (window, future)
        self.put_back(window.stop, rest.stop, place + 1)

    def next(self) -> tuple[Window, Future[Any]]:
        """Returns the first one, and removes it."""
        window, future = self._pieces.pop(0)
        assert future is not None
        return window, future

    def put_back(self, start: float, stop: float, place: int = 0) -> None:
        """Note that a stretch, if it is not empty, has still to be fetched."""
        if start < stop:
            self._pieces.insert(place, (Window(start, stop), None))

    def cancel(self) -> None:
        """Cancel what has not started."""
        for _, future in self._pieces:
            if future is not None:
                future.cancel()


class _Widths:
    """Chooses the widths of windows by how much the last ones held."""

    def __init__(self, archive: Archive, width: float) -> None:
        self._archive = archive
        self._width = width

    def window(self, start: float, stop: float) -> Window:
        # Ends at whole seconds: archives have their times in them.
        width = max(min(self._width, self._archive.widest), _NARROWEST)
        end = float(int(start + width))
        return Window(start, stop if end >= stop or end <= start else end)

    def learn(self, asked: Window, result: Sized) -> None:
        growth = _MOST_GROWTH
        if result.window.stop < asked.stop:
            growth = 1.0
        if result.size:
            growth = min(self._archive.slice_size / result.size, growth)
        self._width = max(_NARROWEST, (result.window.stop - result.window.start) * growth)
