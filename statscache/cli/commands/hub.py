"""``statscache hub``: the hub, with statscache in it."""

from __future__ import annotations

import logging
import warnings

import click

from statscache.cli.context import Context


@click.command()
@click.pass_obj
def hub(context: Context) -> None:
    """Run the hub: listen to the bus, and count, until SIGTERM or Ctrl-C.

    It is the stock fedmsg-hub, with the configuration checked before: it ends with a sentence where
    fedmsg-hub would run on without counting anything.
    """
    # The hub logs as fedmsg's configuration says, not as other commands do.
    logging.getLogger().handlers.clear()
    # What moksha does is not for operators to mend.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    # Nor that it finds no library of another bus.
    logging.disable(logging.WARNING)
    # Here, because it installs the reactor of Twisted.
    from statscache.hub.program import run

    logging.disable(logging.NOTSET)
    run(context.bus_config)
