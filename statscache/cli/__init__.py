"""The command line: ``statscache``; its commands are in ``commands``, one file each."""

from __future__ import annotations

import logging
import sys
from importlib import import_module

import click

from statscache import __version__
from statscache.cli.context import Context
from statscache.cli.terminal import echo
from statscache.errors import StatscacheError
from statscache.logs.records import make_printable

_MODULES = {
    "backfill": "backfill",
    "config": "config",
    "db": "database",
    "demo": "demo",
    "events": "events",
    "export": "export",
    "hub": "hub",
    "plugins": "plugins",
    "rebuild": "rebuild",
    "rejected": "rejected",
    "replay": "replay",
    "serve": "serve",
    "status": "status",
    "verify": "verify",
}
"""The name of a command to its module, which defines it under the same name."""


class _Commands(click.Group):
    """Imports a command when it is run: each needs only a part of the program."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _MODULES:
            return None
        command: click.Command = getattr(
            import_module(f"{__name__}.commands.{_MODULES[name]}"), name
        )
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_filename",
    type=click.Path(exists=True, dir_okay=False),
    help="A file of fedmsg's configuration to read instead of /etc/fedmsg.d/, "
    "~/.fedmsg.d/ and ./fedmsg.d/.",
)
@click.version_option(__version__, prog_name="statscache")
@click.pass_context
def statscache(context: click.Context, config_filename: str | None) -> None:
    """Statistics and latest values of a message bus, as JSON."""
    context.obj = Context(config_filename)


def main() -> None:
    """Run the command line; our own errors are printed as one line without a traceback."""
    make_printable()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        statscache()
    except StatscacheError as error:
        echo(f"statscache: {error}", err=True)
        sys.exit(1)
