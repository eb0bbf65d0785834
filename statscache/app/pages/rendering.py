"""How pages are written: the templates, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import flask
import jinja2
from werkzeug.http import HTTP_STATUS_CODES

import statscache
from statscache.app.dispatch.route import Call
from statscache.app.http import formats
from statscache.app.http.answer import Answer, Lifetime
from statscache.app.http.problems import Problem
from statscache.app.http.request import Request
from statscache.times import duration, to_the_second

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}

_LONG = 40
"""Characters from which on the text of a cell may be broken anywhere."""

_RECENT = 120
"""Seconds that are not told apart from the present."""


def page(call: Call, template: str, **said: Any) -> Answer:
    """An answer that is the page of ``template``, which is told what is ``said``."""
    root, host = _root_and_host(call.request)
    text = _TEMPLATES.get_template(template).render(
        root=root, host=host, version=statscache.__version__, now=call.now, **said
    )
    return Answer(body=text, headers={**HEADERS}, lifetime=Lifetime.OPEN)


def of_problem(problem: Problem) -> flask.Response | None:
    """What a person is shown of ``problem``; None where it is a program that asks."""
    request = Request.from_environ(flask.request.environ)
    if not formats.prefers_pages(request.accept, request.query):
        return None
    root, _ = _root_and_host(request)
    text = _TEMPLATES.get_template("problem.html").render(
        root=root,
        version=statscache.__version__,
        problem=problem,
        title=HTTP_STATUS_CODES[problem.status],
    )
    html = formats.FORMATS["html"].content_type
    return flask.Response(text, problem.status, HEADERS | problem.headers, content_type=html)


def _root_and_host(request: Request) -> tuple[str, str]:
    root = quote(request.root.encode("latin-1"))
    return root, f"{request.scheme}://{quote(request.host, safe=':[]')}{root}"


def _time(moment: float | None) -> str:
    if moment is None:
        return "never"
    return to_the_second(moment)


def _covers(coverage: Mapping[str, Any]) -> str:
    """From when to when everything has been counted, in words."""
    since, until, gaps = coverage["since"], coverage["until"], [*coverage["gaps"]]
    if since is None:
        return "nothing yet"
    if gaps and gaps[0][0] <= since:
        # What has not been filled in is no part of it yet.
        since = gaps.pop(0)[1]
    text = f"{_time(since)} to {_time(until)}" if since else f"everything until {_time(until)}"
    return text if not gaps else f"{text}, with {len(gaps)} gap{'s' if len(gaps) > 1 else ''}"


def _ago(seconds: float | None, now: float) -> str:
    """How long ago, in one unit."""
    if seconds is None:
        return "never"
    age = now - seconds
    return f"{duration(age)} ago" if age >= _RECENT else "just now"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("statscache.app"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_TEMPLATES.filters["time"] = _time
_TEMPLATES.filters["covers"] = _covers
_TEMPLATES.globals["ago"] = _ago
_TEMPLATES.globals["long"] = _LONG
