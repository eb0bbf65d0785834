"""How a dashboard may draw the rows of one ident: ``/api/<ident>/layout``, as in 2015."""

from __future__ import annotations

from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.http.answer import Answer, Lifetime
from statscache.app.http.problems import Problem


def _answer(call: Call) -> Answer:
    layout = call.dataset.layout
    if layout is None:
        ident = call.dataset.ident
        raise Problem(404, f"{ident} has no layout: its plugin does not say how it may be drawn")
    return Answer(layout, lifetime=Lifetime.STATIC)


ROUTE = Route(
    rule="/api/<ident>/layout",
    name="layout",
    summary="How a dashboard may draw the rows of one ident.",
    answer=_answer,
    applies=lambda dataset: dataset.layout is not None,
    scope=Scope.NOTHING,
)
