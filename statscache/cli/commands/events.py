"""``statscache events``: the API on a server where waiting clients take no threads."""

from __future__ import annotations

import socket

import click

from statscache.app import create_app
from statscache.app.live.asgi import THREADS, AsgiApplication
from statscache.cli.context import Context
from statscache.cli.parameters import PORT, prefix_option
from statscache.cli.terminal import echo
from statscache.errors import StatscacheError
from statscache.logs.records import log_as_server

GRACE = 5
"""Seconds that open requests may take to finish when the server stops."""

BACKLOG = 2_048
"""Connections that may wait to be accepted: after a restart all listeners reconnect at once."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=PORT, default=8081, show_default=True, help="The port; 0 picks a free one."
)
@click.option("--threads", default=THREADS, show_default=True, help="Requests handled at a time.")
@prefix_option
@click.pass_obj
def events(context: Context, host: str, port: int, threads: int, prefix: str) -> None:
    """Serve live events over HTTP until Ctrl-C, to hundreds of listeners.

    It serves all other requests too. Beside other servers of the API, let the proxy route to it
    the paths that end in /events, and the requests with the parameter "wait".
    """
    try:
        import uvicorn  # optional
    except ImportError:
        raise StatscacheError(
            "the server of events is not installed: pip install 'statscache[events]'"
        ) from None
    log_as_server()
    application = AsgiApplication(create_app(context.config), threads, prefix)
    try:
        listening = _listen(host, port)
    except OSError as error:
        raise StatscacheError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "choose another port with --port"
        ) from error
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    )
    application.service.listeners.is_ending = lambda: server.should_exit
    echo(f"Serving on http://{host}:{listening.getsockname()[1]}/api/events")
    server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )[0]
    # With the protocol named asyncio sends small answers at once, not 40 ms later.
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
