"""Who asked: what only a few routes look at, because they wait or tell more than the query asks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DEFERRED = "statscache.deferred"
"""The key of the WSGI environment where a server leaves a list for :attr:`Client.deferred`."""


def _is_there() -> bool:
    return False


@dataclass(frozen=True)
class Client:
    """The one at the other end of a connection.

    Attributes:
        last_event_id: the header: the newest event that it has.
        may_wait: whether it can be kept waiting without everybody else.
        is_gone: whether it has hung up, as far as the server can tell.
        deferred: of servers that wait without threads: what to wait for is put here.
    """

    last_event_id: str | None = None
    may_wait: bool = False
    is_gone: Callable[[], bool] = _is_there
    deferred: list[Any] | None = None


NOBODY = Client()
"""Who asks in a process, not over HTTP."""


def client_of(environ: Mapping[str, Any]) -> Client:
    """The client of a WSGI environment."""
    return Client(
        environ.get("HTTP_LAST_EVENT_ID"),
        bool(environ.get("wsgi.multithread")),
        _is_gone(environ),
        environ.get(DEFERRED),
    )


def _is_gone(environ: Mapping[str, Any]) -> Callable[[], bool]:
    if "waitress.client_disconnected" in environ:
        has_hung_up: Callable[[], bool] = environ["waitress.client_disconnected"]
        return has_hung_up
    if "gunicorn.socket" in environ:
        return lambda: _has_ended(environ["gunicorn.socket"])
    return _is_there


def _has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        # With TLS nobody can look ahead; the next heartbeat will fail, if it is so.
        return False
