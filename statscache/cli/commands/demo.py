"""``statscache demo``: the whole system on this machine, fed with real messages."""

from __future__ import annotations

from pathlib import Path

import click

from statscache.cli.parameters import PORT
from statscache.cli.terminal import echo
from statscache.demo import Demo


@click.command()
@click.option("--port", type=PORT, default=8080, show_default=True, help="The port of the API.")
@click.option("--rate", default=20.0, show_default=True, help="Messages per second.")
@click.option("--seconds", type=float, help="Stop after this many seconds.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the configuration, the database and the logs; default: a temporary one.",
)
def demo(port: int, rate: float, seconds: float | None, folder: Path | None) -> None:
    """Run a bus, the hub and the API, publish real messages, and print what to look at.

    Ctrl-C stops all of it.
    """
    with Demo(port=port, folder=folder) as running:
        try:
            echo(running.introduction())
            running.publish(rate=rate, seconds=seconds, report=echo)
        except KeyboardInterrupt:
            echo("")
        echo("Stopping: the hub commits the messages that it has received ...")
    echo(f"Stopped. {running.published} messages were published.")
