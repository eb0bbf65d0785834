"""``statscache verify``: compare the tables with the archive."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

import click

from statscache import about
from statscache.archive import Archive, open_archive
from statscache.audit.repair import repair_days
from statscache.audit.shortfall import measure
from statscache.audit.verdict import Verdict
from statscache.audit.verify import Verification, check_idents
from statscache.cli.catchup import CatchUpOptions, finish_rebuild
from statscache.cli.context import Context
from statscache.cli.parameters import TIME
from statscache.cli.terminal import echo, redraw
from statscache.clock import SYSTEM
from statscache.config import Settings
from statscache.counting.lanes.lane import PERMANENT
from statscache.database import schema
from statscache.database.connection import Database
from statscache.errors import StatscacheError
from statscache.times import to_the_second

WAITS = 3
"""The exit status when nothing differs, but not everything could be compared."""

SHOWN = 20
"""Differences that are printed for each ident."""


@click.command()
@click.argument("idents", nargs=-1)
@click.option("--start", type=TIME, help="The start of the range, in UNIX seconds or ISO 8601.")
@click.option("--stop", type=TIME, help="The end of the range, exclusive.")
@click.option("--all", "show_all", is_flag=True, help=f"Print more than {SHOWN} differences each.")
@click.option("--repair", is_flag=True, help="Rebuild the days in which a row differs.")
@click.pass_obj
def verify(
    context: Context,
    idents: tuple[str, ...],
    start: float | None,
    stop: float | None,
    show_all: bool,
    repair: bool,
) -> None:
    """Recount a time range from the archive and compare it with the tables, row by row.

    IDENTS are those that 'statscache plugins' lists (default: all). The range is widened to whole
    windows. Nothing is changed without --repair. The hub may run meanwhile.

    With --repair, the days in which a row differs are rebuilt, except where the archive has less
    than was counted. Rows that are not windows are rebuilt with all of their history, in a shadow
    table. Then all of it is compared again.

    The exit status is 1 if a row differs, or if a plugin rejects messages that it had counted
    before. It is 3 if none does but not everything could be compared: the archive does not have
    yet, or did not return, what was counted; it has what is not filled in yet; an ident is being
    rebuilt, or was counted without an archive; or no ident covers anything of this range.
    """
    check_idents(context.installed, idents)
    if start is not None and stop is not None and start >= stop:
        raise click.UsageError("--start must be earlier than --stop")
    about.configure(context.config)
    archive = _open_archive(context.settings)
    database = context.database(read_only=True)

    def compare(some: Sequence[str] | None) -> list[Verdict]:
        verification = Verification(
            database, context.installed, archive, some, start, stop, clock=SYSTEM
        )
        _run(verification)
        found = [_show(verdict, show_all=show_all) for verdict in verification.verdicts]
        echo(f"{verification.messages} messages of the archive, {sum(found)} differences.")
        return verification.verdicts

    try:
        schema.check(database)
        verdicts = compare(idents or None)
        wrong = [verdict for verdict in verdicts if verdict.differences]
        if repair and wrong:
            _repair(context, archive, wrong)
            mended = {verdict.ident for verdict in wrong}
            others = [verdict for verdict in verdicts if verdict.ident not in mended]
            echo("After the repair:")
            verdicts = others + compare(sorted(mended))
        _show_loss(database, archive, verdicts)
    except KeyboardInterrupt:
        echo("Interrupted: use --start and --stop to compare a part at a time.", err=True)
        raise
    finally:
        archive.close()
        database.dispose()
    sys.exit(_status(verdicts))


def _open_archive(settings: Settings) -> Archive:
    archive = open_archive(settings.datagrepper_endpoint, settings.archive_files)
    if archive is None:
        raise StatscacheError(
            "there is no archive to compare with: set statscache.datagrepper.endpoint or "
            "statscache.archive.files"
        )
    return archive


def _status(verdicts: Sequence[Verdict]) -> int:
    """The exit status."""
    if any(verdict.differences or verdict.refused for verdict in verdicts):
        return 1
    if any(verdict.waits for verdict in verdicts) or all(verdict.skipped for verdict in verdicts):
        return WAITS
    return 0


def _repair(context: Context, archive: Archive, wrong: Sequence[Verdict]) -> None:
    """Rebuild the rows that differ."""
    engine = context.engine()
    try:
        repairing = repair_days(engine, archive, wrong)
        begun: list[str] = []
        while True:
            try:
                next(repairing)
            except StopIteration as end:
                begun = end.value
                break
        if begun:
            finish_rebuild(context, engine, archive, frozenset(begun), CatchUpOptions())
    finally:
        engine.close()


def _show_loss(database: Database, archive: Archive, verdicts: Iterable[Verdict]) -> None:
    """Print how much the archive lacks of what was counted, if it does."""
    wrong = [verdict for verdict in verdicts if verdict.differences]
    if not wrong:
        return
    start = min(verdict.start for verdict in wrong)
    stop = max(verdict.stop for verdict in wrong)
    found = [measure(database.begin, archive, name, start, stop) for name in PERMANENT]
    # The lanes have counted nearly the same, so one of them is printed.
    most = max(found, key=lambda each: each.lost)
    if most.lost:
        echo(f"In this range {most}: nothing is repaired where it lacks some.")


def _run(verification: Verification) -> None:
    """Run a verification, and show its progress on a terminal."""
    first: float | None = None
    drawn = 0.0
    for position, stop in verification.compare():
        first = position if first is None else min(first, position)
        if sys.stderr.isatty() and time.monotonic() - drawn > 0.2:
            share = (position - first) / (stop - first) if stop > first else 1.0
            redraw(f"Read up to {to_the_second(position)} ({share:.0%})")
            drawn = time.monotonic()
    if drawn:
        echo("", err=True)


def _show(verdict: Verdict, *, show_all: bool) -> int:
    """Print a verdict; returns the number of differences."""
    unfilled = ""
    if verdict.unfilled is not None:
        unfilled = f"not filled in yet from {to_the_second(verdict.unfilled)} on"
    if verdict.skipped or verdict.refused:
        reasons = filter(None, [verdict.skipped or verdict.refused, unfilled])
        echo(f"{verdict.ident}: not compared: {'; '.join(reasons)}")
        return 0
    remarks = [f"{verdict.rows} rows agree"]
    if unfilled:
        remarks.append(unfilled)
    if verdict.restamped:
        remarks.append(f"{verdict.restamped} differ by copies with other times")
    if verdict.undecided:
        remarks.append(f"{verdict.undecided} wait for the archive")
    count = len(verdict.differences) + verdict.more
    if count:
        remarks.append(f"{count} DIFFER")
    span = f"{to_the_second(verdict.start)} to {to_the_second(verdict.stop)}"
    echo(f"{verdict.ident}: {', '.join(remarks)} ({span})")
    shown = verdict.differences if show_all else verdict.differences[:SHOWN]
    for difference in shown:
        echo(f"  {difference}")
    if count > len(shown):
        echo(f"  and {count - len(shown)} more")
    return count
