"""Which route an address has, and what it is called in metrics."""

from __future__ import annotations

import flask
import pytest

from statscache.app.dispatch.route import Route
from statscache.app.dispatch.route_table import LONGEST_LABELLED, RouteTable
from statscache.app.http.problems import Problem
from tests.support.routes import ROUTES

TABLE = RouteTable(flask.Flask(__name__), ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_has_its_addresses(route: Route) -> None:
    path = route.rule.replace("<ident>", "volume-1d").replace("<column>", "topic")
    for address in {path, f"{path.rstrip('/')}/"}:
        assert TABLE.match(address)[0] is route
        assert TABLE.label(address) == (route.label or route.name)


def test_labels_of_more_than_one_route() -> None:
    assert TABLE.label("/api/events") == TABLE.label("/api/volume-1d/events") == "events"
    assert TABLE.label("/") == "other"


@pytest.mark.parametrize(
    "path", ["/nope", "/api/a/b", "/a/series", "/static/style.css", "/api/plugins/a/series"]
)
def test_addresses_without_a_route(path: str) -> None:
    assert TABLE.label(path) == "other"
    with pytest.raises(Problem):
        TABLE.match(path)


def test_long_addresses_are_labelled_and_not_remembered() -> None:
    path = f"/api/{'x' * LONGEST_LABELLED}"
    assert TABLE.label(path) == TABLE.label(path) == "rows"
    assert TABLE.label("/" + "é".encode().decode("latin-1") * 300) == "other"
