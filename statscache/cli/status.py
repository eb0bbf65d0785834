"""``statscache status``: how far the hub is."""

from __future__ import annotations

import time

import click
from sqlalchemy import func, select

from statscache import tables
from statscache.cli.context import Context


@click.command()
@click.pass_obj
def status(context: Context) -> None:
    """Show what has been counted, when, and which plugins are in trouble."""
    database = context.database(read_only=True)
    database.check_schema()
    with database.begin() as connection:
        lanes = connection.execute(select(tables.lane).order_by(tables.lane.c.id)).all()
        failing = connection.execute(
            select(tables.plugin).where(tables.plugin.c.state != "active")
        ).all()
        rejections = connection.scalar(select(func.sum(tables.rejected.c.times))) or 0
    for lane in lanes:
        click.echo(
            f"lane {lane.name}: {lane.messages} messages in {lane.batches} batches; "
            f"newest message {_age(lane.newest)}, last commit {_age(lane.committed_at)}"
        )
    if not lanes:
        click.echo("Nothing has been counted yet.")
    for plugin in failing:
        click.echo(
            f"{plugin.ident} is {plugin.state} since {_age(plugin.failed_at)}, "
            f"{plugin.missed} messages missed: {plugin.error}"
        )
    click.echo(f"{rejections} rejected; {len(context.installed.broken)} plugins broken.")


def _age(moment: float | None) -> str:
    if moment is None:
        return "never"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
    return f"{stamp} UTC ({time.time() - moment:.0f} s ago)"
