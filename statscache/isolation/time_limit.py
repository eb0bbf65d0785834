"""The time that a plugin may take: it is logged while it takes long, and ended when too long.

Plugins run in the threads that count for all, so that one that sleeps or loops would stall the
others. A thread looks several times a second at which plugin is at work; the plugins themselves run
at full speed. One that has used up its time gets an exception in the midst of its code. Code that
never comes back to Python (it sleeps, or waits for an answer without a timeout) does not notice:
then the process has to end.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

from statscache.clock import Clock
from statscache.errors import OutOfTime, PluginTooSlow
from statscache.message import Message

log = logging.getLogger(__name__)

_LONGEST_INTERVAL = 0.25
"""Seconds between two looks at most."""

_PATIENCE = 5.0
"""Seconds after which a plugin is named in the log."""

_NOTABLE = 1.0
"""Seconds of work, at least, after which the database may have ended an idle session."""

_GRACE = 10.0
"""Seconds that a plugin whose time is up may take to end; no more than it had."""


class Statement(Protocol):
    """A statement of the database that may be under way."""

    @property
    def statement(self) -> str | None:
        """Its text, while it is."""

    def cancel(self) -> None:
        """End it; from any thread."""


class Turn:
    """Which plugin is at work in one thread, and on what.

    Attributes:
        names: the idents of each of the plugins that take turns.
        number: which of them is at work.
        message: the last one that it got.
    """

    __slots__ = (
        "ended_at",
        "fence",
        "guilty",
        "is_given_up",
        "is_told",
        "message",
        "names",
        "number",
        "raised",
        "seconds",
        "since",
        "thread",
        "verdict",
    )

    def __init__(self, names: Sequence[tuple[str, ...]], fence: Statement | None = None) -> None:
        self.names = names
        self.number = 0
        self.message: Message | None = None
        self.fence = fence
        self.thread = threading.get_ident()
        # When it began, by the clock of the TimeLimit, which sets it.
        self.since = 0.0
        self.seconds: dict[int, float] = defaultdict(float)
        self.is_told: set[int] = set()
        # Whose time is up, and since when.
        self.guilty: int | None = None
        self.verdict = ""
        self.ended_at = 0.0
        self.raised = False
        self.is_given_up = False

    def slowest(self) -> tuple[tuple[str, ...], float] | None:
        """The idents of the plugin that took longest, and its seconds; None: none took long."""
        seconds, number = max(((s, n) for n, s in self.seconds.items()), default=(0.0, 0))
        return (self.names[number], seconds) if seconds >= _NOTABLE else None

    def describe(self, number: int) -> str:
        """The plugin, and what it is doing."""
        at = f", at {self.message!r}" if self.message is not None else ""
        statement = self.fence.statement if self.fence is not None else None
        doing = f", in the statement {statement:.200}" if statement else ""
        return f"{', '.join(self.names[number])} (for {self.seconds[number]:.0f} s{at}{doing})"


class TimeLimit:
    """Ends the turn of a plugin that takes too long, while a thread runs :meth:`enforce`.

    Args:
        limit: how long a plugin may take for a batch; None is unlimited.
        clock: by which it is measured.
    """

    def __init__(self, limit: timedelta | None, clock: Clock) -> None:
        self._clock = clock
        self.limit = limit.total_seconds() if limit is not None else None
        self._turns: dict[int, Turn] = {}
        self._changing = threading.Lock()
        self._begun = threading.Event()
        self._has_alarm = False
        self._is_over = False

    def lifted(self) -> TimeLimit:
        """Returns one by the same clock that is unlimited."""
        return TimeLimit(None, self._clock)

    def run_within(self, turn: Turn, work: Callable[[], None]) -> None:
        """Do some ``work``, which keeps ``turn`` up to date.

        Raises:
            PluginTooSlow: its time was up, even where ``work`` caught the exception that was to
                end it.
        """
        try:
            try:
                self._enter(turn)
                work()
            finally:
                self._leave(turn)
        except BaseException as error:
            # The exception from outside may have come within _leave; there is only one.
            self._leave(turn)
            if turn.guilty is None:
                raise
            raise self._verdict(turn) from error
        if turn.guilty is not None:
            raise self._verdict(turn)

    def at_work(self) -> str | None:
        """The plugin that is at work, and what it is doing; None where none is."""
        with self._changing:
            turn = next(iter(self._turns.values()), None)
            return None if turn is None else turn.describe(turn.number)

    def enforce(
        self, give_up: Callable[[tuple[str, ...], str, int], None] = lambda *_: None
    ) -> None:
        """Look at what the plugins do, and end what takes too long, until :meth:`end`.

        Args:
            give_up: called with the idents of a plugin that cannot be ended, a description, and
                the thread.
        """
        self._has_alarm = self.limit is not None and _can_write()
        interval = _LONGEST_INTERVAL
        if self.limit is not None:
            interval = min(interval, self.limit / 10)
        looked_at, worked = self._clock.monotonic(), time.process_time()
        while True:
            self._begun.wait()
            if self._is_over:
                return
            self._clock.sleep(interval)
            now = self._clock.monotonic()
            if now - looked_at > 4 * interval:
                # No plugin was at work while the process stood still, or this thread was idle.
                looked_at = max(looked_at, now - interval - (time.process_time() - worked))
            stuck = self._look(now, looked_at)
            looked_at, worked = now, time.process_time()
            for turn in stuck:
                assert turn.guilty is not None
                give_up(turn.names[turn.guilty], turn.verdict, turn.thread)

    def end(self) -> None:
        """Look no more: no plugin works any more."""
        self._is_over = True
        self._begun.set()

    def _enter(self, turn: Turn) -> None:
        with self._changing:
            turn.since = self._clock.monotonic()
            self._turns[turn.thread] = turn
            self._begun.set()
            self._set_alarm()

    def _leave(self, turn: Turn) -> None:
        with self._changing:
            self._turns.pop(turn.thread, None)
            self._set_alarm()
            if turn.raised:
                # Otherwise it would be raised later, in our own code.
                _raise_in(turn.thread, None)

    def _set_alarm(self) -> None:
        """End the process unless this is called again in time.

        For code that does not release the interpreter lock, so that nothing in Python can end it.
        """
        if self._has_alarm and self.limit is not None:
            if self._turns:
                faulthandler.dump_traceback_later(self.limit + 3 * _GRACE, exit=True)
            else:
                faulthandler.cancel_dump_traceback_later()

    def _verdict(self, turn: Turn) -> PluginTooSlow:
        assert turn.guilty is not None
        return PluginTooSlow(
            f"too slow: {turn.verdict}; statscache.plugins.time_limit is {self.limit:g} s",
            turn.names[turn.guilty],
            turn.seconds[turn.guilty],
        )

    def _look(self, now: float, before: float) -> list[Turn]:
        """See to the time of each plugin at work; returns the turns that do not end."""
        with self._changing:
            if not self._turns:
                self._begun.clear()
            self._set_alarm()
            return [turn for turn in self._turns.values() if self._judge(turn, now, before)]

    def _judge(self, turn: Turn, now: float, before: float) -> bool:
        number = turn.number
        turn.seconds[number] += now - max(before, turn.since)
        seconds = turn.seconds[number]
        is_waiting = turn.fence is not None and turn.fence.statement is not None
        if seconds >= min(_PATIENCE, self.limit or _PATIENCE) and number not in turn.is_told:
            turn.is_told.add(number)
            log.warning("all counting waits for a plugin: %s", turn.describe(number))
        if self.limit is None or (turn.guilty is None and seconds < self.limit):
            return False
        if turn.guilty is None:
            turn.guilty, turn.ended_at, turn.verdict = number, now, turn.describe(number)
            if is_waiting and turn.fence is not None:
                turn.fence.cancel()
        if is_waiting:
            return False  # for the database, which may be the one that is slow
        if not turn.raised:
            turn.raised = True
            _raise_in(turn.thread, OutOfTime)
        if turn.is_given_up or now < turn.ended_at + min(_GRACE, self.limit):
            return False
        turn.is_given_up = True
        return True


def _can_write() -> bool:
    """Whether there is a standard error, where the alarm writes."""
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError):
        return False
    return True


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let a thread find an exception in its way; None takes back what it has not found yet."""
    what = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)
