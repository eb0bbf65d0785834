"""The table of routes: which route answers an address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from statscache.app.dispatch.route import Route
from statscache.app.http.problems import nothing_there

_OTHER = "other"
"""What addresses are called that no route has."""


class RouteTable:
    """All the routes of an application; the only place where addresses are matched to them.

    Args:
        routes: in the order in which documents list them.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = {route.name: route for route in routes}
        rules = [Rule(route.rule, endpoint=name) for name, route in self._routes.items()]
        self._map = Map(rules, strict_slashes=False)
        self._by_last_part = {
            route.rule.rpartition("/")[2]: route.name
            for route in self
            if not route.rule.endswith(">") and "<column>" not in route.rule
        }

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def match(self, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route of an address, a WSGI string, and the parts that its rule names.

        Raises:
            Problem: a 404.
        """
        text = path.encode("latin-1").decode("utf-8", "replace")
        try:
            name, arguments = self._map.bind("").match(text)
        except HTTPException:
            raise nothing_there() from None
        return self._routes[name], arguments

    def add_to(self, app: flask.Flask, view: Callable[..., Any]) -> None:
        """Let ``view`` answer all addresses of the table in ``app``."""
        app.url_map.strict_slashes = False
        for route in self:
            app.add_url_rule(route.rule, route.name, view)

    def label(self, path: str) -> str:
        """The name of the route, for metrics: cheaper than :meth:`match`, and never fails.

        There are few names, whatever clients ask for.
        """
        head, _, tail = path.rstrip("/").rpartition("/")
        if head == "/api":
            return self._by_last_part.get(tail, "rows")
        if path.rstrip("/") == "/api":
            return "idents"
        if head == "/api/plugins":
            return "plugin"
        if head.endswith("/values"):
            return "values"
        return self._by_last_part.get(tail, _OTHER) if tail else _OTHER
