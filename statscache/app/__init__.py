"""The HTTP API: a Flask application that reads what the hub has written.

It knows models and revisions, and neither the engine nor the bus.
"""

from __future__ import annotations

from typing import Any

import flask

from statscache import config as configuration
from statscache.app import problems, routes
from statscache.app.dispatch import Dispatcher
from statscache.app.service import Service
from statscache.config import Settings
from statscache.plugins import discovery
from statscache.plugins.discovery import Installed

EXPOSED_HEADERS = "ETag, Link, X-Link-Number, X-Link-Count, Retry-After"


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


def build_app(settings: Settings, installed: Installed) -> flask.Flask:
    """The WSGI application for these plugins."""
    app = flask.Flask(__name__)
    service = Service(settings, installed)
    app.extensions["statscache"] = service
    app.url_map.strict_slashes = False
    routes.register(app, Dispatcher(service, routes.ROUTES))
    app.after_request(_allow_other_origins)
    problems.register(app)
    return app


def _allow_other_origins(answer: flask.Response) -> flask.Response:
    """Pages of any origin may read everything: it is public, and nothing can be changed."""
    answer.headers["Access-Control-Allow-Origin"] = "*"
    answer.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    if "Vary" not in answer.headers:
        answer.headers["Vary"] = "Accept, Accept-Encoding"
    if flask.request.method == "OPTIONS":
        answer.headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS"
        answer.headers["Access-Control-Allow-Headers"] = "Accept, If-None-Match, Last-Event-ID"
        answer.headers["Access-Control-Max-Age"] = "86400"
    return answer
