"""What a dataset covers: of which times it has counted everything.

Missing is not zero: where a time is covered, and there is no row, nothing happened; where it is not
covered, the number is unknown.

With an archive a dataset covers its history up to the watermark of its lane, and what the hub has
heard since it began to listen, as far as that goes. Without an archive it covers what the hub has
heard. What was replayed from a file is covered in either case, from its first message to its last.
The table of a dataset may be there before the hub has seen it: it covers nothing then.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from statscache.app.state.revisions import MOST_GAPS, Snapshot
from statscache.app.state.steps import Steps
from statscache.database import plugin_state
from statscache.plugins.models import plain
from statscache.spans import Span, union

INSTALLED = "installed"
"""The state of a plugin that the hub has not seen yet; the others are the hub's words."""

STATES = (INSTALLED, *plugin_state.STATES)
"""All that a plugin may be in."""

LIVE_WITHIN = 60.0
"""Seconds after which a hub that did not say that it listens is taken to be down; it says so every
ten, or, where that is longer, whenever it flushes."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Of which times everything has been counted; UNIX seconds. What is not there "
    "inside of it is zero, and outside of it unknown.",
    "properties": {
        "state": {"enum": [*STATES]},
        "since": {"type": ["number", "null"]},
        "until": {"type": ["number", "null"]},
        "reconciled_until": {
            "type": ["number", "null"],
            "description": "Up to here it has been compared with the archive.",
        },
        "gaps": {
            "type": "array",
            "description": "Starts and stops of times in between that are not covered.",
            "items": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 2,
                "maxItems": 2,
            },
        },
    },
    "required": ["state", "since", "until", "reconciled_until", "gaps"],
    "additionalProperties": False,
}
""":meth:`Coverage.to_json`."""


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
        missed: messages that it missed while its writes failed, and that no archive has.
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

    def covered(self, start: float, stop: float) -> float:
        """How many seconds of the time from ``start`` to before ``stop`` are covered."""
        if self.since is None or self.until is None:
            return 0.0
        start, stop = max(start, self.since), min(stop, self.until)
        if start >= stop:
            return 0.0
        gaps = sum(max(0.0, min(end, stop) - max(begin, start)) for begin, end in self.gaps)
        return stop - start - gaps

    def is_live(self, now: float, within: float = LIVE_WITHIN) -> bool:
        """Whether live messages are being counted."""
        return self.listens_until is not None and now - self.listens_until <= within

    def lag(self, now: float) -> float | None:
        """How many seconds ago the coverage ends."""
        return None if self.until is None else max(0.0, now - self.until)

    def floored(self, steps: Steps) -> Coverage:
        """The same, with the ends that move all the time at the start of the step they are in."""

        def floor(moment: float | None) -> float | None:
            return None if moment is None else float(steps.floor(moment))

        until, since = floor(self.until), self.since
        if until is not None and since is not None and until < since:
            until = since
        gaps = self.gaps
        if until is not None:
            gaps = tuple((start, min(stop, until)) for start, stop in gaps if start < until)
        return replace(
            self,
            until=until,
            reconciled_until=floor(self.reconciled_until),
            listens_until=floor(self.listens_until),
            newest=floor(self.newest),
            gaps=gaps,
        )

    def to_json(self) -> dict[str, Any]:
        """The coverage as answers have it."""
        return {
            "state": self.state,
            "since": plain(self.since),
            "until": plain(self.until),
            "reconciled_until": plain(self.reconciled_until),
            "gaps": [[plain(start), plain(stop)] for start, stop in self.gaps],
        }

    @cached_property
    def _starts(self) -> list[float]:
        return [start for start, _ in self.gaps]


def measure(snapshot: Snapshot, ident: str) -> Coverage:
    """The coverage of a dataset at the moment of ``snapshot``."""
    plugin = snapshot.plugins.get(ident)
    if plugin is None:
        return Coverage()
    gaps = [(gap.start, gap.stop, gap.missing) for gap in snapshot.gaps if gap.lane == plugin.lane]
    if len(snapshot.gaps) == MOST_GAPS:
        # Earlier gaps were not read.
        gaps.append((-math.inf, snapshot.gaps[-1].start, 1))
    files = snapshot.replayed.get(ident, [])
    found = _coverage(plugin, snapshot.lanes.get(plugin.lane), gaps, files)
    if ident in snapshot.rejections and ident not in snapshot.revisions:
        return _without_rows(found, snapshot.rejections[ident])
    return found


def _without_rows(found: Coverage, rejected: int) -> Coverage:
    """The coverage of a dataset that was never written, because its plugin rejects what it gets."""
    return replace(
        found,
        state=plugin_state.FAILING,
        since=None,
        until=None,
        gaps=(),
        error=f"it has no row, and has rejected {rejected} messages: "
        "'statscache rejected list' shows them, and why",
    )


def _coverage(
    row: Any, lane: Any, gaps: list[tuple[float, float, int]], files: list[Span]
) -> Coverage:
    live = _live(row, lane)
    reconciled = None if lane is None else lane.watermark
    if row.shadow is not None:
        # The lane counts into the shadow; the served table stays as it is.
        reconciled = row.served_until
        live = None
    spans = list(files)
    if reconciled is None:
        # Without archive a time is covered while the hub listened.
        if live is not None:
            spans += _without(live, [(start, stop) for start, stop, _ in gaps])
    elif row.since is not None:
        archived = (row.since, max(row.since, reconciled))
        spans += _without(archived, [(start, stop) for start, stop, missing in gaps if missing])
        if live is not None and live[1] > reconciled:
            spans.append((max(live[0], row.since), live[1]))
    if row.pruned_until is not None:
        kept = row.pruned_until
        spans = [(max(start, kept), max(stop, kept)) for start, stop in spans]
    spans = union(spans)
    return Coverage(
        state=row.state,
        since=spans[0][0] if spans else None,
        until=spans[-1][1] if spans else None,
        reconciled_until=reconciled,
        gaps=tuple((before[1], after[0]) for before, after in pairwise(spans)),
        listens_until=None if live is None else live[1],
        newest=None if lane is None else lane.newest,
        # The lines that follow have the statement with its rows, which only the operator may see.
        error=None if row.error is None else row.error.partition("\n")[0],
        failed_at=row.failed_at,
        missed=row.missed,
        pruned_until=row.pruned_until,
        audited_until=row.audited_until,
        mismatches=row.mismatches,
    )


def _live(row: Any, lane: Any) -> tuple[float, float] | None:
    """From when to when live messages have been counted."""
    if lane is None or None in (row.live_since, lane.live_since, lane.beat_at):
        return None
    if lane.watermark is None:
        return row.live_since, lane.beat_at
    # The archive covers the time before; so only the present run of the hub matters.
    return max(row.live_since, lane.live_since), lane.beat_at


def _without(span: Span, holes: list[Span]) -> list[Span]:
    """The parts of ``span`` outside of ``holes``; with its ends, even where nothing is between."""
    position, last = span
    parts: list[Span] = []
    for start, stop in sorted(holes):
        if stop > position and start < last:
            if start > position or not parts:
                parts.append((position, max(start, position)))
            position = stop
    return [*parts, (min(position, last), last)]
