"""The routes of 2015: idents, rows, layouts."""

from __future__ import annotations

import difflib
from typing import Any
from urllib.parse import urlencode

import flask
from werkzeug.urls import iri_to_uri

from statscache.app import formats, query
from statscache.app.problems import Problem
from statscache.app.rows import Page
from statscache.app.service import Service

api = flask.Blueprint("api", __name__)


@api.get("/")
def home() -> Any:
    """Send visitors to the list of what there is."""
    return flask.redirect(flask.url_for("api.idents"))


@api.get("/api/")
def idents() -> flask.Response:
    """The idents of all that is served."""
    values = query.parse(flask.request.args, query.PLAIN)
    _negotiate_json(values)
    return formats.json_response(
        formats.dumps(list(_service().installed.datasets)), values["callback"]
    )


@api.get("/api/<ident>")
def rows(ident: str) -> flask.Response:
    """The rows of one ident, newest first."""
    service = _service()
    dataset = _dataset(ident)
    values = query.parse(flask.request.args, query.ROWS)
    settings = service.settings
    form = formats.negotiate(
        flask.request.accept_mimetypes, wanted=values["format"], callback=values["callback"]
    )
    size = min(
        values["rows_per_page"] or settings.default_rows_per_page, settings.maximum_rows_per_page
    )
    with service.reading() as connection:
        page = service.readers[ident].read(connection, values, size)
        if form == "csv":
            answer = formats.csv_response(dataset.model.to_csv(page.rows))
        else:
            answer = formats.json_response(dataset.model.to_json(page.rows), values["callback"])
    answer.headers["X-Link-Number"] = str(page.number)
    answer.headers["X-Link-Count"] = str(page.count)
    links = _links(page)
    if links:
        answer.headers["Link"] = links
    return answer


@api.get("/api/<ident>/layout")
def layout(ident: str) -> flask.Response:
    """How a dashboard may draw the rows of one ident."""
    dataset = _dataset(ident)
    values = query.parse(flask.request.args, query.PLAIN)
    _negotiate_json(values)
    if dataset.layout is None:
        raise Problem(404, f"{ident} has no layout: its plugin does not say how it may be drawn")
    return formats.json_response(formats.dumps(dataset.layout), values["callback"])


def _service() -> Service:
    service: Service = flask.current_app.extensions["statscache"]
    return service


def _dataset(ident: str) -> Any:
    datasets = _service().installed.datasets
    if ident not in datasets:
        similar = difflib.get_close_matches(ident, datasets, n=3)
        hint = f"did you mean {' or '.join(similar)}? " if similar else ""
        raise Problem(
            404,
            f"nothing is called {ident[:200]!r}; {hint}/api/ lists all there is",
            allowed=similar or None,
        )
    return datasets[ident]


def _negotiate_json(values: Any) -> None:
    formats.negotiate(
        flask.request.accept_mimetypes, wanted=None, callback=values["callback"], csv=False
    )


def _links(page: Page) -> str:
    links = []
    if page.number < page.count:
        links.append(f'<{_address(page.number + 1)}>; rel="next"')
    if page.number > 1:
        # From beyond the end, back to the last page that there is.
        links.append(f'<{_address(min(page.number - 1, page.count))}>; rel="previous"')
    return ", ".join(links)


def _address(number: int) -> str:
    pairs = [(name, text) for name, text in flask.request.args.items() if name not in ("page", "_")]
    pairs.append(("page", str(number)))
    return f"{iri_to_uri(flask.request.base_url)}?{urlencode(pairs)}"
