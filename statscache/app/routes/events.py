"""Server-sent events: ``/api/<ident>/events`` and ``/api/events``.

A listener is told the revision of each ident that it does not know yet, and then every change. So
who was away for a while, and says what it knew, gets what it missed; of several changes of one
ident it gets the last. The number of an event is what the listener then knows: the revisions of its
idents, in their order.
"""

from __future__ import annotations

import difflib
import math
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Self

import orjson

from statscache.app.dispatch import canonical
from statscache.app.dispatch.route import Answer, Call, Lifetime, Route, Scope, nobody
from statscache.app.http import parameters
from statscache.app.http.parameters import Parameter
from statscache.app.live.event_rows import Newest, NewestRows
from statscache.app.live.listeners import Listener, Listeners, is_newer
from statscache.app.state.revisions import Revision, Snapshot

RETRY_MILLISECONDS = (2_000, 5_000)
"""When a listener that was cut off comes back: each at another time, so that they do not come all
at once."""

HEARTBEAT = b":\n\n"
"""A comment: it shows both sides that the other one is there."""

_NUMBER = re.compile(r"([0-9a-f]{8})-([0-9a-f]{1,15}(?:\.[0-9a-f]{1,15})*)")


class Stream:
    """The events for one listener: the body of an answer, which ends when it is over.

    Args:
        listeners: of the process.
        listener: who listens.
        idents: to tell of.
        known: what the listener has, by ident.
        snapshot: what there is.
        heartbeat: how often something is sent, if there is nothing to tell.
        newest: the rows to send along; None: none.
    """

    def __init__(
        self,
        listeners: Listeners,
        listener: Listener,
        idents: Sequence[str],
        known: dict[str, Revision],
        snapshot: Snapshot,
        heartbeat: timedelta,
        newest: NewestRows | None = None,
    ) -> None:
        self.listener = listener
        self.heartbeat = heartbeat.total_seconds()
        self._listeners = listeners
        self._idents = idents
        self._known = known
        self._newest = newest
        low, high = RETRY_MILLISECONDS
        retry = b"retry: %d\n" % (low + secrets.randbelow(high - low))
        # A number without data is no event, but is remembered.
        events = self._events(snapshot)
        self._first = retry + (b"\n" + events if events else self._number() + b"\n")

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
            self.listener.wait(remaining)
        raise StopIteration

    def close(self) -> None:
        """Make room for another listener."""
        self.listener.close()
        if self._newest is not None:
            self._newest.release(self._idents)
            self._newest = None

    def _events(self, snapshot: Snapshot) -> bytes:
        texts = []
        for ident in self._idents:
            revision = snapshot.revisions.get(ident)
            newest = None if self._newest is None else self._newest.get(ident)
            if newest is not None:
                # Read a moment later.
                revision = newest.revision
            if revision is not None and is_newer(revision, self._known.get(ident)):
                self._known[ident] = revision
                texts.append(_data(ident, revision, newest))
        if texts:
            # Of several the last has the number: who is cut off between them gets all again.
            texts[-1] = self._number() + texts[-1]
        return b"".join(texts)

    def _number(self) -> bytes:
        numbers = [self._known[i].number if i in self._known else 0 for i in self._idents]
        return f"id: {_name(self._idents)}-{'.'.join(f'{n:x}' for n in numbers)}\n".encode()


def _data(ident: str, revision: Revision, newest: Newest | None) -> bytes:
    said: dict[str, Any] = {
        "ident": ident,
        "revision": revision.number,
        "changed_at": revision.changed_at,
    }
    if newest is not None and newest.rows is not None:
        said["rows"] = orjson.Fragment(newest.rows)
    return b"data: %b\n\n" % orjson.dumps(said)


def _name(idents: Sequence[str]) -> str:
    """Tells lists of idents apart: a number says nothing about others."""
    return canonical.digest(tuple(idents))[:8]


def known_of(last_event_id: str | None, idents: Sequence[str]) -> dict[str, Revision]:
    """What a listener has that got this number; nothing if it is not one of ours."""
    match = _NUMBER.fullmatch(last_event_id or "")
    if match is None or match[1] != _name(idents):
        return {}
    numbers = [int(text, 16) for text in match[2].split(".")]
    if len(numbers) != len(idents):
        return {}
    return {
        # The number alone tells.
        ident: Revision(number, math.inf)
        for ident, number in zip(idents, numbers, strict=True)
        if number
    }


def answer(call: Call) -> Answer:
    """The events of one ident, or of several."""
    service = call.service
    idents = _idents(call)
    newest = service.newest if call.values["rows"] == "true" else None
    known = known_of(call.client.last_event_id, idents)
    for ident, revision in known.items():
        # Another worker may have been faster.
        service.revisions.saw(ident, revision)
    listener = service.listeners.join(idents, call.client)
    with ExitStack() as undoing:
        undoing.callback(listener.close)
        if newest is not None:
            newest.want(idents)
            undoing.callback(newest.release, idents)
        snapshot = service.revisions.all()
        for ident in list(known):
            present = snapshot.revisions.get(ident)
            if present is None or present.number < known[ident].number:
                # The database was made anew.
                del known[ident]
        heartbeat = service.settings.heartbeat
        stream = Stream(service.listeners, listener, idents, known, snapshot, heartbeat, newest)
        undoing.pop_all()
    if call.client.deferred is not None:
        call.client.deferred.append(stream)
    return Answer(
        chunks=stream,
        lifetime=Lifetime.NONE,
        # Otherwise nginx keeps the events until they are worth a packet.
        headers={"X-Accel-Buffering": "no"},
    )


def _idents(call: Call) -> tuple[str, ...]:
    if call.found is not None:
        return (call.found.ident,)
    installed = call.service.installed.datasets
    for ident in call.values["ident"]:
        if ident not in installed:
            near = difflib.get_close_matches(ident[:200], installed, n=3)
            parameters.refuse(
                "ident", f"names {ident!r:.80}, which there is not", near or installed
            )
    return tuple(sorted(set(call.values["ident"]))) or tuple(installed)


ROWS = Parameter(
    "rows",
    parameters.choice("false", "true"),
    "Send the rows of the newest buckets along, if they are no more than a few kilobytes.",
    "false",
)
IDENT = Parameter(
    "ident",
    parameters.TEXT,
    "Only events of this ident; several: of any of them.",
    (),
    example="volume-1m",
    repeatable=True,
)

_SCHEMA = {
    "type": "object",
    "description": "The data of an event.",
    "properties": {
        "ident": {"type": "string"},
        "revision": {"type": "integer", "minimum": 1},
        "changed_at": {"type": "number"},
        "rows": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["ident", "revision", "changed_at"],
}

_DESCRIPTION = """\
The answer does not end. An event comes for each ident when the connection is made, and then
whenever rows have changed: a page that knows an older revision fetches them anew. Where several
changes come at once there is one event. A browser that is cut off connects anew by itself, and gets
what it missed (Last-Event-ID). Every few seconds a comment shows that the connection is alive.
There is room for a limited number of listeners; one too many gets 429, with a Retry-After.
"""

OF_ONE = Route(
    rule="/api/<ident>/events",
    name="events",
    summary="An event for each change of one ident, as it happens.",
    description=_DESCRIPTION,
    answer=answer,
    # The rows are those of the route that lists them.
    lists=nobody,
    parameters=(ROWS,),
    formats=("sse",),
    scope=Scope.EVERYTHING,
    schema=_SCHEMA,
)
OF_ALL = Route(
    rule="/api/events",
    name="all_events",
    summary="An event for each change of any ident, as it happens.",
    description=_DESCRIPTION,
    answer=answer,
    parameters=(IDENT, ROWS),
    formats=("sse",),
    scope=Scope.EVERYTHING,
    schema=_SCHEMA,
)

ROUTES = (OF_ALL, OF_ONE)
