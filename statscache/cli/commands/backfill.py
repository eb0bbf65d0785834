"""``statscache backfill``: fill in history from the archive."""

from __future__ import annotations

import click
from sqlalchemy import select

from statscache.cli import filling
from statscache.cli.context import Context
from statscache.cli.idents import named
from statscache.cli.terminal import echo
from statscache.counting.engine import Engine
from statscache.counting.membership import FAILING, STAYS
from statscache.database import tables
from statscache.errors import StatscacheError


@click.command()
@click.argument("idents", nargs=-1)
@filling.options
@click.pass_obj
def backfill(
    context: Context,
    idents: tuple[str, ...],
    workers: int,
    dask: str | None,
    concurrency: int | None,
    patience: float,
) -> None:
    """Fill in the history of IDENTS from the archive, up to now: of all when absent.

    IDENTS are those that 'statscache plugins' lists, or names of plugins. Those that share a lane
    with others ('statscache status') bring them along. The hub may run or not; what it has counted
    is not counted again. Interrupted, it goes on where it stopped when the command is repeated.
    """
    chosen = named(context.installed, idents) if idents else None
    means = filling.means(workers, dask, concurrency, patience)
    with filling.opened(context) as (engine, archive):
        messages, apart = filling.fill_in(context, engine, archive, chosen, means)
        engine.prune()
        failing = failures(engine, chosen)
    complete = set(chosen or context.installed.datasets) - set(failing)
    echo(f"{messages} messages of the archive were read; complete: {len(complete)} idents.")
    if apart:
        echo(
            f"Complete, and apart from the others until those agree with the archive: "
            f"{', '.join(apart)}."
        )
    refuse_failures(failing)


def failures(engine: Engine, idents: frozenset[str] | None) -> dict[str, str]:
    """Those of ``idents`` (all when absent) that are failing, with the reasons."""
    row = tables.plugin.c
    with engine.transaction() as connection:
        found = connection.execute(select(row.ident, row.error).where(row.state == FAILING)).all()
    return {
        ident: error if error.startswith(STAYS) else f"its rows cannot be written: {error}"
        for ident, error in found
        if idents is None or ident in idents
    }


def refuse_failures(failing: dict[str, str]) -> None:
    """End with an error if there are any.

    Raises:
        StatscacheError: with all of them.
    """
    if failing:
        lines = [f"{ident}: {error}" for ident, error in sorted(failing.items())]
        raise StatscacheError("not complete:\n" + "\n".join(lines))
