"""``statscache serve``: the API on a small production server."""

from __future__ import annotations

import click
from waitress.server import create_server

from statscache.app import create_app
from statscache.cli.context import Context
from statscache.errors import StatscacheError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, help="The port; 0 takes a free one.")
@click.option("--threads", default=4, show_default=True, help="Requests answered at a time.")
@click.pass_obj
def serve(context: Context, host: str, port: int, threads: int) -> None:
    """Serve the API over HTTP until Ctrl-C.

    For more than one processor run `statscache.wsgi:application` under gunicorn or mod_wsgi.
    """
    app = create_app(context.config)
    try:
        server = create_server(app, host=host, port=port, threads=threads)
    except OSError as error:
        raise StatscacheError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "choose another port with --port"
        ) from error
    # "localhost" may be several addresses, and then there are as many sockets.
    port = getattr(server, "effective_port", port)
    click.echo(f"Serving on http://{host}:{port}/api/")
    server.run()
