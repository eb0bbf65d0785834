"""The HTTP API: a Flask application that reads what the hub has written.

It knows models and revisions, and neither the engine nor the bus. Its folders are floors: each may
import those above it in this list, and never one below.

- ``state``: what the hub has committed: the change feed, revisions, coverage, the datasets as their
  tables are, and what reads their rows. It knows no HTTP.
- ``http``: the parts of requests and responses: parameters, times, formats, problems, cursors. It
  knows no routes.
- ``dispatch``: from a request to its response, alike for all routes: what a route is, the table
  that matches addresses, the plan of a request, the cache, the dispatcher.
- ``charts``: numbers over time: buckets, the tables that they are made of, ranges, comparisons.
- ``live``: clients that wait for a change: listeners, events, long polls, ASGI.
- ``routes``: the routes, one in a module.
- ``pages``: what a browser is shown, made of what the routes answer.

:mod:`~statscache.app.all_routes` lists the routes, and :mod:`~statscache.app.application`
assembles all of it. ``templates`` and ``static`` belong to the pages.
"""

from __future__ import annotations

import flask

from statscache.app.application import create_app


def __getattr__(name: str) -> flask.Flask:
    """``statscache.app.app``, as WSGI files of 2015 have it: made when it is first asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = made = create_app()
    return made


__all__ = ["create_app"]
