"""``statscache rejected``: what came in and could not be counted."""

from __future__ import annotations

import sys
import time

import click
from sqlalchemy import Connection, func, or_, select

from statscache.cli.context import Context
from statscache.cli.terminal import echo
from statscache.database import tables
from statscache.errors import StatscacheError
from statscache.hub.signatures import refusal
from statscache.logs.printable import printable
from statscache.plugins.base import make_ident

SHOWN_DIGITS = 12
"""Of a digest: enough to tell rejections apart."""

NOBODY = "not a message"
"""In place of a plugin."""

SHOWN_CONTENT = 300
"""Characters of what was rejected."""


@click.group()
def rejected() -> None:
    """What came in and could not be counted."""


@rejected.command(name="list")
@click.option("--limit", default=20, show_default=True, help="How many to show.")
@click.pass_obj
def list_(context: Context, limit: int) -> None:
    """Show the newest rejections: which, when, how often, by whom, why, and the content.

    Below them is how many there were in all, by whom and why: not all of them are kept.
    """
    database = context.database(read_only=True)
    database.check_schema()
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
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row.last_seen))
        who = row.plugin or NOBODY
        why = printable(row.reason)
        echo(f"{row.digest[:SHOWN_DIGITS]}  {when} UTC  {row.times}x  {who}: {why}")
        echo(f"    {printable(row.content[:SHOWN_CONTENT])}")
    echo(f"{total} kept, {len(rows)} shown.")
    if totals:
        echo("All that was rejected, kept or not:")
    for row in totals:
        echo(f"    {row.messages:,}x  {row.plugin or NOBODY}: {printable(row.cause)}")


@rejected.command()
@click.argument("digests", nargs=-1)
@click.option("--plugin", help="Only what this plugin rejected, by its name or ident.")
@click.option("--all", "everything", is_flag=True, help="All that is kept.")
@click.pass_obj
def retry(context: Context, digests: tuple[str, ...], plugin: str | None, everything: bool) -> None:
    """Count again what was rejected, after the cause is mended.

    DIGESTS are what 'statscache rejected list' shows first; their beginnings will do. A message is
    counted for the plugin alone that rejected it, and then it is not among the rejections any more.
    A signature that was refused is checked again. The hub may go on meanwhile. Ends with status 1
    when something is rejected again.
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
        echo("Interrupted: what is said below is done; repeat the command to go on.")
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
            # Written down are the idents, which end with the resolution where there are several.
            if any(wanted in (ident, ident.rpartition("-")[0]) for ident in row.plugin.split())
        ]
        if not found:
            raise StatscacheError(
                f"nothing that is kept was rejected by {plugin!r}: 'statscache rejected list' "
                "shows who rejected what"
            )
        return found
    if digests:
        begins = (column.digest.startswith(digest, autoescape=True) for digest in digests)
        query = query.where(or_(*begins))
    found = list(connection.scalars(query))
    for digest in digests:
        if not any(each.startswith(digest) for each in found):
            raise StatscacheError(
                f"no rejection is called {digest!r}: 'statscache rejected list' shows what they "
                "are called"
            )
    return found
