"""The client of a request: what the few routes need that let it wait."""

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
    """The client at the other end of a connection.

    Attributes:
        last_event_id: the header: the newest event that it has.
        may_wait: whether it can wait without blocking all others.
        is_gone: whether it has disconnected, as far as the server can tell.
        deferred: of servers that wait without threads: what to wait for is appended to it.
        send_until: tells the server by when, by :func:`time.monotonic`, all must have been sent:
            then it breaks off, however slowly the client reads. Each call replaces the one before.
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
            # This limits each sendall() as a whole, which then fails.
            connection.settimeout(remaining)
        else:
            # Otherwise gunicorn would block on reading the rest of what this client sends.
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
        # A socket with a timeout waits for it when it is read, whatever the flags are.
        if not ready.poll(0):
            return False
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        # TLS cannot be read ahead; if the client is gone, the next heartbeat fails.
        return False
