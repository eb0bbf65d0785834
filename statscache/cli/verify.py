"""``statscache verify``: compare the tables with the archive."""

from __future__ import annotations

import sys
import time

import click

from statscache import about
from statscache.archive import open_archive
from statscache.audit.verdict import Verdict, iso
from statscache.audit.verify import Verification, check_idents
from statscache.cli.context import Context
from statscache.cli.moments import MOMENT
from statscache.cli.terminal import echo, redraw
from statscache.errors import StatscacheError

SHOWN = 20
"""Differences of one ident that are printed."""


@click.command()
@click.argument("idents", nargs=-1)
@click.option("--start", type=MOMENT, help="Compare from here on: UNIX seconds or ISO 8601.")
@click.option("--stop", type=MOMENT, help="Compare what is earlier than this.")
@click.option("--all", "show_all", is_flag=True, help=f"Show more than {SHOWN} differences each.")
@click.pass_obj
def verify(
    context: Context,
    idents: tuple[str, ...],
    start: float | None,
    stop: float | None,
    show_all: bool,
) -> None:
    """Count a time anew from the archive, beside, and compare it with the tables, row for row.

    IDENTS are those that 'statscache plugins' lists; all of them when absent. A time is
    widened to whole windows. Nothing is changed, and the hub may go on meanwhile. Ends with
    status 1 when a row differs, or when a plugin rejects messages that it had counted before.
    """
    check_idents(context.installed, idents)
    if start is not None and stop is not None and start >= stop:
        raise click.UsageError("--start must be earlier than --stop")
    about.configure(context.config)
    settings = context.settings
    archive = open_archive(settings.datagrepper_endpoint, settings.archive_files)
    if archive is None:
        raise StatscacheError(
            "there is no archive to compare with: set statscache.datagrepper.endpoint or "
            "statscache.archive.files"
        )
    database = context.database(read_only=True)
    database.check_schema()
    verification = Verification(database, context.installed, archive, idents or None, start, stop)
    try:
        _run(verification)
    except KeyboardInterrupt:
        echo("Interrupted. Nothing was changed; --start and --stop divide the work.", err=True)
        raise
    finally:
        archive.close()
        database.dispose()
    found = [_show(verdict, show_all=show_all) for verdict in verification.verdicts]
    echo(f"{verification.messages} messages of the archive, {sum(found)} differences.")
    if any(found) or any(verdict.refused for verdict in verification.verdicts):
        sys.exit(1)


def _run(verification: Verification) -> None:
    """Show how far it is, on a terminal."""
    first: float | None = None
    drawn = 0.0
    for position, stop in verification.run():
        first = position if first is None else min(first, position)
        if sys.stderr.isatty() and time.monotonic() - drawn > 0.2:
            share = (position - first) / (stop - first) if stop > first else 1.0
            redraw(f"Read up to {iso(position)} ({share:.0%})")
            drawn = time.monotonic()
    if drawn:
        echo("", err=True)


def _show(verdict: Verdict, *, show_all: bool) -> int:
    """Print a verdict; gives the number of differences."""
    if verdict.skipped or verdict.refused:
        echo(f"{verdict.ident}: not compared: {verdict.skipped or verdict.refused}")
        return 0
    remarks = [f"{verdict.rows} rows agree"]
    if verdict.restamped:
        remarks.append(f"{verdict.restamped} differ by copies with other times")
    if verdict.undecided:
        remarks.append(f"{verdict.undecided} wait for the archive")
    count = len(verdict.differences) + verdict.more
    if count:
        remarks.append(f"{count} DIFFER")
    span = f"{iso(verdict.start)} to {iso(verdict.stop)}"
    echo(f"{verdict.ident}: {', '.join(remarks)} ({span})")
    shown = verdict.differences if show_all else verdict.differences[:SHOWN]
    for difference in shown:
        echo(f"  {difference}")
    if count > len(shown):
        echo(f"  and {count - len(shown)} more")
    return count
