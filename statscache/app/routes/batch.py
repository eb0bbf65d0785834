"""``/api/batch``: several answers in one, all of one moment, so that a page needs one request."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.http import formats, parameters
from statscache.app.http.answer import Answer
from statscache.app.http.parameters import Parameter
from statscache.app.http.problems import Problem
from statscache.app.http.request import Request
from statscache.app.http.response import Response
from statscache.app.state.revisions import Snapshot

MOST_QUERIES = 20

_JSON = "application/json"


def _answer(call: Call) -> Answer:
    if not call.values["q"]:
        parameters.refuse("q", "is missing: say what to answer, as in q=/api/volume-1d?limit=1")
    return Answer({"answers": [_one(call, text) for text in call.values["q"]]})


def _one(call: Call, text: str) -> dict[str, Any]:
    """The answer to one address: as it would be alone, with its status and ETag."""
    call.transaction.check_time()
    try:
        request = _request(call, text)
        response = call.subrequests.respond(request, transaction=call.transaction)
        if not isinstance(response, Response):
            response.body.close()
            raise _not_json(text)
        headers = dict(response.headers)
        if not headers["Content-Type"].startswith(_JSON):
            raise _not_json(text)
    except Problem as problem:
        body = orjson.Fragment(problem.response().get_data())
        return {"q": text, "status": problem.status, "etag": None, "body": body}
    return {
        "q": text,
        "status": response.status,
        "etag": headers.get("ETag"),
        "link": headers.get("Link"),
        "body": orjson.Fragment(response.body),
    }


def _state(call: Call, snapshot: Snapshot) -> Hashable:
    """What the answers depend on: all that each of them does, and the address in their links."""
    return call.request.base, tuple(_validator(call, text, snapshot) for text in call.values["q"])


def _validator(call: Call, text: str, snapshot: Snapshot) -> Hashable:
    try:
        return call.subrequests.validator_of(_request(call, text), snapshot)
    except Problem as problem:
        return problem.status, problem.detail


def _request(call: Call, text: str) -> Request:
    path, _, rest = text.partition("?")
    request = call.request._replace(
        path=unquote_to_bytes(path).decode("latin-1"),
        query=rest.encode("utf-8", "replace").decode("latin-1"),
        accept=_JSON,
        accept_encoding="",
    )
    is_ours = request.path.startswith("/api/")
    # However the address is escaped: a batch of batches would be more than may be asked at once.
    route = call.subrequests.route_of(request) if is_ours else None
    if route is None or route.name == ROUTE.name:
        raise Problem(
            400,
            f"{text!r:.200} cannot be answered here: q takes an address below /api/, such as "
            "/api/volume-1d?limit=1, percent-encoded as a whole",
            parameter="q",
        )
    if route.formats == (formats.ENDLESS,):
        raise Problem(400, "events have no end: ask for them alone", parameter="q")
    return request


def _not_json(text: str) -> Problem:
    return Problem(
        400, f"{text!r:.200} does not answer JSON: leave out format and callback", parameter="q"
    )


ROUTE = Route(
    rule="/api/batch",
    name="batch",
    summary=f"Up to {MOST_QUERIES} answers in one.",
    description=(
        "Each q is an address of this API, percent-encoded as a whole. The answers come in the "
        "order of the questions, each with its status: one that cannot be given does not spoil "
        "the others. All are of one moment."
    ),
    answer=_answer,
    parameters=(
        Parameter(
            "q",
            parameters.TEXT,
            "An address, such as /api/volume-1d?limit=1.",
            default=(),
            example="/api/volume-1d?limit=1",
            repeatable=True,
            most=MOST_QUERIES,
            is_required=True,
        ),
    ),
    scope=Scope.NOTHING,
    state=_state,
    schema={
        "type": "object",
        "properties": {
            "answers": {
                "type": "array",
                "maxItems": MOST_QUERIES,
                "items": {
                    "type": "object",
                    "properties": {
                        "q": {"type": "string"},
                        "status": {"type": "integer"},
                        "etag": {"type": ["string", "null"]},
                        "link": {"type": ["string", "null"], "description": "The header Link."},
                        "body": {"description": "What that address answers alone."},
                    },
                    "required": ["q", "status", "etag", "body"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["answers"],
        "additionalProperties": False,
    },
    example="?q=/api/&q=/api/plugins",
)
