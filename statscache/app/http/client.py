"""Who asked: what only a few routes look at, because they wait or tell more than the query asks."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

DEFERRED = "statscache.deferred"
"""The key of the WSGI environment where a server leaves a list for :attr:`Client.deferred`."""


SEND_UNTIL = "statscache.send_until"
"""The key of the WSGI environment where a server leaves :attr:`Client.send_until`."""


def _is_there() -> bool:
    return False


def _has_time(_at: float) -> None:
    pass


@dataclass(frozen=True)
class Client:
    """The one at the other end of a connection.

    Attributes:
        last_event_id: the header: the newest event that it has.
        may_wait: whether it can be kept waiting without everybody else.
        is_gone: whether it has hung up, as far as the server can tell.
        deferred: of servers that wait without threads: what to wait for is put here.
        send_until: tells the server by when, by :func:`time.monotonic`, all must have been sent:
            then it breaks off, however slowly the client reads. May be called again and again.
    """

    last_event_id: str | None = None
    may_wait: bool = False
    is_gone: Callable[[], bool] = _is_there
    deferred: list[Any] | None = None
    send_until: Callable[[float], None] = _has_time


NO_CLIENT = Client()
"""Of requests that a process makes itself."""


def client_of(environ: Mapping[str, Any]) -> Client:
    """The client of a WSGI environment."""
    return Client(
        environ.get("HTTP_LAST_EVENT_ID"),
        bool(environ.get("wsgi.multithread")),
        _is_gone(environ),
        environ.get(DEFERRED),
        send_until_of(environ),
    )


def send_until_of(environ: Mapping[str, Any]) -> Callable[[float], None]:
    """:attr:`Client.send_until` of a WSGI environment."""
    if SEND_UNTIL in environ:
        send_until: Callable[[float], None] = environ[SEND_UNTIL]
        return send_until
    if "gunicorn.socket" in environ:
        return partial(_send_until, environ["gunicorn.socket"])
    return _has_time


def _send_until(connection: socket.socket, at: float) -> None:
    remaining = at - time.monotonic()
    with suppress(OSError):
        if remaining > 0:
            # Of each sendall() as a whole, which then fails.
            connection.settimeout(remaining)
        else:
            # gunicorn would keep its other clients waiting for the last words of this one.
            connection.shutdown(socket.SHUT_RD)


def _is_gone(environ: Mapping[str, Any]) -> Callable[[], bool]:
    if "waitress.client_disconnected" in environ:
        has_hung_up: Callable[[], bool] = environ["waitress.client_disconnected"]
        return has_hung_up
    if "gunicorn.socket" in environ:
        return lambda: _has_ended(environ["gunicorn.socket"])
    return _is_there


def _has_ended(connection: socket.socket) -> bool:
    try:
        ready = select.poll()
        ready.register(connection, select.POLLIN)
        # To read from a socket with a timeout is to wait for that, whatever the flags say.
        if not ready.poll(0):
            return False
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        # With TLS nobody can look ahead; the next heartbeat will fail, if it is so.
        return False
