"""The table of routes: which route answers an address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flask
from werkzeug.exceptions import HTTPException

from statscache.app.dispatch.route import Route
from statscache.app.http.problems import Problem, nothing_there
from statscache.app.state.memo import Memo

UNKNOWN = "other"
"""The label of addresses that no route has."""

MOST_LABELS = 1_024
LONGEST_LABELLED = 200
"""Characters of an address whose label is remembered."""


class RouteTable:
    """All the routes of an application, in Flask's map: no other place matches addresses.

    Args:
        app: whose map gets the rules of the routes.
        routes: in the order in which documents list them.
    """

    def __init__(self, app: flask.Flask, routes: Iterable[Route]) -> None:
        self._app = app
        self._routes = {route.name: route for route in routes}
        app.url_map.strict_slashes = False
        for route in self:
            app.add_url_rule(route.rule, route.name)
        self._addresses = app.url_map.bind("")
        self._labels: Memo[str, str] = Memo(MOST_LABELS)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def answer_by(self, view: Callable[..., Any]) -> None:
        """Let Flask call ``view`` for the addresses of all routes."""
        self._app.view_functions.update(dict.fromkeys(self._routes, view))

    def match(self, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route of an address, a WSGI string, and the parts that its rule names.

        Raises:
            Problem: a 404.
        """
        text = path.encode("latin-1").decode("utf-8", "replace")
        try:
            name, arguments = self._addresses.match(text)
        except HTTPException:
            raise nothing_there() from None
        if name not in self._routes:
            # Flask's own: a static file.
            raise nothing_there()
        return self._routes[name], arguments

    def label(self, path: str) -> str:
        """The label of an address in metrics; never fails.

        There are few labels, whatever clients ask for. Answers from the cache are counted by them
        too, and are not matched otherwise: that is why labels are remembered.
        """
        label = self._labels.get(path)
        if label is None:
            try:
                route, _ = self.match(path)
                label = route.label or route.name
            except Problem:
                label = UNKNOWN
            if len(path) <= LONGEST_LABELLED:
                self._labels.put(path, label)
        return label
