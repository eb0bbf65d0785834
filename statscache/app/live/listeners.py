"""Clients that wait for changes: one thread watches for all listeners of a process.

So a change costs the same queries for one listener as for hundreds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Self

from statscache.app.http.client import Client
from statscache.app.http.problems import Problem
from statscache.app.state.revisions import Revision, Revisions, Snapshot
from statscache.errors import StatscacheError

log = logging.getLogger(__name__)

WITHOUT_THREADS = 500
"""Listeners of a process where none of them takes a thread."""

UNKNOWN_THREADS = 2
"""Listeners of a process whose number of threads is not known."""

RETRY_AFTER = 30
"""Seconds after which a listener that found no room may come again."""

LOOK_EVERY = 1.0
"""Seconds between two checks whether a client is still there, and the server not about to end."""

PAUSE = 1.0
"""Seconds until a database that did not answer is asked again."""


class Listeners:
    """All listeners of a process, and the thread that wakes them.

    Args:
        revisions: what they wait for.
        maximum: how many there may be; None: as many as suit the server.
        before_waking: called with the idents that changed, once for all listeners.
    """

    def __init__(
        self,
        revisions: Revisions,
        maximum: int | None,
        before_waking: Callable[[Collection[str]], None],
    ) -> None:
        self._revisions = revisions
        self._configured = maximum
        self.maximum = UNKNOWN_THREADS if maximum is None else maximum
        self.is_ending: Callable[[], bool] = _never
        """Whether the server is about to end, and waits only for the listeners."""
        self.snapshot: Snapshot | None = None
        """What the thread has seen last."""
        self._before_waking = before_waking
        self._lock = threading.Lock()
        self._all: set[Listener] = set()
        self._thread: threading.Thread | None = None

    def leave_threads(self, threads: int) -> None:
        """Let listeners take half of the threads of the server at most; each takes one."""
        half = threads // 2
        self.maximum = half if self._configured is None else min(self._configured, half)

    def take_no_threads(self) -> None:
        """Say that listeners of this server wait without threads."""
        self.maximum = WITHOUT_THREADS if self._configured is None else self._configured

    def __len__(self) -> int:
        return len(self._all)

    def add(self, idents: Iterable[str], client: Client) -> Listener:
        """A new listener, which must be closed at the end.

        Raises:
            Problem: a 429, there is no room.
            DatabaseUnavailable, SchemaError: the revisions cannot be told.
        """
        if not client.may_wait:
            raise _full(
                "this server answers one request at a time, and whoever waits would keep all "
                "others waiting: run it with threads, or 'statscache events' beside it"
            )
        listener = Listener(self, frozenset(idents), client)
        with self._lock:
            if len(self._all) >= self.maximum:
                self._dismiss_gone()
            if len(self._all) >= self.maximum:
                raise _full(
                    f"{self.maximum} clients wait for changes here already, which is the most "
                    "(statscache.app.maximum_listeners): come again later, or ask with "
                    "If-None-Match from time to time"
                )
            self._all.add(listener)
        try:
            snapshot = self._revisions.all()
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self.snapshot = snapshot
                    self._thread = threading.Thread(
                        target=self._watch, args=(snapshot,), name="statscache-events", daemon=True
                    )
                    self._thread.start()
        except BaseException:
            listener.close()
            raise
        return listener

    def remove(self, listener: Listener) -> None:
        """Forget ``listener``."""
        with self._lock:
            self._all.discard(listener)

    def _dismiss_gone(self) -> None:
        """Remove those that have hung up before their threads notice: a page was reloaded, say."""
        for listener in [listener for listener in self._all if listener.is_over]:
            self._all.discard(listener)
            listener.wake()

    def _watch(self, known: Snapshot) -> None:
        is_well = True
        while True:
            with self._lock:
                if not self._all:
                    self._thread = None
                    return
            try:
                snapshot = self._revisions.next_after(known, LOOK_EVERY)
                changed = _changed(known, snapshot)
                if changed:
                    self._before_waking(changed)
                is_well = True
            except Exception as error:
                if is_well:
                    known_error = isinstance(error, StatscacheError)
                    log.warning("listeners wait: %s", error, exc_info=not known_error)
                is_well = False
                time.sleep(PAUSE)
                continue
            self.snapshot = known = snapshot
            self._wake(changed)

    def _wake(self, changed: frozenset[str]) -> None:
        is_ending = self.is_ending()
        with self._lock:
            listeners = list(self._all)
        for listener in listeners:
            if is_ending or not listener.idents.isdisjoint(changed):
                listener.wake()


class Listener:
    """A client that waits for changes of some idents.

    Attributes:
        idents: whose changes.
        wake: called by another thread when there may be one.
    """

    def __init__(self, listeners: Listeners, idents: frozenset[str], client: Client) -> None:
        self.idents = idents
        self._listeners = listeners
        self._client = client
        self._woken = threading.Event()
        self.wake: Callable[[], None] = self._woken.set

    @property
    def is_over(self) -> bool:
        """Whether the client is gone, or the server about to end."""
        return self._client.is_gone() or self._listeners.is_ending()

    def sleep(self, seconds: float) -> None:
        """Sleep until there may be a change, ``seconds`` at most, or it is over."""
        deadline = time.monotonic() + seconds
        while not self.is_over:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or self._woken.wait(min(remaining, LOOK_EVERY)):
                break
        self._woken.clear()

    def close(self) -> None:
        """Make room for another listener."""
        self._listeners.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def is_newer(revision: Revision, known: Revision | None) -> bool:
    """Whether ``revision`` came after ``known``; a new database counts from 1."""
    return known is None or revision.number > known.number or revision.changed_at > known.changed_at


def _changed(old: Snapshot, new: Snapshot) -> frozenset[str]:
    if old is new:
        return frozenset()
    return frozenset(
        ident for ident, revision in new.revisions.items() if old.revisions.get(ident) != revision
    )


def _full(detail: str) -> Problem:
    return Problem(429, detail, headers={"Retry-After": str(RETRY_AFTER)})


def _never() -> bool:
    return False
