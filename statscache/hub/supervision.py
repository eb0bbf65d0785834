"""Threads that must run: if one of them ends, the process ends too, with a reason.

A process without one of its threads looks healthy and does nothing. A supervisor such as systemd
only restarts what has ended.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from statscache.clock import Clock

log = logging.getLogger(__name__)

STATUS = 1
"""The exit status of a process that had to end."""

_PATIENCE_TO_NOTE = 5.0
"""Seconds that the database may take to keep the reason."""

_PATIENCE_TO_END = 10.0
"""Seconds that an orderly end may take then."""


StartThread = Callable[[str, Callable[[], None]], threading.Thread]
"""Starts a thread, of a name, that runs a function."""


def daemon(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start a thread that the process need not wait for when it ends."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class Supervisor:
    """Ends the process when a thread that must run does not.

    Args:
        note: keeps the reason where other processes read it; it may wait, or fail.
        stop: asks the process to end in an orderly way; from any thread.
        clock: by which that is waited for.
    """

    def __init__(self, note: Callable[[str], None], stop: Callable[[], None], clock: Clock) -> None:
        self._clock = clock
        self._note = note
        self._stop = stop
        self._failing = threading.Lock()
        self.reason: str | None = None
        """Why the process ends."""
        self.is_ending = False
        """Whether it ends anyway: threads may end now."""

    def start(self, name: str, run: Callable[[], None]) -> threading.Thread:
        """Start a thread that must run until the process ends."""

        def guarded() -> None:
            with self.guard(name):
                run()

        return daemon(name, guarded)

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Around the work of a thread that must not end before the process does."""
        try:
            yield
        except BaseException as error:
            self.fail(f"the thread {name} has ended with {type(error).__name__}", error)
        else:
            if not self.is_ending:
                self.fail(f"the thread {name} has ended by itself")

    def fail(self, reason: str, error: BaseException | None = None) -> None:
        """End the process with :data:`STATUS`, and the reason in the log and for others."""
        log.critical("statscache cannot go on: %s", reason, exc_info=error)
        with self._failing:
            if self.reason is not None:
                return
            self.reason = reason
        atexit.register(self._exit)
        daemon("statscache-end", self._insist)
        daemon("statscache-reason", self._try_to_note).join(_PATIENCE_TO_NOTE)
        self._stop()

    def _try_to_note(self) -> None:
        assert self.reason is not None
        try:
            self._note(self.reason)
        except Exception:
            log.exception("the reason cannot be kept in the database")

    def _insist(self) -> None:
        self._clock.sleep(_PATIENCE_TO_NOTE + _PATIENCE_TO_END)
        log.critical("the process does not end in time, and is ended: %s", self.reason)
        self._exit()

    def _exit(self) -> None:
        # The status of an interpreter that ends in an orderly way cannot be changed otherwise, and
        # other threads may wait for what never comes.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(STATUS)
