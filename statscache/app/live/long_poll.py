"""Long polls: an answer that is delayed until there is something new."""

from __future__ import annotations

import time

from statscache.app.http import parameters
from statscache.app.http.client import Client
from statscache.app.http.parameters import Parameter
from statscache.app.http.response import AwaitedChange
from statscache.app.live.listeners import Listener, Listeners, is_newer

LONGEST = 55
"""Seconds; proxies time out after a minute."""

WAIT = Parameter(
    "wait",
    parameters.number(0, LONGEST),
    "With If-None-Match: if nothing has changed, wait so many seconds for a change.",
    0,
    example="25",
)


class LongPoll:
    """A client that has the newest answer, and waits for a newer one.

    Args:
        listeners: of the process.
        listener: that waits; it is closed at the end.
        awaited: what for, and how long.
    """

    def __init__(self, listeners: Listeners, listener: Listener, awaited: AwaitedChange) -> None:
        self.listener = listener
        self._listeners = listeners
        self._awaited = awaited
        self._until = time.monotonic() + awaited.seconds

    @property
    def remaining(self) -> float:
        """Seconds; 0 when there is no more to wait for."""
        snapshot = self._listeners.snapshot
        newest = None if snapshot is None else snapshot.revisions.get(self._awaited.ident)
        has_changed = newest is not None and is_newer(newest, self._awaited.known)
        if has_changed or self.listener.is_over:
            return 0.0
        return max(0.0, self._until - time.monotonic())

    def complete(self) -> None:
        """Sleep until there is a change, or the time is over."""
        with self.listener:
            while remaining := self.remaining:
                self.listener.sleep(remaining)


def wait_for_change(listeners: Listeners, awaited: AwaitedChange, client: Client) -> bool:
    """Let a client wait. Returns whether it has: some servers see to that themselves.

    Raises:
        Problem: a 429, there is no room.
    """
    if client.deferred:
        return False
    poll = LongPoll(listeners, listeners.add((awaited.ident,), client), awaited)
    if client.deferred is not None:
        client.deferred.append(poll)
        return False
    poll.complete()
    return True
