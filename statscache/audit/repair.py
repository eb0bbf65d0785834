"""Count anew what the audit found to be wrong."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from statscache import tables
from statscache.archive import Archive, Window, read
from statscache.audit.recount import Recount
from statscache.engine import Engine
from statscache.lanes import RESTAMPING, claim_digest, content_digests, counted_window
from statscache.plugins.aggregate import Aggregate, AggregateTable
from statscache.plugins.discovery import Dataset

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 5_000


def repair(
    engine: Engine, archive: Archive, idents: Sequence[str], window: Window | None
) -> Generator[int, None, list[str]]:
    """Count ``idents`` anew in ``window``; gives how much was read, and returns what was repaired.

    Their buckets of the window are replaced, in one transaction. Rows that are no buckets may come
    of any time: those plugins are rebuilt as a whole, in a shadow.

    Raises:
        ArchiveUnavailable: nothing was changed.
        DatabaseUnavailable: the same.
    """
    datasets = {ident: engine.installed.datasets[ident] for ident in idents}
    bucketed = {ident: table for ident, d in datasets.items() if (table := _buckets(d)) is not None}
    others = [ident for ident in idents if ident not in bucketed]
    if others:
        with engine.transaction(alone=True) as connection:
            for ident in others:
                engine.roster.rebuild(connection, [ident])
    if not bucketed or window is None:
        return others
    wide = _widened(window, bucketed.values())
    sums: dict[int, tuple[int, int]] = {}
    kept = _claims(engine, idents, wide)
    found: dict[int, list[tuple[int, bytes, bytes]]] = {number: [] for number in kept}
    with Recount({ident: (datasets[ident], wide.start) for ident in bucketed}, {}) as scratch:
        for piece in read(archive, wide.start, wide.stop):
            if piece.missing:
                log.error("the archive has gaps there: nothing is repaired")
                return others
            scratch.add(piece)
            for message in piece.messages:
                start = counted_window(message.timestamp)
                digest = claim_digest(message.identity)
                _add(sums, start, 1, digest)
                for number, claims in kept.items():
                    if claims:
                        names = {digest, *content_digests(message)} & claims
                        found[number] += [(start, digest, name) for name in names]
            yield piece.size
        with engine.transaction(alone=True) as connection:
            lanes = {lane.id: lane for lane in engine.lanes.all(connection)}
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
                if span.stop > (lanes[row.lane].horizon or 0.0):
                    log.warning("%s is counted anew when its bucket is over", ident)
                    continue
                _replace(connection, scratch, table, span, row.pruned_until)
                lane = lanes[row.lane]
                rest = dict(sums)
                doubles = found.get(lane.id, [])
                still = engine.lanes.claimed(connection, lane, [name for _, _, name in doubles])
                for start, digest, name in doubles:
                    if name in still:
                        # It is remembered by its claim.
                        _add(rest, start, -1, digest)
                engine.lanes.set_counted(connection, lane, window.start, window.stop, rest)
                repaired.append(ident)
            engine.note_changes(connection, repaired)
    return [*others, *repaired]


def _claims(engine: Engine, idents: Sequence[str], window: Window) -> dict[int, set[bytes]]:
    """What is claimed still of a time, by each of the lanes of ``idents``."""
    claim, plugin = tables.claim.c, tables.plugin.c
    with engine.transaction() as connection:
        lanes = connection.scalars(select(plugin.lane).where(plugin.ident.in_(idents)).distinct())
        return {
            lane: {
                bytes(digest)
                for digest in connection.scalars(
                    select(claim.identity).where(
                        claim.lane == lane,
                        claim.timestamp >= window.start - RESTAMPING,
                        claim.timestamp <= window.stop + RESTAMPING,
                    )
                )
            }
            for lane in lanes.all()
        }


def _add(sums: dict[int, tuple[int, int]], start: int, number: int, digest: bytes) -> None:
    before, total = sums.get(start, (0, 0))
    sums[start] = (before + number, total ^ int.from_bytes(digest))


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
) -> None:
    """Put the rows of the scratch in place of those that are stored."""
    when = table.table.c.timestamp
    first = max(math.ceil(span.start), math.ceil(pruned_until or 0.0))
    inside = (when >= first, when < math.ceil(span.stop))
    connection.execute(delete(table.table).where(*inside))
    names = [column.name for column in table.table.columns]
    rows: list[dict[str, Any]] = []
    for row in scratch.rows(select(table.table).where(*inside)):
        rows.append(dict(zip(names, row, strict=True)))
        if len(rows) >= _ROWS_AT_ONCE:
            connection.execute(insert(table.table), rows)
            rows.clear()
    if rows:
        connection.execute(insert(table.table), rows)
