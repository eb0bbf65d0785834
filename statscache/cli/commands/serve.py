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
from statscache.cli.port import PORT
from statscache.cli.prefix import prefix_option
from statscache.cli.terminal import echo
from statscache.errors import StatscacheError
from statscache.logs.records import log_as_server

CONNECTIONS = 900
"""Open at a time, idle ones included: fewer than the files that a process may usually have."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=PORT, default=8080, show_default=True, help="The port; 0 takes a free one."
)
@click.option("--threads", default=16, show_default=True, help="Requests answered at a time.")
@prefix_option
@click.pass_obj
def serve(context: Context, host: str, port: int, threads: int, prefix: str) -> None:
    """Serve the API over HTTP until Ctrl-C.

    For more than one processor run `statscache.wsgi:application` under gunicorn or mod_wsgi.
    Clients that wait for changes get half of the threads at most; for hundreds of them there is
    `statscache events`.
    """
    log_as_server(anew=True)
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
            # Reading ahead is how the server notices that a client who waits has hung up.
            channel_request_lookahead=1,
            url_prefix=prefix,
            # A proxy on this machine says whether its clients speak https, as links then do.
            trusted_proxy="127.0.0.1",
            trusted_proxy_headers={"x-forwarded-proto"},
            clear_untrusted_proxy_headers=True,
        )
    except OSError as error:
        raise StatscacheError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "choose another port with --port"
        ) from error
    # "localhost" may be several addresses, and then there are as many sockets.
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
