"""The command line: ``statscache``, one module per group of commands."""

from __future__ import annotations

import logging
import sys

import click

from statscache import __version__
from statscache.cli.backfill import backfill
from statscache.cli.context import Context
from statscache.cli.database import db
from statscache.cli.demo import demo
from statscache.cli.events import events
from statscache.cli.export import export
from statscache.cli.plugins import plugins
from statscache.cli.rebuild import rebuild
from statscache.cli.rejected import rejected
from statscache.cli.replay import replay
from statscache.cli.serve import serve
from statscache.cli.status import status
from statscache.cli.verify import verify
from statscache.errors import StatscacheError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_filename",
    type=click.Path(exists=True, dir_okay=False),
    help="A file of fedmsg's configuration, read instead of those in /etc/fedmsg.d/, "
    "~/.fedmsg.d/ and ./fedmsg.d/.",
)
@click.version_option(__version__, prog_name="statscache")
@click.pass_context
def statscache(context: click.Context, config_filename: str | None) -> None:
    """Statistics and latest values of a message bus, as JSON."""
    context.obj = Context(config_filename)


for command in (
    backfill,
    db,
    demo,
    events,
    export,
    plugins,
    rebuild,
    rejected,
    replay,
    serve,
    status,
    verify,
):
    statscache.add_command(command)


def main() -> None:
    """Run the command line; our own errors are shown as one line, without a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        statscache()
    except StatscacheError as error:
        click.echo(f"statscache: {error}", err=True)
        sys.exit(1)
