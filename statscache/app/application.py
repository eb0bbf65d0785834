"""The application, assembled from its parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import flask

from statscache import config as configuration
from statscache.app import route_table
from statscache.app.dispatch.cache_middleware import Front
from statscache.app.dispatch.dispatcher import Dispatcher
from statscache.app.dispatch.service import Service
from statscache.app.http import problems
from statscache.app.http.reply import COMMON_HEADERS
from statscache.app.live.event_rows import NewestRows
from statscache.app.pages import rendering
from statscache.app.routes.metrics import Measured
from statscache.config import Settings
from statscache.plugins import discovery
from statscache.plugins.discovery import Installed


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


def build_app(
    settings: Settings, installed: Installed, clock: Callable[[], float] = time.time
) -> flask.Flask:
    """The WSGI application for these plugins; ``clock`` tells the present, in UNIX seconds."""
    app = flask.Flask(__name__)
    service = Service(settings, installed)
    app.extensions["statscache"] = service
    app.url_map.strict_slashes = False
    dispatcher = service.dispatcher = Dispatcher(service, route_table.ROUTES, clock)
    service.newest = NewestRows(dispatcher, service.reading, settings.default_rows_per_page)
    service.listeners.before_waking = service.newest.refresh
    route_table.register(app, dispatcher)
    front = Front(app.wsgi_app, dispatcher, settings.request_timeout.total_seconds())
    app.wsgi_app = service.measured = Measured(front, dispatcher)  # type: ignore[method-assign]
    app.before_request(_answer_preflight)
    app.after_request(_allow_other_origins)
    problems.register(app, rendering.of_problem)
    return app


def _answer_preflight() -> flask.Response | None:
    """A browser asks whether it may ask: of any address, so that it is told what is wrong there."""
    asks = flask.request.headers
    if flask.request.method == "OPTIONS" and "Access-Control-Request-Method" in asks:
        return flask.Response(status=204)
    return None


def _allow_other_origins(answer: flask.Response) -> flask.Response:
    """Errors and redirects too."""
    for name, text in COMMON_HEADERS:
        answer.headers.setdefault(name, text)
    if flask.request.method == "OPTIONS":
        answer.headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS"
        # None of them gives anybody more than is public.
        wanted = flask.request.headers.get("Access-Control-Request-Headers", "*")
        answer.headers["Access-Control-Allow-Headers"] = wanted
        answer.headers.add("Vary", "Access-Control-Request-Headers")
        answer.headers["Access-Control-Max-Age"] = "86400"
    return answer
