"""The application, assembled from parts that are complete when they are made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flask

from statscache import config as configuration
from statscache.app.all_routes import all_routes
from statscache.app.dispatch.answer_cache import AnswerCache
from statscache.app.dispatch.cache_middleware import CacheMiddleware
from statscache.app.dispatch.dispatcher import Dispatcher
from statscache.app.dispatch.request_metrics import MetricsMiddleware, RequestMetrics
from statscache.app.dispatch.route_table import RouteTable
from statscache.app.dispatch.service import Service
from statscache.app.http import problems
from statscache.app.http.client import client_of
from statscache.app.http.problems import too_much
from statscache.app.http.request import Request
from statscache.app.http.response import COMMON_HEADERS, Response, StreamResponse
from statscache.app.live.event_rows import EventRows
from statscache.app.live.listeners import Listeners
from statscache.app.live.long_poll import wait_for_change
from statscache.app.pages import rendering
from statscache.app.routes import rows
from statscache.app.routes.downloads import Downloads
from statscache.app.state.revisions import Revisions
from statscache.config import Settings
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed


def create_app(config: dict[str, Any] | None = None) -> flask.Flask:
    """The WSGI application.

    Args:
        config: fedmsg's configuration; read from its files when absent.

    Raises:
        ConfigurationError: a key cannot be used.
    """
    if config is None:
        config = configuration.load()
    return build_app(Settings.from_config(config), discovery.discover(config))


@dataclass(frozen=True)
class Application:
    """The parts of an application; ``app.extensions["statscache"]``.

    Attributes:
        service: settings, plugins, and what the hub has committed.
        answers: those that are kept.
        dispatcher: answers requests.
        listeners: clients that wait for changes.
        downloads: those that are under way.
    """

    service: Service
    answers: AnswerCache
    dispatcher: Dispatcher
    listeners: Listeners
    downloads: Downloads

    @property
    def revisions(self) -> Revisions:
        """How often each dataset has changed."""
        return self.service.revisions

    @property
    def settings(self) -> Settings:
        """Of the operator."""
        return self.service.settings

    @property
    def installed(self) -> Installed:
        """The plugins, as they are installed."""
        return self.service.installed

    @property
    def routes(self) -> RouteTable:
        """All routes."""
        return self.dispatcher.routes

    @property
    def patience(self) -> float:
        """Seconds in which a client must have read what is sent of an answer without end."""
        return self.service.patience

    def runs_in(self, threads: int | None) -> None:
        """Let listeners and downloads leave some of the ``threads`` of the server to others.

        Args:
            threads: how many there are; None where neither of them takes one.
        """
        if threads is None:
            self.listeners.take_no_threads()
        else:
            self.listeners.leave_threads(threads)
        self.downloads.leave_threads(threads)


def build_app(
    settings: Settings, installed: Installed, clock: Callable[[], float] = time.time
) -> flask.Flask:
    """The WSGI application for these plugins; ``clock`` tells the present, in UNIX seconds."""
    service = Service(settings, installed)
    answers = AnswerCache(settings.cache_bytes)
    downloads, request_metrics = Downloads(), RequestMetrics()
    rows_route = rows.route(downloads)
    # Events carry what the route of rows answers. They need only that one, so that it can be made
    # before the table of all routes, which has the routes of events.
    rows_table = RouteTable(flask.Flask(__name__), (rows_route,))
    rows_dispatcher = Dispatcher(service, rows_table, answers, clock)
    event_rows = EventRows(rows_dispatcher, service.database.begin, settings.default_rows_per_page)
    listeners = Listeners(service.revisions, settings.maximum_listeners, event_rows.refresh)
    app = flask.Flask(__name__)
    table = RouteTable(app, all_routes(rows_route, listeners, event_rows, request_metrics))
    dispatcher = Dispatcher(service, table, answers, clock)
    seconds = settings.request_timeout.total_seconds()
    app.extensions["statscache"] = Application(service, answers, dispatcher, listeners, downloads)
    table.answer_by(_view(dispatcher, listeners, seconds))
    cached = CacheMiddleware(app.wsgi_app, dispatcher, seconds)
    app.wsgi_app = MetricsMiddleware(cached, request_metrics, table)  # type: ignore[method-assign]
    app.before_request(_answer_preflight)
    app.after_request(_allow_other_origins)
    problems.register(app, rendering.of_problem)
    return app


def _view(
    dispatcher: Dispatcher, listeners: Listeners, seconds: float
) -> Callable[..., flask.Response]:
    """The view of all routes: from Flask's request to its response.

    Args:
        seconds: that a request may take.
    """

    def view(**_arguments: str) -> flask.Response:
        environ = flask.request.environ
        request, if_none_match = Request.from_environ(environ), environ.get("HTTP_IF_NONE_MATCH")
        client = client_of(environ)
        began = time.monotonic()
        response = dispatcher.respond(request, if_none_match, client=client)
        awaited = response.awaited if isinstance(response, Response) else None
        if awaited is not None and wait_for_change(listeners, awaited, client):
            began = time.monotonic()
            response = dispatcher.respond(request, if_none_match, client=client)
        if isinstance(response, Response):
            if time.monotonic() >= began + seconds:
                raise too_much(seconds)
            client.send_until(began + seconds)
        if flask.request.method == "HEAD" and isinstance(response, StreamResponse):
            # Flask would not close a body that is never sent.
            response.body.close()
            return flask.Response(iter(()), response.status, response.headers)
        return flask.Response(response.body, response.status, response.headers)

    return view


def _answer_preflight() -> flask.Response | None:
    """Allow preflights of any address, so that the request that follows is told what is wrong."""
    asks = flask.request.headers
    if flask.request.method == "OPTIONS" and "Access-Control-Request-Method" in asks:
        return flask.Response(status=204)
    return None


def _allow_other_origins(answer: flask.Response) -> flask.Response:
    """Add the headers of CORS to all answers, errors and redirects among them."""
    for name, text in COMMON_HEADERS:
        answer.headers.setdefault(name, text)
    if flask.request.method == "OPTIONS":
        answer.headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS"
        # Whatever the headers, only what is public is answered.
        wanted = flask.request.headers.get("Access-Control-Request-Headers", "*")
        answer.headers["Access-Control-Allow-Headers"] = wanted
        answer.headers.add("Vary", "Access-Control-Request-Headers")
        answer.headers["Access-Control-Max-Age"] = "86400"
    return answer
