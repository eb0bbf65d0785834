"""``statscache rebuild``: rebuild the tables of plugins from the archive."""

from __future__ import annotations

from collections.abc import Mapping

import click

from statscache.audit.shortfall import objections
from statscache.cli import catchup
from statscache.cli.context import Context
from statscache.cli.idents import resolve, with_siblings
from statscache.cli.terminal import echo
from statscache.errors import StatscacheError


@click.command()
@click.argument("idents", nargs=-1, required=True)
@click.option(
    "--force",
    is_flag=True,
    help="Replace the old rows even if the new ones lack some of what they count.",
)
@catchup.add_options
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
    """Rebuild the plugins of IDENTS from the archive, in all their resolutions.

    IDENTS are those that 'statscache plugins' lists, or names of plugins. The new rows are counted
    into shadow tables while readers still see the old ones; when they are complete, they replace
    the old ones in one transaction. The old rows stay if a plugin rejects messages that it had
    counted before, or if the archive has lost more of what was counted than
    statscache.rebuild.tolerated_loss: the command says so and exits with status 1. The hub may run
    or not. After an interruption, repeat the command to continue; a running hub continues too.
    """
    chosen = with_siblings(context.installed, resolve(context.installed, idents))
    options = catchup.parse_options(workers, dask, concurrency, patience)
    with catchup.opened(context) as (engine, archive):
        if force:
            engine.force(chosen)
        else:
            _refuse_loss(objections(engine, archive, chosen))
        begun = engine.rebuild(chosen)
        for text, some in (("Rebuilding", begun), ("Continuing", chosen - set(begun))):
            if some:
                echo(f"{text}: {', '.join(sorted(some))}.", err=True)
        messages = catchup.finish_rebuild(context, engine, archive, chosen, options)
    echo(f"{messages} messages of the archive were read; rebuilt: {', '.join(sorted(chosen))}.")


def _refuse_loss(objections: Mapping[str, str]) -> None:
    """Raise an error if the archive has lost too much to rebuild from it.

    Raises:
        StatscacheError: with an ident and a reason in each line.
    """
    if objections:
        lines = [f"{ident}: {text}" for ident, text in sorted(objections.items())]
        raise StatscacheError(
            "not started, and the old rows stay: the archive has lost messages that they count. "
            "Restore it, or use --force to rebuild from what is left:\n" + "\n".join(lines)
        )
