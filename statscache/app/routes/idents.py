"""The idents of all that is served: ``/api/``, as in 2015."""

from __future__ import annotations

from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.http.answer import Answer, Lifetime


def _answer(call: Call) -> Answer:
    return Answer(list(call.service.installed.datasets), lifetime=Lifetime.STATIC)


ROUTE = Route(
    rule="/api/",
    name="idents",
    summary="The idents of all that is served.",
    answer=_answer,
    scope=Scope.NOTHING,
    schema={"type": "array", "items": {"type": "string"}},
)
