"""The HTTP API: a Flask application that reads what the hub has written.

It knows models and revisions, and neither the engine nor the bus.
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
