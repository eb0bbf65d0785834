"""``statscache status``: show the progress and the problems of the hub."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import click
from sqlalchemy import Connection, func, select

from statscache.app.state import coverage
from statscache.app.state.coverage import Coverage
from statscache.app.state.revisions import Snapshot
from statscache.cli.context import Context
from statscache.cli.terminal import echo
from statscache.database import schema, tables
from statscache.database.plugin_state import FAILING
from statscache.times import duration, to_the_second

# Users copy idents from here, so they are never split over lines.
_IDENTS = textwrap.TextWrapper(
    100,
    initial_indent="    ",
    subsequent_indent="    ",
    break_on_hyphens=False,
    break_long_words=False,
)


@click.command()
@click.pass_obj
def status(context: Context) -> None:
    """Show the lanes, what each plugin covers, the audit, and current problems.

    A lane is a set of plugins that have counted the same messages. Everything up to its watermark
    has been reconciled with the archive; newer messages come from the bus.
    """
    database = context.database(read_only=True)
    schema.check(database)
    with database.begin() as connection:
        lanes = connection.execute(select(tables.lane).order_by(tables.lane.c.id)).all()
        plugins = connection.execute(select(tables.plugin).order_by(tables.plugin.c.ident)).all()
        audit = connection.execute(select(tables.audit)).first()
        waiting = _by_lane(connection, tables.late, func.count())
        missing = _by_lane(connection, tables.gap, func.sum(tables.gap.c.missing))
        failure = connection.execute(select(tables.hub_failure)).one_or_none()
        snapshot = Snapshot(connection)
        coverages = {plugin.ident: coverage.measure(snapshot, plugin.ident) for plugin in plugins}
        rejections = connection.scalar(select(func.sum(tables.rejected_total.c.messages))) or 0
    database.dispose()
    for lane in lanes:
        members = [plugin for plugin in plugins if plugin.lane == lane.id]
        _show_lane(lane, members, coverages, waiting.get(lane.id, 0), missing.get(lane.id, 0))
    if not lanes:
        echo("Nothing has been counted yet.")
    if failure is not None:
        echo(f"the hub ended {_age(failure.failed_at)}: {failure.reason}")
    for broken in context.installed.broken:
        echo(f"broken: {broken.source.entry_point}: {broken.error}")
    _show_audit(audit, plugins)
    echo(f"{rejections} rejected; {len(context.installed.broken)} plugins broken.")


def _by_lane(connection: Connection, table: Any, value: Any) -> dict[int, int]:
    query = select(table.c.lane, value).group_by(table.c.lane)
    return {lane: int(number) for lane, number in connection.execute(query)}


def _show_lane(
    lane: Any,
    members: Sequence[Any],
    coverages: Mapping[str, Coverage],
    waiting: int,
    missing: int,
) -> None:
    joins = f" (joins {lane.joins})" if lane.joins else ""
    echo(f"lane {lane.name}{joins}: {lane.messages} messages in {lane.batches} batches")
    echo(f"  newest message {_age(lane.newest)}, last commit {_age(lane.committed_at)}")
    if lane.watermark is None:
        echo("  no archive is configured")
    else:
        behind = time.time() - lane.watermark
        echo(f"  watermark {to_the_second(lane.watermark)}, {duration(behind)} behind the clock")
    if lane.retry_at is not None:
        echo(f"  failed {lane.failures} times, next try {to_the_second(lane.retry_at)}")
    if waiting:
        echo(f"  {waiting} late messages wait for the archive")
    if missing:
        echo(f"  the archive did not return {missing} messages that it reports")
    if lane.joins and lane.watermark is None:
        echo(
            f"  {lane.joins} has counted messages that this lane has not: 'statscache replay "
            "FILE...' of those messages fills it in"
        )
    # Most plugins cover the same, and share a line.
    alike: dict[str, list[str]] = {}
    for plugin in members:
        alike.setdefault(_condition(plugin, coverages[plugin.ident]), []).append(plugin.ident)
    for condition, idents in alike.items():
        echo(f"  {condition}")
        names = ", ".join(idents)
        echo("\n".join(_IDENTS.wrap(names)))


def _condition(plugin: Any, found: Coverage) -> str:
    """The state of a plugin, and what it covers."""
    rebuilding = ", being rebuilt" if plugin.shadow else ""
    lines = [f"{found.state}{rebuilding}, {_covered(found)}"]
    if plugin.missed:
        lines[0] += f", without {plugin.missed} messages that it missed while it failed"
    if plugin.error:
        onward = "" if found.state == FAILING else ", and continues"
        lines.append(f"failed last {_age(plugin.failed_at)}{onward}")
    lines += filter(None, [plugin.error or found.error])
    return ":\n  ".join(lines) + ":"


def _covered(found: Coverage) -> str:
    """The times of which everything has been counted, as text for people."""
    if found.since is None or found.until is None:
        return "complete for no time yet"
    starts = [found.since, *(stop for _, stop in found.gaps)]
    stops = [*(start for start, _ in found.gaps), found.until]
    # An empty span is where history begins and nothing has been read yet.
    spans = [(a, b) for a, b in zip(starts, stops, strict=True) if b > a]
    if not spans:
        return f"complete for no time yet, from {to_the_second(found.since)} on"
    text = f"complete from {to_the_second(spans[0][0])} to {to_the_second(spans[-1][1])}"
    holes = [(before[1], after[0]) for before, after in pairwise(spans)]
    if holes:
        start, stop = max(holes, key=lambda hole: hole[1] - hole[0])
        what = "a hole" if len(holes) == 1 else f"{len(holes)} holes, the longest"
        text += f", but for {what} from {to_the_second(start)} to {to_the_second(stop)}"
    if found.since < spans[0][0]:
        text += f"; wanted since {to_the_second(found.since)}"
    return text


def _show_audit(audit: Any, plugins: Iterable[Any]) -> None:
    if audit is None:
        echo("audit: nothing has been compared yet")
        return
    echo(
        f"audit: {audit.messages} messages compared in {audit.sweeps} sweeps of the history, "
        f"{audit.mismatches} rows differed, {audit.repaired} were repaired; "
        f"last {_age(audit.checked_at)}"
    )
    lost = max(audit.lost, audit.lost_last_sweep)
    if lost:
        echo(f"  the archive lacks {lost} messages that were counted: their rows are kept")
    untils = [plugin.audited_until for plugin in plugins if plugin.audited_until]
    if untils:
        echo(f"  every audited plugin: at least until {to_the_second(min(untils))}")
    for plugin in plugins:
        if plugin.mismatches:
            echo(f"  {plugin.ident}: {plugin.mismatches} rows differed")
    if audit.last_mismatch:
        echo(f"  the newest: {audit.last_mismatch}")


def _age(moment: float | None) -> str:
    if moment is None:
        return "never"
    return f"{to_the_second(moment)} ({duration(time.time() - moment)} ago)"
