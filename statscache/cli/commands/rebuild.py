"""``statscache rebuild``: count plugins anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click
from sqlalchemy import select

from statscache.archive import Archive
from statscache.audit.shortfall import objections
from statscache.cli import filling
from statscache.cli.commands.backfill import failures, refuse_failures
from statscache.cli.context import Context
from statscache.cli.idents import named, with_siblings
from statscache.cli.terminal import echo
from statscache.counting.engine import Engine
from statscache.database import tables
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
    they are complete. The old ones stay where a plugin rejects messages that it had counted before,
    and where the archive has lost more of what was counted than
    statscache.rebuild.tolerated_loss: the command says so, and ends with status 1. The hub may run
    or not. Interrupted, it goes on where it stopped when the command is repeated, or when the hub
    runs.
    """
    chosen = with_siblings(context.installed, named(context.installed, idents))
    means = filling.means(workers, dask, concurrency, patience)
    with filling.opened(context) as (engine, archive):
        if force:
            engine.membership.forced = chosen
        else:
            _refuse_loss(objections(engine, archive, chosen))
        with engine.transaction(alone=True) as connection:
            begun = engine.membership.rebuild(connection, chosen)
        for text, some in (("Counted anew", begun), ("Goes on", chosen - set(begun))):
            if some:
                echo(f"{text}: {', '.join(sorted(some))}.", err=True)
        messages = complete(context, engine, archive, chosen, means)
    echo(
        f"{messages} messages of the archive were read; counted anew: {', '.join(sorted(chosen))}."
    )


def complete(
    context: Context,
    engine: Engine,
    archive: Archive,
    idents: frozenset[str],
    means: filling.Means,
) -> int:
    """Count on what is being counted anew until it has taken its place; gives what was read.

    Raises:
        click.exceptions.Exit: it was interrupted.
        StatscacheError: it has not, for a cause that the text names.
    """
    pace = means.pace(context.settings)
    # The others may have counted messages that the archive is yet to show.
    longest = pace.lag + pace.overlap + _SLACK
    messages, _ = filling.fill_in(context, engine, archive, idents, means, longest)
    engine.prune()
    failing = failures(engine, idents)
    waiting = _waiting(engine, idents) - set(failing)
    refuse_failures(failing)
    if waiting:
        raise StatscacheError(
            f"complete, and still beside the old rows: {', '.join(sorted(waiting))}. The other "
            "plugins have counted messages that the archive does not give; the hub, or the same "
            "command, goes on to compare until they agree"
        )
    return messages


def _refuse_loss(objections: Mapping[str, str]) -> None:
    """End with an error if there are any.

    Raises:
        StatscacheError: with all of them.
    """
    if objections:
        lines = [f"{ident}: {text}" for ident, text in sorted(objections.items())]
        raise StatscacheError(
            "not begun, and the old rows stay: the archive has lost what they tell of. Restore "
            "it, or use --force to have what is left of it:\n" + "\n".join(lines)
        )


def _waiting(engine: Engine, idents: Iterable[str]) -> set[str]:
    row = tables.plugin.c
    with engine.transaction() as connection:
        found = connection.scalars(
            select(row.ident).where(row.ident.in_(list(idents)), row.shadow.is_not(None))
        )
        return set(found)
