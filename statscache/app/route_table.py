"""All the routes, and how Flask serves them."""

from __future__ import annotations

import time
from dataclasses import replace

import flask

from statscache.app.dispatch.dispatcher import Dispatcher
from statscache.app.dispatch.route import Answer, Call, Lifetime, Route, Scope
from statscache.app.dispatch.service import Service
from statscache.app.http.client import client_of
from statscache.app.http.problems import Problem, too_much
from statscache.app.http.reply import Reply, StreamReply
from statscache.app.http.request import Request
from statscache.app.live.long_poll import hold
from statscache.app.pages import pages
from statscache.app.routes import (
    badge,
    batch,
    events,
    health,
    messages,
    metrics,
    openapi,
    plugins,
    rows,
    series,
    summary,
    top,
    values,
)


def _idents(call: Call) -> Answer:
    return Answer(list(call.service.installed.datasets), lifetime=Lifetime.STATIC)


def _layout(call: Call) -> Answer:
    layout = call.dataset.layout
    if layout is None:
        ident = call.dataset.ident
        raise Problem(404, f"{ident} has no layout: its plugin does not say how it may be drawn")
    return Answer(layout, lifetime=Lifetime.STATIC)


IDENTS = Route(
    rule="/api/",
    name="idents",
    summary="The idents of all that is served.",
    answer=_idents,
    scope=Scope.NOTHING,
    schema={"type": "array", "items": {"type": "string"}},
    page=pages.INDEX,
)
LAYOUT = Route(
    rule="/api/<ident>/layout",
    name="layout",
    summary="How a dashboard may draw the rows of one ident.",
    answer=_layout,
    applies=lambda dataset: dataset.layout is not None,
    scope=Scope.NOTHING,
)

ROUTES: tuple[Route, ...] = (
    IDENTS,
    replace(
        rows.ROUTE,
        page=replace(pages.PLUGIN, parameters=rows.ROUTE.parameters, filterable=True),
    ),
    LAYOUT,
    series.ROUTE,
    summary.ROUTE,
    top.ROUTE,
    values.ROUTE,
    messages.ROUTE,
    badge.ROUTE,
    *events.ROUTES,
    *plugins.ROUTES,
    batch.ROUTE,
    openapi.ROUTE,
    *health.ROUTES,
    metrics.ROUTE,
    *pages.ROUTES,
)


def register(app: flask.Flask, dispatcher: Dispatcher) -> None:
    """Let ``app`` answer all the routes of ``dispatcher``."""
    service: Service = app.extensions["statscache"]
    seconds = service.settings.request_timeout.total_seconds()

    def view(**_arguments: str) -> flask.Response:
        environ = flask.request.environ
        request, if_none_match = Request.of(environ), environ.get("HTTP_IF_NONE_MATCH")
        client = client_of(environ)
        began = time.monotonic()
        reply = dispatcher.respond(request, if_none_match, client=client)
        if isinstance(reply, Reply) and reply.wait and hold(service.listeners, reply.wait, client):
            began = time.monotonic()
            reply = dispatcher.respond(request, if_none_match, client=client)
        if isinstance(reply, Reply):
            if time.monotonic() >= began + seconds:
                raise too_much(seconds)
            client.send_until(began + seconds)
        if flask.request.method == "HEAD" and isinstance(reply, StreamReply):
            # Flask would not tell it that nobody wants it.
            reply.body.close()
            return flask.Response(iter(()), reply.status, reply.headers)
        return flask.Response(reply.body, reply.status, reply.headers)

    for route in dispatcher.routes:
        app.add_url_rule(route.rule, route.name, view)
