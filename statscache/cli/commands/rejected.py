"""``statscache rejected``: list and retry the messages that could not be counted."""

from __future__ import annotations

import sys

import click
from sqlalchemy import Connection, func, or_, select

from statscache.cli.context import Context
from statscache.cli.terminal import echo
from statscache.database import schema, tables
from statscache.errors import StatscacheError
from statscache.hub.signatures import refusal
from statscache.logs.printable import printable
from statscache.plugins.base import make_ident
from statscache.times import to_the_second

SHOWN_DIGITS = 12
"""Digits of a digest, enough to identify a rejection."""

NO_MESSAGE = "not a message"
"""Printed where no plugin rejected it, because it was not a message at all."""

SHOWN_CONTENT = 300
"""Characters of the rejected content."""


@click.group()
def rejected() -> None:
    """List and retry the messages that could not be counted."""


@rejected.command(name="list")
@click.option("--limit", default=20, show_default=True, help="How many to show.")
@click.pass_obj
def list_(context: Context, limit: int) -> None:
    """Show the newest rejections: digest, time, how often, plugin, reason and content.

    Then come the totals by plugin and reason, which include the rejections that are not kept.
    """
    database = context.database(read_only=True)
    schema.check(database)
    table = tables.rejected
    with database.begin() as connection:
        total = connection.scalar(select(func.count()).select_from(table))
        rows = connection.execute(
            select(table).order_by(table.c.last_seen.desc(), table.c.digest).limit(limit)
        ).all()
        counts = tables.rejected_total
        totals = connection.execute(select(counts).order_by(counts.c.messages.desc())).all()
    database.dispose()
    for row in rows:
        when = to_the_second(row.last_seen)
        who = row.plugin or NO_MESSAGE
        why = printable(row.reason)
        echo(f"{row.digest[:SHOWN_DIGITS]}  {when}  {row.times}x  {who}: {why}")
        echo(f"    {printable(row.content[:SHOWN_CONTENT])}")
    echo(f"{total} kept, {len(rows)} shown.")
    if totals:
        echo("All that was rejected, kept or not:")
    for row in totals:
        echo(f"    {row.messages:,}x  {row.plugin or NO_MESSAGE}: {printable(row.cause)}")


@rejected.command()
@click.argument("digests", nargs=-1)
@click.option("--plugin", help="Retry what this plugin rejected: its name or an ident.")
@click.option("--all", "everything", is_flag=True, help="Retry all that is kept.")
@click.pass_obj
def retry(context: Context, digests: tuple[str, ...], plugin: str | None, everything: bool) -> None:
    """Count rejected messages again, after their cause is fixed.

    DIGESTS are the first column of 'statscache rejected list'; prefixes are enough. A message is
    counted only for the plugin that rejected it, and then it is removed from the rejections. A
    refused signature is checked again. The hub may run meanwhile. The exit status is 1 if a message
    is rejected again.
    """
    if sum((bool(digests), plugin is not None, everything)) != 1:
        raise click.UsageError("say what to retry: DIGESTS, --plugin NAME, or --all")
    engine = context.engine()
    counted = left = 0
    try:
        with engine.transaction() as connection:
            wanted = _find(connection, digests, plugin)
        for digest in wanted:
            reason = engine.retry(digest, lambda raw: refusal(raw, context.bus_config))
            if reason is None:
                counted += 1
            else:
                left += 1
                echo(f"{digest[:SHOWN_DIGITS]}: {reason}")
    except KeyboardInterrupt:
        echo("Interrupted: what is reported below is committed; repeat the command to continue.")
        raise
    finally:
        engine.close()
        echo(f"{counted} counted, {left} rejected again.")
    if left:
        sys.exit(1)


def _find(connection: Connection, digests: tuple[str, ...], plugin: str | None) -> list[str]:
    column = tables.rejected.c
    query = select(column.digest).order_by(column.first_seen, column.digest)
    if plugin is not None:
        wanted = make_ident(plugin, None)
        found = [
            row.digest
            for row in connection.execute(query.add_columns(column.plugin))
            # The column has idents, which end with the resolution where a plugin has several.
            if any(wanted in (ident, ident.rpartition("-")[0]) for ident in row.plugin.split())
        ]
        if not found:
            raise StatscacheError(
                f"nothing that is kept was rejected by {plugin!r}: 'statscache rejected list' "
                "shows the plugins"
            )
        return found
    if digests:
        begins = (column.digest.startswith(digest, autoescape=True) for digest in digests)
        query = query.where(or_(*begins))
    found = list(connection.scalars(query))
    for digest in digests:
        if not any(each.startswith(digest) for each in found):
            raise StatscacheError(
                f"no rejection has the digest {digest!r}: 'statscache rejected list' shows the "
                "digests"
            )
    return found
