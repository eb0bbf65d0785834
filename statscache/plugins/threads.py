"""Queues and futures, as plugins of 2015 use them for work beside the stream of messages.

The work is done in a few threads that all plugins of a process share, and that end with it.
"""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import logging
import queue
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.pool import ThreadPool
from typing import Any

__all__ = ["Future", "Queue", "asynchronous"]

log = logging.getLogger(__name__)

_THREADS = 10

Handler = Callable[[Any], Any]
Handlers = Handler | Iterable[Handler] | None


@functools.cache
def _pool() -> ThreadPool:
    return ThreadPool(_THREADS)


class Future:
    """A value that is not known yet, and what is done with it when it is.

    Handlers are called in the order in which they were added. Each gets what the one before has
    returned; from one that raises on, those for failures are called, until one of them returns.

    Args:
        source: the future behind it, of :mod:`concurrent.futures`; a new one by default.
        on_success: handlers of the value: one, or several.
        on_failure: handlers of a :class:`Future.Failure`.
    """

    class AlreadyResolvedError(Exception):
        """It has a value, or has failed, already."""

    class CancellationError(Exception):
        """It was told to quit before it had a value."""

    class Failure:
        """An exception, as handlers get it.

        Attributes:
            error: the exception.
            stack: where it came from, in the form of :func:`inspect.stack`.
        """

        def __init__(self, error: BaseException) -> None:
            self.error = error

        @property
        def stack(self) -> list[inspect.FrameInfo]:
            trace = self.error.__traceback__
            return [] if trace is None else inspect.getinnerframes(trace)

    def __init__(
        self,
        source: concurrent.futures.Future[Any] | None = None,
        on_success: Handlers = None,
        on_failure: Handlers = None,
    ) -> None:
        self._source: concurrent.futures.Future[Any] = source or concurrent.futures.Future()
        self._last = self._source
        for handler in _handlers(on_success):
            self.on_success(handler)
        for handler in _handlers(on_failure):
            self.on_failure(handler)

    def on_success(self, handler: Handler) -> None:
        """Call ``handler`` with the value; at once if it is there."""
        self._add(handler, None)

    def on_failure(self, handler: Handler) -> None:
        """Call ``handler`` with a :class:`Future.Failure`, if it comes to that."""
        self._add(None, handler)

    def fire(self, result: Any) -> None:
        """Set its value.

        Raises:
            AlreadyResolvedError: it has one, or has failed.
        """
        try:
            self._source.set_result(result)
        except concurrent.futures.InvalidStateError:
            raise Future.AlreadyResolvedError from None

    def fail(self, error: BaseException) -> None:
        """Let it fail.

        Raises:
            AlreadyResolvedError: it has a value, or has failed already.
        """
        try:
            self._source.set_exception(error)
        except concurrent.futures.InvalidStateError:
            raise Future.AlreadyResolvedError from None

    def quit(self) -> None:
        """Let it fail with a :class:`Future.CancellationError`, unless it has its value."""
        self._source.cancel()

    @staticmethod
    def success(result: Any, on_success: Handlers = None, on_failure: Handlers = None) -> Future:
        """One that has its value."""
        future = Future(on_success=on_success, on_failure=on_failure)
        future.fire(result)
        return future

    @staticmethod
    def failure(
        error: BaseException, on_success: Handlers = None, on_failure: Handlers = None
    ) -> Future:
        """One that has failed."""
        future = Future(on_success=on_success, on_failure=on_failure)
        future.fail(error)
        return future

    @staticmethod
    def compute(
        function: Callable[..., Any], on_success: Handlers = None, on_failure: Handlers = None
    ) -> Callable[..., Future]:
        """Returns ``function`` as one that runs in a thread and returns a future of its result.

        An exception is logged, whether there are handlers for it or not.
        """

        @functools.wraps(function)
        def start(*arguments: Any, **named: Any) -> Future:
            future = Future(on_success=on_success, on_failure=on_failure)
            _pool().apply_async(_compute, (future, function, arguments, named))
            return future

        return start

    def _add(self, succeed: Handler | None, fail: Handler | None) -> None:
        before, after = self._last, concurrent.futures.Future[Any]()
        self._last = after
        before.add_done_callback(lambda done: _pass_on(done, after, succeed, fail))


asynchronous = Future.compute
"""The same, as a decorator."""


class Queue(queue.Queue[Any]):
    """A queue that never blocks, neither a producer nor a consumer.

    Args:
        size: how many items it holds; None is unlimited.
        backlog: how many may wait for an item; None is unlimited.
    """

    class OverflowError(Exception):  # noqa: A001
        """There is no room for another item."""

    class UnderflowError(Exception):
        """Too many consumers wait for an item."""

    def __init__(self, size: int | None = None, backlog: int | None = None) -> None:
        super().__init__(size or 0)
        self._backlog = backlog
        self._waiting: deque[Future] = deque()

    def enqueue(self, value: Any) -> None:
        """Put an item on it.

        Raises:
            OverflowError: it is full.
        """
        try:
            self.put_nowait(value)
        except queue.Full:
            raise Queue.OverflowError from None

    def dequeue(self) -> Future:
        """A future of the oldest item; its handlers run in a thread.

        Raises:
            UnderflowError: too many consumers wait for an item.
        """
        future = Future()
        with self.mutex:
            if self._qsize():
                _pool().apply_async(self._hand, (future, self._get()))
                self.not_full.notify()
            elif self._backlog is not None and len(self._waiting) >= self._backlog:
                raise Queue.UnderflowError
            else:
                self._waiting.append(future)
        return future

    def _put(self, item: Any) -> None:
        """Called when an item is put, with the lock held."""
        if self._waiting:
            _pool().apply_async(self._hand, (self._waiting.popleft(), item))
        else:
            super()._put(item)

    def _hand(self, future: Future, item: Any) -> None:
        try:
            future.fire(item)
        except Future.AlreadyResolvedError:
            # It has quit meanwhile: another consumer gets the item.
            self.put(item)
        finally:
            self.task_done()


def _handlers(given: Handlers) -> Iterable[Handler]:
    if given is None:
        return ()
    return (given,) if callable(given) else given


def _pass_on(
    done: concurrent.futures.Future[Any],
    after: concurrent.futures.Future[Any],
    succeed: Handler | None,
    fail: Handler | None,
) -> None:
    """Call the handler for the outcome, and pass its result on to the next handlers."""
    # Not raised here, which would add this function to its traceback.
    error = Future.CancellationError() if done.cancelled() else done.exception()
    handler = succeed if error is None else fail
    try:
        if handler is not None:
            after.set_result(handler(done.result() if error is None else Future.Failure(error)))
        elif error is None:
            after.set_result(done.result())
        else:
            after.set_exception(error)
    except Exception as failure:
        log.exception("%r failed", handler)
        after.set_exception(failure)


def _compute(
    future: Future, function: Callable[..., Any], arguments: Any, named: dict[str, Any]
) -> None:
    with suppress(Future.AlreadyResolvedError):  # it has quit meanwhile
        try:
            result = function(*arguments, **named)
        except Exception as error:
            log.exception("%r failed", function)
            future.fail(error)
        else:
            future.fire(result)
