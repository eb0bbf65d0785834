"""Server-sent events: ``/api/<ident>/events`` and ``/api/events``."""

from __future__ import annotations

import difflib
from contextlib import ExitStack
from functools import partial

from statscache.app.dispatch.route import Call, Route, Scope, no_people
from statscache.app.http import parameters
from statscache.app.http.answer import Answer, Lifetime
from statscache.app.http.parameters import Parameter
from statscache.app.live.event_rows import EventRows
from statscache.app.live.event_stream import EventStream, known_of
from statscache.app.live.listeners import Listeners


def _answer(listeners: Listeners, event_rows: EventRows, call: Call) -> Answer:
    """The events of one ident, or of several."""
    revisions = call.service.revisions
    idents = _idents(call)
    sends_rows = call.values["rows"] == "true"
    known = known_of(call.client.last_event_id, idents)
    for ident, revision in known.items():
        # Another worker may have been faster.
        revisions.observe(ident, revision)
    listener = listeners.add(idents, call.client)
    with ExitStack() as undoing:
        undoing.callback(listener.close)
        if sends_rows:
            event_rows.want(idents, revisions.all())
            undoing.callback(event_rows.release, idents)
        snapshot = revisions.all()
        for ident in list(known):
            present = snapshot.revisions.get(ident)
            if present is None or present.number < known[ident].number:
                # It is of a former database.
                del known[ident]
        stream = EventStream(
            listeners,
            listener,
            idents,
            known,
            snapshot,
            call.service.settings.heartbeat,
            event_rows if sends_rows else None,
        )
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


def routes(listeners: Listeners, event_rows: EventRows) -> tuple[Route, ...]:
    """The routes, whose clients are among ``listeners``."""
    answer = partial(_answer, listeners, event_rows)
    return (
        Route(
            rule="/api/events",
            name="all_events",
            label="events",
            summary="An event for each change of any ident, as it happens.",
            description=_DESCRIPTION,
            answer=answer,
            parameters=(IDENT, ROWS),
            formats=("sse",),
            scope=Scope.EVERYTHING,
            schema=_SCHEMA,
        ),
        Route(
            rule="/api/<ident>/events",
            name="events",
            summary="An event for each change of one ident, as it happens.",
            description=_DESCRIPTION,
            answer=answer,
            # The rows are those of the route that lists them.
            lists=no_people,
            parameters=(ROWS,),
            formats=("sse",),
            scope=Scope.EVERYTHING,
            schema=_SCHEMA,
        ),
    )
