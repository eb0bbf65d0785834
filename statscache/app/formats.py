"""How answers are written: JSON, JSON-P and CSV, as the client accepts them."""

from __future__ import annotations

from typing import Any

import flask
import orjson
from werkzeug.datastructures import MIMEAccept

from statscache.app.problems import Problem

JSON = "application/json"
CSV = "text/csv"

_JSON_TYPES = (JSON, "text/json", "application/javascript", "text/javascript")
_CSV_TYPES = (CSV, "application/csv")

_BROWSER = "text/html"


def negotiate(
    accept: MIMEAccept, *, wanted: str | None, callback: str | None, csv: bool = True
) -> str:
    """The format to answer in, ``json`` or ``csv``.

    A parameter of the query wins over the header; a browser, which asks for HTML first and for
    anything else as well, gets JSON.

    Raises:
        Problem: 406 when nothing that we have is accepted, 400 for CSV with a callback.
    """
    available = _JSON_TYPES + (_CSV_TYPES if csv else ())
    if wanted is None and callback is not None:
        return "json"
    if wanted is None:
        chosen = accept.best_match(available) if accept.provided else JSON
        if chosen is None and accept.best == _BROWSER:
            chosen = JSON
        if chosen is None:
            raise Problem(
                406,
                "none of the media types that the Accept header asks for is available; "
                f"ask for {' or '.join(available)}",
                allowed=available,
            )
        wanted = "csv" if chosen in _CSV_TYPES else "json"
    if wanted == "csv" and callback is not None:
        raise Problem(
            400,
            "a callback goes with JSON only: leave out callback or ask for JSON",
            parameter="callback",
        )
    return wanted


def json_response(text: str, callback: str | None) -> flask.Response:
    """The JSON ``text``, or the JSON-P script that calls ``callback`` with it."""
    if callback is None:
        return flask.Response(text, content_type=JSON)
    # Both are ends of lines to older JavaScript, and could not stand in a string there.
    safe = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    # The comment keeps a callback from being read as the beginning of another format.
    return flask.Response(
        f"/**/{callback}({safe});",
        content_type="application/javascript; charset=utf-8",
        headers={"X-Content-Type-Options": "nosniff"},
    )


def csv_response(text: str) -> flask.Response:
    """The CSV ``text``."""
    return flask.Response(text, content_type=f"{CSV}; charset=utf-8; header=present")


def dumps(value: Any) -> str:
    """``value`` as JSON."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
