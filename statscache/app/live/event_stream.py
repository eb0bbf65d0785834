"""The server-sent events for one listener.

A listener is sent the revision of each ident that it does not know yet, and then every change. So a
client that was away for a while, and says what it knew, gets what it missed; of several changes of
one ident it gets the last. The id of an event says what the listener then knows: the revisions of
its idents, in their order.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Self

import orjson

from statscache.app.live.event_rows import EventRows, RevisionRows
from statscache.app.live.listeners import Listener, Listeners, is_newer
from statscache.app.state.digest import digest
from statscache.app.state.revisions import Revision, Snapshot

RETRY_MILLISECONDS = (2_000, 5_000)
"""When a listener that was cut off connects again: each at another time, so that not all come at
once."""

HEARTBEAT = b":\n\n"
"""A comment, which shows both sides that the other one is there."""

_ID = re.compile(r"([0-9a-f]{8})-([0-9a-f]{1,15}(?:\.[0-9a-f]{1,15})*)")


class EventStream:
    """The events for one listener: the body of an answer, which ends when it is over.

    Args:
        listeners: of the process.
        listener: that they are sent to.
        idents: to tell of.
        known: what the listener has, by ident.
        snapshot: what there is.
        heartbeat: how often something is sent, if there is nothing to tell.
        event_rows: of the rows to send along; None: none are.
    """

    def __init__(
        self,
        listeners: Listeners,
        listener: Listener,
        idents: Sequence[str],
        known: dict[str, Revision],
        snapshot: Snapshot,
        heartbeat: timedelta,
        event_rows: EventRows | None = None,
    ) -> None:
        self.listener = listener
        self.heartbeat = heartbeat.total_seconds()
        self._listeners = listeners
        self._idents = idents
        self._known = known
        self._event_rows = event_rows
        low, high = RETRY_MILLISECONDS
        retry = b"retry: %d\n" % (low + secrets.randbelow(high - low))
        # An id without data is no event, but the client remembers it.
        events = self._events(snapshot)
        self._first = retry + (b"\n" + events if events else self._id() + b"\n")

    def take(self) -> bytes:
        """The events that have not been sent; nothing if there are none."""
        first, self._first = self._first, b""
        snapshot = self._listeners.snapshot
        return first if snapshot is None else first + self._events(snapshot)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """The next events, or a heartbeat; waits for them."""
        beat_at = time.monotonic() + self.heartbeat
        while not self.listener.is_over:
            events = self.take()
            if events:
                return events
            remaining = beat_at - time.monotonic()
            if remaining <= 0:
                return HEARTBEAT
            self.listener.sleep(remaining)
        raise StopIteration

    def close(self) -> None:
        """Make room for another listener."""
        self.listener.close()
        if self._event_rows is not None:
            self._event_rows.release(self._idents)
            self._event_rows = None

    def _events(self, snapshot: Snapshot) -> bytes:
        texts = []
        for ident in self._idents:
            revision = snapshot.revisions.get(ident)
            newest = None if self._event_rows is None else self._event_rows.get(ident)
            if newest is not None:
                # It was read a moment later.
                revision = newest.revision
            if revision is not None and is_newer(revision, self._known.get(ident)):
                self._known[ident] = revision
                texts.append(_data(ident, revision, newest))
        if texts:
            # Only the last one has the id: a client that is cut off before it gets all again.
            texts[-1] = self._id() + texts[-1]
        return b"".join(texts)

    def _id(self) -> bytes:
        numbers = [self._known[i].number if i in self._known else 0 for i in self._idents]
        return f"id: {_name(self._idents)}-{'.'.join(f'{n:x}' for n in numbers)}\n".encode()


def _data(ident: str, revision: Revision, newest: RevisionRows | None) -> bytes:
    said: dict[str, Any] = {
        "ident": ident,
        "revision": revision.number,
        "changed_at": revision.changed_at,
    }
    if newest is not None and newest.rows is not None:
        said["rows"] = orjson.Fragment(newest.rows)
    return b"data: %b\n\n" % orjson.dumps(said)


def _name(idents: Sequence[str]) -> str:
    """Tells lists of idents apart: an id says nothing about other lists."""
    return digest(tuple(idents))[:8]


def known_of(last_event_id: str | None, idents: Sequence[str]) -> dict[str, Revision]:
    """What a listener knows that was sent this id; nothing if it is not one of ours."""
    match = _ID.fullmatch(last_event_id or "")
    if match is None or match[1] != _name(idents):
        return {}
    numbers = [int(text, 16) for text in match[2].split(".")]
    if len(numbers) != len(idents):
        return {}
    return {
        # Only the number is in the id.
        ident: Revision(number, math.inf)
        for ident, number in zip(idents, numbers, strict=True)
        if number
    }
