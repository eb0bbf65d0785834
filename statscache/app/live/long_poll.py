"""Long polls: an answer that is held back until there is something new."""

from __future__ import annotations

import time

from statscache.app.http import parameters
from statscache.app.http.client import Client
from statscache.app.http.parameters import Parameter
from statscache.app.http.reply import Wait
from statscache.app.live.listeners import Listener, Listeners, is_newer

LONGEST = 55
"""Seconds; proxies give up after a minute."""

WAIT = Parameter(
    "wait",
    parameters.number(0, LONGEST),
    "With If-None-Match: if nothing has changed, wait so many seconds for a change.",
    0,
    example="25",
)


class Hold:
    """A client that has the newest answer, and waits for another one.

    Args:
        listeners: of the process.
        listener: who waits; is closed at the end.
        wait: for what, and how long.
    """

    def __init__(self, listeners: Listeners, listener: Listener, wait: Wait) -> None:
        self.listener = listener
        self._listeners = listeners
        self._wait = wait
        self._until = time.monotonic() + wait.seconds

    @property
    def remaining(self) -> float:
        """Seconds; 0 when there is no more to wait for."""
        snapshot = self._listeners.snapshot
        newest = None if snapshot is None else snapshot.revisions.get(self._wait.ident)
        is_there = newest is not None and is_newer(newest, self._wait.known)
        if is_there or self.listener.is_over:
            return 0.0
        return max(0.0, self._until - time.monotonic())

    def last(self) -> None:
        """Wait as long as there is something to wait for."""
        with self.listener:
            while remaining := self.remaining:
                self.listener.wait(remaining)


def hold(listeners: Listeners, wait: Wait, client: Client) -> bool:
    """Let a client wait; gives whether it has: some servers see to that themselves.

    Raises:
        Problem: a 429, there is no room.
    """
    if client.deferred:
        return False
    held = Hold(listeners, listeners.join((wait.ident,), client), wait)
    if client.deferred is not None:
        client.deferred.append(held)
        return False
    held.last()
    return True
