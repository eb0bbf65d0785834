"""What a dataset covers: of which times it has counted everything.

Missing is not zero: where a time is covered, and there is no row, nothing happened; where it is not
covered, nobody knows.

With an archive a dataset covers its history up to the watermark of its lane, and what the hub has
heard since it began to listen, as far as that goes. Without an archive it covers what the hub has
heard. The table of a dataset may be there before the hub has seen it: it covers nothing then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, select

from statscache import tables

INSTALLED = "installed"
"""The state of a plugin that the hub has not seen yet; the others are the hub's words."""

LIVE_WITHIN = 60.0
"""Seconds after which a hub that did not say that it listens is taken to be down; it says so every
ten, or, where that is longer, whenever it flushes."""

_MOST_GAPS = 1000


@dataclass(frozen=True)
class Coverage:
    """What a dataset covered when it was read; times are UNIX seconds, None where there is none.

    Attributes:
        state: ``installed`` (the hub has not seen it yet), ``active``, ``filling``, ``failing`` or
            ``gone``.
        since: everything from here on has been counted, and is kept.
        until: everything up to here has been counted, but for the gaps.
        reconciled_until: the part up to here has been compared with the archive: it changes only
            when a message comes late. None without archive.
        gaps: times between ``since`` and ``until`` that are not covered, as pairs of start and
            stop, oldest first, apart from each other.
        listens_until: the last sign of the hub that live messages are counted in this dataset.
        newest: the time of the newest message that was counted, in this dataset or in those that
            are counted with it.
        error: why it is failing.
        failed_at: when it failed last.
        missed: messages that it missed while its writes failed, and that no archive can give.
        pruned_until: earlier rows have been deleted because of their age.
        audited_until: the audit has compared everything from ``since`` to here with the archive.
        mismatches: that the audit found.
    """

    state: str = INSTALLED
    since: float | None = None
    until: float | None = None
    reconciled_until: float | None = None
    gaps: tuple[tuple[float, float], ...] = ()
    listens_until: float | None = None
    newest: float | None = None
    error: str | None = None
    failed_at: float | None = None
    missed: int = 0
    pruned_until: float | None = None
    audited_until: float | None = None
    mismatches: int = 0

    def covers(self, start: float, stop: float) -> bool:
        """Whether all of the time from ``start`` to before ``stop`` is covered."""
        if self.since is None or self.until is None:
            return False
        if start < self.since or stop > self.until:
            return False
        # Gaps do not overlap: of those that begin before `stop`, the last one ends last.
        number = bisect_left(self._starts, stop) - 1
        return number < 0 or self.gaps[number][1] <= start

    def is_live(self, now: float, within: float = LIVE_WITHIN) -> bool:
        """Whether live messages are being counted."""
        return self.listens_until is not None and now - self.listens_until <= within

    def lag(self, now: float) -> float | None:
        """How many seconds ago the coverage ends."""
        return None if self.until is None else max(0.0, now - self.until)

    @cached_property
    def _starts(self) -> list[float]:
        return [start for start, _ in self.gaps]


def read(connection: Connection, idents: Iterable[str] | None = None) -> dict[str, Coverage]:
    """The coverage of ``idents``, or, without them, of all that the hub knows, by ident.

    Reads three small tables of the framework, and none of a plugin's.
    """
    plugin, lane = tables.plugin, tables.lane
    query = select(
        plugin,
        lane.c.watermark,
        lane.c.newest,
        lane.c.beat_at,
        lane.c.live_since.label("lane_live_since"),
    ).outerjoin(lane, lane.c.id == plugin.c.lane)
    if idents is not None:
        wanted = list(idents)
        query = query.where(plugin.c.ident.in_(wanted))
    found: dict[str, Coverage] = {}
    gaps: dict[int, list[tuple[float, float, int]]] = {}
    for row in connection.execute(query.order_by(plugin.c.ident)):
        if row.lane not in gaps:
            gaps[row.lane] = _gaps(connection, row.lane)
        found[row.ident] = _coverage(row, gaps[row.lane])
    if idents is not None:
        found = {ident: found.get(ident, Coverage()) for ident in wanted}
    return found


def of(connection: Connection, ident: str) -> Coverage:
    """The coverage of one dataset."""
    return read(connection, [ident])[ident]


def _coverage(row: Any, gaps: list[tuple[float, float, int]]) -> Coverage:
    since, until, live = row.since, row.watermark, _live(row)
    reconciled = until
    if row.shadow is not None:
        # The lane counts into the shadow; what is served is as it was left.
        until = reconciled = row.served_until
        live = None
    holes = []
    if reconciled is None:
        # Without archive what counts is when somebody listened, and when nobody did.
        since, until = live or (None, None)
        holes = [(start, stop) for start, stop, _ in gaps]
    else:
        holes = [(start, stop) for start, stop, missing in gaps if missing]
        if live is not None and live[1] > reconciled:
            until = live[1]
            if live[0] > reconciled:
                holes.append((reconciled, live[0]))
    if since is not None and row.pruned_until is not None:
        since = max(since, row.pruned_until)
    if since is None or until is None or until < since:
        until = since
    return Coverage(
        state=row.state,
        since=since,
        until=until,
        reconciled_until=reconciled,
        gaps=() if since is None or until is None else _merged(holes, since, until),
        listens_until=None if live is None else live[1],
        newest=row.newest,
        error=row.error,
        failed_at=row.failed_at,
        missed=row.missed,
        pruned_until=row.pruned_until,
        audited_until=row.audited_until,
        mismatches=row.mismatches,
    )


def _live(row: Any) -> tuple[float, float] | None:
    """From when to when live messages have been counted."""
    if row.live_since is None or row.lane_live_since is None or row.beat_at is None:
        return None
    if row.watermark is None:
        return row.live_since, row.beat_at
    # The archive fills in what was before; so only the present run of the hub is of interest.
    return max(row.live_since, row.lane_live_since), row.beat_at


def _gaps(connection: Connection, lane: int) -> list[tuple[float, float, int]]:
    """The newest gaps of a lane; if there are very many, the older ones as one."""
    gap = tables.gap
    query = select(gap.c.start, gap.c.stop, gap.c.missing).where(gap.c.lane == lane)
    newest_first = query.order_by(gap.c.start.desc()).limit(_MOST_GAPS + 1)
    found = [(row.start, row.stop, row.missing) for row in connection.execute(newest_first)]
    if len(found) > _MOST_GAPS:
        oldest = connection.execute(query.order_by(gap.c.start).limit(1)).one()
        start, stop, missing = found.pop()
        found.append((min(start, oldest.start), stop, missing or oldest.missing))
    return found


def _merged(
    holes: list[tuple[float, float]], since: float, until: float
) -> tuple[tuple[float, float], ...]:
    """The parts of ``holes`` between ``since`` and ``until``, oldest first, none overlapping."""
    merged: list[tuple[float, float]] = []
    for start, stop in sorted(holes):
        start, stop = max(start, since), min(stop, until)
        if start >= stop:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)
