"""Repair what the audit found to be wrong."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from statscache.archive import Archive, Window, read
from statscache.audit.archive_loss import ArchivedDigests, ArchiveLoss, widened
from statscache.audit.recount import Recount
from statscache.audit.shortfall import objections
from statscache.audit.uncertain_ranges import UncertainRanges
from statscache.audit.verdict import Verdict
from statscache.audit.verify import claimed_among
from statscache.counting.batch import Batch
from statscache.counting.engine import Engine
from statscache.counting.lanes.checksums import replace_checksums
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.counting.membership.plugin_rows import read_plugins
from statscache.message import Message
from statscache.plugins.aggregate import AggregateTable
from statscache.plugins.installed.discovery import Dataset
from statscache.spans import difference
from statscache.times import DAY

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 5_000

_NOT_YET = (
    "the archive does not have yet all that it has counted, or that has just changed; "
    "run 'statscache verify --repair' again in some minutes"
)


def repair(
    engine: Engine, archive: Archive, idents: Sequence[str], window: Window | None
) -> Generator[int, None, list[str]]:
    """Replace the rows of ``idents`` in ``window`` by those of a recount.

    Their buckets of the window are replaced in one transaction for each lane. Those that are still
    open are replaced by what has been counted of them, unless the archive does not have it yet,
    which is logged with what to do. Rows that are no buckets may come of any time: those plugins
    are rebuilt as a whole, in a shadow.

    Where the archive has less than was counted, only those buckets are replaced of whose time it
    has exactly what was counted, and nothing is rebuilt.

    Yields now and then how many messages were read; returns the idents that were repaired.

    Raises:
        ArchiveUnavailable: nothing was changed.
        DatabaseUnavailable: the same.
    """
    datasets = {ident: engine.installed.datasets[ident] for ident in idents}
    bucketed = {
        ident: table for ident, d in datasets.items() if (table := buckets_of(d)) is not None
    }
    others = _rebuild(engine, archive, [ident for ident in idents if ident not in bucketed])
    if not bucketed or window is None:
        return others
    with engine.transaction() as connection:
        lanes = {lane.id: lane for lane in read_lanes(connection)}
        lane_of = _lanes_of(connection, bucketed)
    repaired: list[str] = []
    for number in sorted(set(lane_of.values())):
        some = {ident: table for ident, table in bucketed.items() if lane_of[ident] == number}
        repaired += yield from _repair_lane(engine, archive, lanes[number], some, window)
    return [*others, *repaired]


def _repair_lane(
    engine: Engine,
    archive: Archive,
    lane: Lane,
    bucketed: Mapping[str, AggregateTable],
    window: Window,
) -> Generator[int, None, list[str]]:
    """Recount what is older than the pruned claims of the lane, and of the rest what it claims."""
    wide = widened(window, bucketed.values())
    datasets = engine.installed.datasets
    starts = {ident: (datasets[ident], wide.start) for ident in bucketed}
    with Recount(starts, {}, engine.time_limit.lifted(), engine.clock) as scratch:
        reading = yield from _read(archive, scratch, lane, wide)
        if reading is None:
            log.error("the archive has gaps there: nothing is repaired")
            return []
        with engine.transaction(alone=True) as connection:
            lane = next((each for each in read_lanes(connection) if each.id == lane.id), lane)
            pruned_until = _clamped(lane.claims_pruned_until, wide)
            uncertain = _count_recent(connection, lane, scratch, reading, wide)
            loss = ArchiveLoss.measure(
                connection, lane, Window(wide.start, pruned_until), reading.digests
            )
            refused = _uncertain(uncertain, bucketed, window, pruned_until)
            if pruned_until < reading.pruned_until:
                refused = {*bucketed}
            lane_of = _lanes_of(connection, bucketed)
            refused |= {ident for ident in bucketed if lane_of.get(ident) != lane.id}
            parts = _parts(connection, scratch, loss, bucketed, window, refused)
            pruned = Window(window.start, min(window.stop, pruned_until))

            def replace(connection: Connection) -> list[str]:
                replaced = [i for i in parts if _replace(connection, scratch, parts[i])]
                if replaced and not loss.lost:
                    replace_checksums(connection, lane, pruned.start, pruned.stop, loss.archived)
                return replaced

            outcome = engine.commit(Batch.of_repair(lane.id, replace), within=connection)
            return sorted(outcome.changed)


@dataclass(frozen=True)
class _Reading:
    """What the archive has of the time that is repaired.

    Attributes:
        pruned_until: what is older is in the scratch: its claims had been pruned.
        recent: the other messages.
        digests: of all of them.
    """

    pruned_until: float
    recent: list[Message]
    digests: ArchivedDigests


def _read(
    archive: Archive, scratch: Recount, lane: Lane, wide: Window
) -> Generator[int, None, _Reading | None]:
    """Read the archive, and count what is old; None: it does not return all that it has."""
    reading = _Reading(_clamped(lane.claims_pruned_until, wide), [], ArchivedDigests())
    for start, stop in ((wide.start, reading.pruned_until), (reading.pruned_until, wide.stop)):
        for piece in read(archive, start, stop):
            if piece.missing:
                return None
            reading.digests.add(piece.messages)
            if start < reading.pruned_until:
                scratch.add(piece)
            else:
                reading.recent.extend(piece.messages)
            yield piece.size
    return reading


def _count_recent(
    connection: Connection, lane: Lane, scratch: Recount, reading: _Reading, wide: Window
) -> UncertainRanges:
    """Count those of the recent messages that the lane claims; returns where that is not known."""
    uncertain = UncertainRanges()
    start = reading.pruned_until
    if start < wide.stop:
        claimed, _ = claimed_among(connection, lane.id, reading.recent, start, uncertain)
        scratch.count(claimed, start)
    return uncertain


def _uncertain(
    uncertain: UncertainRanges,
    bucketed: Mapping[str, AggregateTable],
    window: Window,
    pruned_until: float,
) -> set[str]:
    """The idents of which the archive does not have yet all that was counted."""
    found = set()
    for ident, table in bucketed.items():
        span = widened(window, [table])
        # Of what is older, the loss says where the archive cannot be trusted.
        open_from = max(span.start, pruned_until)
        if open_from < span.stop and uncertain.overlaps(open_from, span.stop):
            found.add(ident)
    return found


def _parts(
    connection: Connection,
    scratch: Recount,
    loss: ArchiveLoss,
    bucketed: Mapping[str, AggregateTable],
    window: Window,
    refused: Collection[str],
) -> dict[str, _Part]:
    """The buckets that may be replaced, by ident; what speaks against the others is logged."""
    parts = {}
    rows = read_plugins(connection, bucketed)
    for ident, table in bucketed.items():
        objection = scratch.regressions.objection(connection, ident)
        if ident in refused:
            objection = objection or _NOT_YET
        if objection:
            log.error("%s is not repaired: %s", ident, objection)
            continue
        span = widened(window, [table])
        parts[ident] = _Part(table, span, rows[ident].pruned_until, loss.kept(table))
    return parts


def _lanes_of(connection: Connection, idents: Iterable[str]) -> dict[str, int]:
    return {ident: row.lane for ident, row in read_plugins(connection, idents).items()}


def _clamped(moment: float | None, window: Window) -> float:
    return max(window.start, min(window.stop, moment or 0.0))


def repair_days(
    engine: Engine, archive: Archive, verdicts: Iterable[Verdict]
) -> Generator[int, None, list[str]]:
    """Repair the days in which rows differ; yields now and then how many messages were read.

    Returns the idents that have no buckets: they are being rebuilt as a whole, in shadows.

    Raises:
        ArchiveUnavailable: the days before this one have been repaired.
        DatabaseUnavailable: the same.
    """
    wrong = [verdict for verdict in verdicts if verdict.differences]
    for day in sorted({day for verdict in wrong for day in verdict.days}):
        idents = [verdict.ident for verdict in wrong if day in verdict.days]
        yield from repair(engine, archive, idents, Window(day, day + DAY))
    return _rebuild(engine, archive, [verdict.ident for verdict in wrong if not verdict.days])


def _rebuild(engine: Engine, archive: Archive, idents: Sequence[str]) -> list[str]:
    """Let plugins be rebuilt as a whole; returns those of which the archive has enough."""
    refused = objections(engine, archive, idents)
    for ident, objection in refused.items():
        log.error("%s is not rebuilt: %s", ident, objection)
    begun = [ident for ident in idents if ident not in refused]
    for ident in begun:
        engine.rebuild([ident])
    return begun


def buckets_of(dataset: Dataset) -> AggregateTable | None:
    """The declaration of a table whose rows are buckets; None for others."""
    table = dataset.declaration
    return table if table is not None and table.width is not None else None


@dataclass(frozen=True)
class _Part:
    """The buckets of a table that are replaced: those of a time, without those that are kept."""

    table: AggregateTable
    span: Window
    pruned_until: float | None
    kept: list[Window]


def _replace(connection: Connection, scratch: Recount, part: _Part) -> bool:
    """Put the rows of the scratch in place of those that are stored; False if all are kept."""
    table, span = part.table, part.span
    when = table.table.c.timestamp
    first = max(math.ceil(span.start), math.ceil(part.pruned_until or 0.0))
    names = [column.name for column in table.table.columns]
    is_replaced = False
    kept = ((window.start, window.stop) for window in part.kept)
    for start, stop in difference((first, math.ceil(span.stop)), kept):
        is_replaced = True
        inside = (when >= int(start), when < int(stop))
        connection.execute(delete(table.table).where(*inside))
        rows: list[dict[str, Any]] = []
        for row in scratch.rows(select(table.table).where(*inside)):
            rows.append(dict(zip(names, row, strict=True)))
            if len(rows) >= _ROWS_AT_ONCE:
                connection.execute(insert(table.table), rows)
                rows.clear()
        if rows:
            connection.execute(insert(table.table), rows)
    return is_replaced
