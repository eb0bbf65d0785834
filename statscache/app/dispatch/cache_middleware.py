"""Sends answers that are kept before Flask looks at the request.

Flask takes several times as long to build a response as it takes to find the bytes of one in
memory. All other requests go on to Flask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from statscache.app.dispatch.dispatcher import Dispatcher
from statscache.app.http.client import send_until_of
from statscache.app.http.request import Request

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class CacheMiddleware:
    """A WSGI application around another one.

    Args:
        app: answers what is not kept.
        dispatcher: knows what is.
        seconds: that sending an answer may take.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], dispatcher: Dispatcher, seconds: float
    ) -> None:
        self._app = app
        self._dispatcher = dispatcher
        self._seconds = seconds

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        method = environ["REQUEST_METHOD"]
        if "HTTP_CACHE_CONTROL" in environ and _wants_newest(environ["HTTP_CACHE_CONTROL"]):
            self._dispatcher.confirm()
        if method in ("GET", "HEAD"):
            response = self._dispatcher.kept(
                Request.from_environ(environ), environ.get("HTTP_IF_NONE_MATCH")
            )
            if response is not None:
                send_until_of(environ)(time.monotonic() + self._seconds)
                start_response(_STATUS_LINES[response.status], response.headers)
                return (response.body,) if method == "GET" else ()
        return self._app(environ, start_response)


def _wants_newest(cache_control: str) -> bool:
    """Whether a client, told of a change or reloading a page, accepts only the newest answer."""
    words = cache_control.lower()
    return "no-cache" in words or "max-age=0" in words
