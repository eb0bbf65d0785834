"""The one shape of all errors: ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import flask
import orjson
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from statscache.errors import Unavailable

log = logging.getLogger(__name__)

RETRY_AFTER = 5
"""Seconds after which a client may try again, when the database is away."""


class Problem(Exception):
    """Raised to answer what is wrong with a request, and what to do.

    Args:
        status: of HTTP.
        detail: the cause and the cure.
        parameter: the parameter of the query that is wrong.
        allowed: the values that can be used instead.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        parameter: str | None = None,
        allowed: Iterable[str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.parameter = parameter
        self.allowed = None if allowed is None else list(allowed)
        self.headers = headers or {}

    def response(self) -> flask.Response:
        """The answer."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": HTTP_STATUS_CODES[self.status],
            "status": self.status,
            "detail": self.detail,
        }
        if self.parameter is not None:
            body["parameter"] = self.parameter
        if self.allowed is not None:
            body["allowed"] = self.allowed
        return flask.Response(
            orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE),
            status=self.status,
            headers=self.headers,
            content_type="application/problem+json",
        )


def nothing_there() -> Problem:
    """The problem of an address that no route has."""
    return Problem(404, _DETAILS[404])


def too_much(seconds: float) -> Problem:
    """The problem of a query that takes longer than it may."""
    return Problem(
        422,
        f"this takes longer than the {seconds:g} seconds that a request may: narrow the range of "
        "time, ask for fewer rows, for less at once, or filter by a key",
    )


def register(app: flask.Flask, page: Callable[[Problem], flask.Response | None]) -> None:
    """Answer every error of ``app`` in the one shape, or as a page for people.

    Args:
        page: makes a page of a problem; returns None where a program asks.
    """

    def answered(problem: Problem) -> flask.Response:
        return page(problem) or problem.response()

    app.register_error_handler(Problem, answered)

    @app.errorhandler(HTTPException)
    def from_werkzeug(error: HTTPException) -> flask.Response:
        status = error.code or 500
        # Redirects are exceptions too, and no errors.
        if status < 400:
            return error.get_response()  # type: ignore[return-value]
        detail = _DETAILS.get(status, error.description or HTTP_STATUS_CODES[status])
        answer = answered(Problem(status, detail))
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                answer.headers[name] = value
        return answer

    @app.errorhandler(Unavailable)
    def unavailable(error: Unavailable) -> flask.Response:
        log.error("%s", error)
        return answered(Problem(503, error.public, headers={"Retry-After": str(RETRY_AFTER)}))

    @app.errorhandler(DBAPIError)
    @app.errorhandler(500)
    def unexpected(error: Exception) -> flask.Response:
        log.error("unexpected", exc_info=getattr(error, "original_exception", None) or error)
        return answered(Problem(500, _DETAILS[500]))


_DETAILS = {
    404: "there is no such page; /api/ lists the idents of what is served",
    405: "everything here is read-only: use GET, HEAD or OPTIONS",
    500: "an error of ours, which is in the server's log",
}
