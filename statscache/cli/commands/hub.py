"""``statscache hub``: run the hub with statscache in it."""

from __future__ import annotations

import logging
import warnings

import click

from statscache.cli.context import Context


@click.command()
@click.pass_obj
def hub(context: Context) -> None:
    """Run the hub: listen to the bus and count until SIGTERM or Ctrl-C.

    This is the stock fedmsg-hub, but the configuration is checked first: the command exits with an
    error where fedmsg-hub would run without counting anything.
    """
    # The hub logs as fedmsg's configuration says, not as other commands do.
    logging.getLogger().handlers.clear()
    # Operators cannot change what moksha imports.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    # Nor do they need the libraries of other buses, which moksha warns about.
    logging.disable(logging.WARNING)
    # Here, because it installs the reactor of Twisted.
    from statscache.hub.program import run_hub

    logging.disable(logging.NOTSET)
    run_hub(context.bus_config)
