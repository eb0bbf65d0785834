"""``statscache serve``: the API on a small production server."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import click
from waitress.server import TcpWSGIServer, create_server

from statscache.app import create_app
from statscache.app.http.waitress import Channel
from statscache.cli.context import Context
from statscache.cli.parameters import PORT, prefix_option
from statscache.cli.terminal import echo
from statscache.errors import StatscacheError
from statscache.logs.records import log_as_server

CONNECTIONS = 900
"""Open connections, idle ones included: fewer than the usual limit of open files."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=PORT, default=8080, show_default=True, help="The port; 0 picks a free one."
)
@click.option("--threads", default=16, show_default=True, help="Requests handled at a time.")
@prefix_option
@click.pass_obj
def serve(context: Context, host: str, port: int, threads: int, prefix: str) -> None:
    """Serve the API over HTTP until Ctrl-C.

    For more than one processor run `statscache.wsgi:application` under gunicorn or mod_wsgi.
    Clients that wait for changes use at most half of the threads; for hundreds of them run
    `statscache events`.
    """
    log_as_server()
    app = create_app(context.config)
    service = app.extensions["statscache"]
    service.runs_in(threads)
    sockets: dict[int, Any] = {}
    try:
        server = create_server(
            app,
            map=sockets,
            host=host,
            port=port,
            threads=threads,
            connection_limit=CONNECTIONS,
            asyncore_use_poll=True,
            # The server notices only by reading ahead that a waiting client has disconnected.
            channel_request_lookahead=1,
            url_prefix=prefix,
            # A proxy on this machine says whether clients use https; links must do the same.
            trusted_proxy="127.0.0.1",
            trusted_proxy_headers={"x-forwarded-proto"},
            clear_untrusted_proxy_headers=True,
        )
    except OSError as error:
        raise StatscacheError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "choose another port with --port"
        ) from error
    # "localhost" may have several addresses, each with a socket.
    for each in sockets.values():
        if isinstance(each, TcpWSGIServer):
            each.channel_class = Channel
    port = getattr(server, "effective_port", port)
    echo(f"Serving on http://{host}:{port}/api/")
    ending = threading.Event()
    service.listeners.is_ending = ending.is_set

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    server.run()
