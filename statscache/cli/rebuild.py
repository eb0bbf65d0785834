"""``statscache rebuild``: count plugins anew."""

from __future__ import annotations

from collections.abc import Iterable

import click
from sqlalchemy import select

from statscache import tables
from statscache.cli import filling
from statscache.cli.backfill import failures, refuse_failures
from statscache.cli.context import Context
from statscache.cli.idents import named, with_siblings
from statscache.cli.terminal import echo
from statscache.engine import Engine
from statscache.errors import StatscacheError

_SLACK = 120.0
"""Seconds beyond the overlap after which lanes have agreed, or will not."""


@click.command()
@click.argument("idents", nargs=-1, required=True)
@click.option(
    "--force",
    is_flag=True,
    help="Put the new rows in place even if they lack what is in the old ones.",
)
@filling.options
@click.pass_obj
def rebuild(
    context: Context,
    idents: tuple[str, ...],
    force: bool,
    workers: int,
    dask: str | None,
    concurrency: int | None,
    patience: float,
) -> None:
    """Count the plugins of IDENTS anew from the archive, in all their resolutions.

    IDENTS are those that 'statscache plugins' lists, or names of plugins. The new rows are gathered
    in tables beside, while readers go on to see the old ones, and take their places at once when
    they are complete. The old ones stay where a plugin rejects messages that it had counted before:
    the command says so, and ends with status 1. The hub may run or not. Interrupted, it goes on
    where it stopped when the command is repeated, or when the hub runs.
    """
    chosen = with_siblings(context.installed, named(context.installed, idents))
    means = filling.means(workers, dask, concurrency, patience)
    pace = means.pace(context.settings)
    with filling.opened(context) as (engine, archive):
        if force:
            engine.roster.forced = chosen
        with engine.transaction(alone=True) as connection:
            begun = engine.roster.rebuild(connection, chosen)
        for text, some in (("Counted anew", begun), ("Goes on", chosen - set(begun))):
            if some:
                echo(f"{text}: {', '.join(sorted(some))}.", err=True)
        # The others may have counted messages that the archive is yet to show.
        longest = pace.lag + pace.overlap + _SLACK
        messages, _ = filling.fill_in(context, engine, archive, chosen, means, longest)
        engine.prune()
        failing = failures(engine, chosen)
        waiting = _waiting(engine, chosen) - set(failing)
    refuse_failures(failing)
    if waiting:
        raise StatscacheError(
            f"complete, and still beside the old rows: {', '.join(sorted(waiting))}. The other "
            "plugins have counted messages that the archive does not give; the hub, or the same "
            "command, goes on to compare until they agree"
        )
    echo(
        f"{messages} messages of the archive were read; counted anew: {', '.join(sorted(chosen))}."
    )


def _waiting(engine: Engine, idents: Iterable[str]) -> set[str]:
    row = tables.plugin.c
    with engine.transaction() as connection:
        found = connection.scalars(
            select(row.ident).where(row.ident.in_(list(idents)), row.shadow.is_not(None))
        )
        return set(found)
