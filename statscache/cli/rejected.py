"""``statscache rejected``: what came in and could not be counted."""

from __future__ import annotations

import time

import click
from sqlalchemy import func, select

from statscache import tables
from statscache.cli.context import Context


@click.group()
def rejected() -> None:
    """What came in and could not be counted."""


@rejected.command(name="list")
@click.option("--limit", default=20, show_default=True, help="How many to show.")
@click.pass_obj
def list_(context: Context, limit: int) -> None:
    """Show the newest rejections: when, how often, by whom, why, and the content."""
    database = context.database(read_only=True)
    database.check_schema()
    table = tables.rejected
    with database.begin() as connection:
        total = connection.scalar(select(func.count()).select_from(table))
        rows = connection.execute(
            select(table).order_by(table.c.last_seen.desc(), table.c.digest).limit(limit)
        ).all()
    for row in rows:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row.last_seen))
        who = row.plugin or "not a message"
        click.echo(f"{when} UTC  {row.times}x  {who}: {row.reason}\n    {row.content:.300}")
    click.echo(f"{total} kept, {len(rows)} shown.")
