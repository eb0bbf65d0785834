"""The reference: every route and every parameter."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from statscache import people
from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.http.answer import Answer
from statscache.app.pages import rendering
from statscache.app.pages.examples import address_for_browsers, is_by_category, is_telling
from statscache.app.pages.parameters import described
from statscache.app.routes import values
from statscache.plugins.installed.discovery import Dataset


def _answer(call: Call) -> Answer:
    # Examples are of a dataset that shows something, where there is one.
    ranked = sorted(
        call.service.installed.datasets.values(),
        key=lambda dataset: (not is_telling(dataset), not is_by_category(dataset)),
    )
    routes = [
        {
            "route": route,
            "parameters": described(route, None),
            "formats": [name for name in route.offered if name != "html"],
            "example": example,
            "link": None if example is None else address_for_browsers(call, example),
        }
        for route in call.subrequests.routes
        if route.formats != ("html",)
        for example in [_address(route, ranked)]
    ]
    return rendering.page(call, "reference.html", routes=routes)


def _address(route: Route, datasets: Iterable[Dataset]) -> str | None:
    """An address that works, of the first of ``datasets`` that has an answer there."""
    if "<ident>" not in route.rule:
        return route.rule + route.example
    dataset = next(filter(route.applies, datasets), None)
    if dataset is None:
        return None
    rule = route.rule.replace("<ident>", quote(dataset.ident, safe=""))
    if "<column>" in rule:
        names = [name for name in values.columns(dataset) if name not in people.columns(dataset)]
        if not names:
            return None
        rule = rule.replace("<column>", names[0])
    return rule + route.example


ROUTE = Route(
    rule="/reference",
    name="reference",
    summary="Every route and every parameter, for people.",
    answer=_answer,
    formats=("html",),
    scope=Scope.NOTHING,
    state=lambda call, _snapshot: call.request.base,
    schema={"type": "string"},
)
