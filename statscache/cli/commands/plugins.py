"""``statscache plugins``: list the installed plugins."""

from __future__ import annotations

import click

from statscache.cli.context import Context
from statscache.cli.terminal import echo, warn


@click.command()
@click.pass_obj
def plugins(context: Context) -> None:
    """List the installed plugins by their idents in the API."""
    installed = context.installed
    width = max((len(ident) for ident in installed.datasets), default=0)
    for ident, dataset in installed.datasets.items():
        source = dataset.source
        echo(f"{ident:{width}}  {dataset.plugin.summary}  ({source.distribution} {source.version})")
    if not installed.datasets:
        echo("No plugin is installed.")
    for name in installed.disabled:
        echo(f"turned off by statscache.plugins.disabled: {name}")
    for broken in installed.broken:
        source = broken.source
        warn(
            f"broken: {source.entry_point} ({source.distribution} {source.version}): {broken.error}"
        )
