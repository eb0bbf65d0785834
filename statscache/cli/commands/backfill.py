"""``statscache backfill``: fill in history from the archive."""

from __future__ import annotations

import click

from statscache.cli import catchup
from statscache.cli.context import Context
from statscache.cli.idents import resolve
from statscache.cli.terminal import echo


@click.command()
@click.argument("idents", nargs=-1)
@catchup.add_options
@click.pass_obj
def backfill(
    context: Context,
    idents: tuple[str, ...],
    workers: int,
    dask: str | None,
    concurrency: int | None,
    patience: float,
) -> None:
    """Fill in the history of IDENTS (default: all) from the archive, up to now.

    IDENTS are those that 'statscache plugins' lists, or names of plugins. The plugins that share a
    lane with them ('statscache status') are filled in too. The hub may run or not; what it has
    counted is not counted again. After an interruption, repeat the command to continue.
    """
    chosen = resolve(context.installed, idents) if idents else None
    options = catchup.parse_options(workers, dask, concurrency, patience)
    with catchup.opened(context) as (engine, archive):
        messages, apart = catchup.fill_in(context, engine, archive, chosen, options)
        engine.prune()
        failing = catchup.failures(engine, chosen)
    complete = set(chosen or context.installed.datasets) - set(failing)
    echo(f"{messages} messages of the archive were read; complete: {len(complete)} idents.")
    if apart:
        echo(
            "Complete, and in lanes of their own until the others agree with the archive: "
            f"{', '.join(apart)}."
        )
    catchup.refuse_failures(failing)
