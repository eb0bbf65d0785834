"""Count anew what the audit found to be wrong."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from statscache import tables
from statscache.archive import Archive, Window, read
from statscache.archive.rows import iso
from statscache.audit.recount import Recount
from statscache.audit.shortfall import objections
from statscache.audit.verdict import Verdict
from statscache.engine import Engine
from statscache.lanes import (
    COUNTED_WIDTH,
    RESTAMPING,
    Lane,
    claim_digest,
    content_digests,
    counted_window,
)
from statscache.message import Message
from statscache.plugins.aggregate import Aggregate, AggregateTable
from statscache.plugins.discovery import Dataset

log = logging.getLogger(__name__)

_DAY = 86_400
_ROWS_AT_ONCE = 5_000


def repair(
    engine: Engine, archive: Archive, idents: Sequence[str], window: Window | None
) -> Generator[int, None, list[str]]:
    """Count ``idents`` anew in ``window``; gives how much was read, and returns what was repaired.

    Their buckets of the window are replaced, in one transaction. Rows that are no buckets may come
    of any time: those plugins are rebuilt as a whole, in a shadow.

    Where the archive has less than was counted, that is logged. Then only those buckets are
    replaced of whose time it has exactly what was counted, and nothing is rebuilt.

    Raises:
        ArchiveUnavailable: nothing was changed.
        DatabaseUnavailable: the same.
    """
    datasets = {ident: engine.installed.datasets[ident] for ident in idents}
    bucketed = {ident: table for ident, d in datasets.items() if (table := _buckets(d)) is not None}
    others = _rebuild(engine, archive, [ident for ident in idents if ident not in bucketed])
    if not bucketed or window is None:
        return others
    wide = _widened(window, bucketed.values())
    given = _Given()
    with Recount({ident: (datasets[ident], wide.start) for ident in bucketed}, {}) as scratch:
        for piece in read(archive, wide.start, wide.stop):
            if piece.missing:
                log.error("the archive has gaps there: nothing is repaired")
                return others
            scratch.add(piece)
            given.add(piece.messages)
            yield piece.size
        with engine.transaction(alone=True) as connection:
            lanes = {lane.id: lane for lane in engine.lanes.all(connection)}
            seen: dict[int, _Memory] = {}
            repaired = []
            for ident, table in bucketed.items():
                objection = scratch.refusals.objection(connection, ident)
                if objection:
                    log.error("%s is not counted anew: %s", ident, objection)
                    continue
                row = connection.execute(
                    select(tables.plugin).where(tables.plugin.c.ident == ident)
                ).one()
                span = _widened(window, [table])
                lane = lanes[row.lane]
                if span.stop > (lane.horizon or 0.0):
                    log.warning("%s is counted anew when its bucket is over", ident)
                    continue
                if lane.id not in seen:
                    seen[lane.id] = _Memory.of(connection, engine, lane, wide, given)
                    seen[lane.id].report()
                kept = seen[lane.id].kept(table)
                if _replace(connection, scratch, table, span, row.pruned_until, kept):
                    repaired.append(ident)
            for number, memory in seen.items():
                if not memory.lost:
                    engine.lanes.set_counted(
                        connection, lanes[number], window.start, window.stop, memory.archived
                    )
            engine.note_changes(connection, repaired)
    return [*others, *repaired]


def mend(
    engine: Engine, archive: Archive, verdicts: Iterable[Verdict]
) -> Generator[int, None, list[str]]:
    """Repair the days in which rows differ; gives how much was read.

    Returns the idents that have no buckets, and are being counted anew as a whole, beside.

    Raises:
        ArchiveUnavailable: the days before this one have been repaired.
        DatabaseUnavailable: the same.
    """
    wrong = [verdict for verdict in verdicts if verdict.differences]
    for day in sorted({day for verdict in wrong for day in verdict.days}):
        idents = [verdict.ident for verdict in wrong if day in verdict.days]
        yield from repair(engine, archive, idents, Window(day, day + _DAY))
    return _rebuild(engine, archive, [verdict.ident for verdict in wrong if not verdict.days])


def _rebuild(engine: Engine, archive: Archive, idents: Sequence[str]) -> list[str]:
    """Let plugins be counted anew as a whole; gives those for which nothing speaks against it."""
    refused = objections(engine, archive, idents)
    for ident, objection in refused.items():
        log.error("%s is not counted anew: %s", ident, objection)
    begun = [ident for ident in idents if ident not in refused]
    if begun:
        with engine.transaction(alone=True) as connection:
            for ident in begun:
                engine.roster.rebuild(connection, [ident])
    return begun


Sums = dict[int, tuple[int, int]]
"""By the start of a window of :data:`COUNTED_WIDTH`: how many messages, and their sum."""


class _Given:
    """What the archive gave: the times of its messages, under all that they may be claimed by."""

    def __init__(self) -> None:
        self.digests: dict[bytes, float] = {}
        self.names: dict[bytes, bytes] = {}
        self.beside: Counter[int] = Counter()
        """How many it has just outside of each window: they may have been counted inside."""

    def add(self, messages: Iterable[Message]) -> None:
        for message in messages:
            digest = claim_digest(message.identity)
            self.digests[digest] = when = message.timestamp
            self.names |= dict.fromkeys((*content_digests(message), digest), digest)
            around = {counted_window(when - RESTAMPING), counted_window(when + RESTAMPING)}
            self.beside.update(around - {counted_window(when)})


@dataclass
class _Memory:
    """What a lane remembers of a time, beside what the archive gave of it.

    Attributes:
        window: the time.
        archived: the sums of what the archive gave, but for what is claimed still.
        lost: the windows of which the archive has less, each with how many messages it lacks.
        differing: the windows of which it has not exactly what was counted.
    """

    window: Window
    archived: Sums
    lost: dict[int, int]
    differing: list[int]

    @classmethod
    def of(
        cls, connection: Connection, engine: Engine, lane: Lane, window: Window, given: _Given
    ) -> _Memory:
        """Of a lane; other processes do not count now."""
        claim = tables.claim.c
        mine = select(claim.identity, claim.timestamp).where(
            claim.lane == lane.id,
            claim.timestamp >= window.start - RESTAMPING,
            claim.timestamp < window.stop + RESTAMPING,
        )
        claimed = {bytes(digest): when for digest, when in connection.execute(mine)}
        # What is claimed still is not in the sums.
        found = {given.names[digest] for digest in claimed if digest in given.names}
        archived: Sums = {}
        for digest, when in given.digests.items():
            if digest not in found:
                start = counted_window(when)
                number, total = archived.get(start, (0, 0))
                archived[start] = (number + 1, total ^ int.from_bytes(digest))
        lost = Counter(
            counted_window(when)
            for digest, when in claimed.items()
            if digest not in given.names and window.start <= when < window.stop
        )
        counted = engine.lanes.counted(connection, lane, window.start, window.stop)
        for start, (number, _) in counted.items():
            missing = number - archived.get(start, (0, 0))[0] - given.beside[start]
            if missing > 0:
                lost[start] += missing
        differing = [
            start
            for start in {*counted, *archived, *lost}
            if start in lost or counted.get(start) != archived.get(start)
        ]
        return cls(window, archived, dict(lost), sorted(differing))

    def report(self) -> None:
        """Say in the log what the archive lacks."""
        if self.lost:
            log.error(
                "the archive lacks %d messages that were counted from %s to %s: where it does not "
                "have exactly what was counted, nothing is repaired",
                sum(self.lost.values()),
                iso(min(self.lost)),
                iso(max(self.lost) + COUNTED_WIDTH),
            )

    def kept(self, table: AggregateTable) -> list[Window]:
        """The buckets that are not to be replaced."""
        if not self.lost:
            return []
        merged: list[Window] = []
        for start in self.differing:
            span = _widened(Window(start, start + COUNTED_WIDTH), [table])
            if merged and span.start <= merged[-1].stop:
                merged[-1] = Window(merged[-1].start, max(merged[-1].stop, span.stop))
            else:
                merged.append(span)
        return merged


def _buckets(dataset: Dataset) -> AggregateTable | None:
    if not isinstance(dataset.plugin, Aggregate):
        return None
    table = next(table for table in dataset.plugin.tables if table.ident == dataset.ident)
    return table if table.width is not None else None


def _widened(window: Window, found: Any) -> Window:
    """The window, in whole buckets of all the tables."""
    start, stop = window.start, window.stop
    for table in found:
        first = math.floor(window.start)
        start = min(start, first - (first - table.offset) % table.width)
        last = math.ceil(window.stop)
        stop = max(stop, last + -(last - table.offset) % table.width)
    return Window(float(start), float(stop))


def _replace(
    connection: Connection,
    scratch: Recount,
    table: AggregateTable,
    span: Window,
    pruned_until: float | None,
    kept: Sequence[Window],
) -> bool:
    """Put the rows of the scratch in place of those that are stored; False if all are kept."""
    when = table.table.c.timestamp
    first = max(math.ceil(span.start), math.ceil(pruned_until or 0.0))
    names = [column.name for column in table.table.columns]
    is_replaced = False
    for part in _between(Window(first, math.ceil(span.stop)), kept):
        is_replaced = True
        inside = (when >= int(part.start), when < int(part.stop))
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


def _between(span: Window, kept: Iterable[Window]) -> Iterator[Window]:
    """What is left of ``span`` without those, which are in order and apart."""
    start = span.start
    for each in kept:
        if start < min(each.start, span.stop):
            yield Window(start, min(each.start, span.stop))
        start = max(start, each.stop)
    if start < span.stop:
        yield Window(start, span.stop)
