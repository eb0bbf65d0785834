"""Compare tables with the archive: what it has is counted again, and the rows are compared.

The hub may go on counting meanwhile. So the tables must have all that is older than the claims
that a lane has pruned; of what is newer, exactly what it has claimed. Claims of messages that the
archive does not have yet leave their buckets undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from sqlalchemy import Connection

from statscache.archive import Archive, Window, read
from statscache.audit.comparand import Comparand, depends_on_history
from statscache.audit.comparison import Comparison
from statscache.audit.recount import Recount
from statscache.audit.uncertain_ranges import UncertainRanges
from statscache.audit.verdict import Verdict
from statscache.clock import Clock
from statscache.counting.lanes.claims import read_claims
from statscache.counting.lanes.digests import claim_digest, content_digests
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.counting.lanes.waiting import read_waiting_times
from statscache.counting.membership.plugin_rows import read_plugins
from statscache.database.connection import Database
from statscache.database.plugin_state import GONE, progress_of_rebuild
from statscache.errors import PluginFault, StatscacheError
from statscache.isolation.time_limit import TimeLimit
from statscache.message import TIMESTAMP_TOLERANCE, Message
from statscache.plugins.installed.discovery import Dataset, Installed


class Verification:
    """A comparison of some idents with the archive.

    Args:
        database: that the tables are in; it is only read.
        installed: the plugins.
        archive: what is right.
        idents: which; all of them when absent.
        start, stop: the time that is compared, widened to whole buckets; UNIX seconds. Absent: all
            that each ident covers.
        history: whether those idents are compared as well whose rows depend on all of their
            history, which is read from its beginning.
        time_limit: under which the plugins work; absent, there is none.
        lacking: times of which the archive has lost something, by the number of a lane; what
            differs there is undecided.
        clock: the present.

    Attributes:
        verdicts: one for each ident, when :meth:`compare` is through.
        messages: how many the archive returned.
    """

    def __init__(
        self,
        database: Database,
        installed: Installed,
        archive: Archive,
        idents: Iterable[str] | None = None,
        start: float | None = None,
        stop: float | None = None,
        *,
        history: bool = True,
        time_limit: TimeLimit | None = None,
        lacking: Mapping[int, Sequence[Window]] | None = None,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._time_limit = time_limit or TimeLimit(None, clock)
        self._lacking = lacking or {}
        self._database = database
        self._installed = installed
        self._archive = archive
        self._idents = list(installed.datasets) if idents is None else list(idents)
        self._start = start
        self._stop = stop
        self._history = history
        self._classics = {make().ident: make for make in installed.classics}
        self.verdicts: list[Verdict] = []
        self.messages = 0

    def compare(self) -> Iterator[tuple[float, float]]:
        """Compare; yields up to when the archive has been read, and up to when it will be.

        Raises:
            ArchiveUnavailable: nothing is known yet; it can be called again.
            DatabaseUnavailable: the same.
        """
        self.verdicts.clear()
        for lane, comparands in self._comparands():
            left = comparands
            while left:
                try:
                    yield from self._compare_lane(lane, left)
                    break
                except PluginFault as fault:
                    left = self._without_the_guilty(left, fault)
        self.verdicts.sort(key=lambda verdict: verdict.ident)

    def _without_the_guilty(
        self, comparands: list[Comparand], fault: PluginFault
    ) -> list[Comparand]:
        guilty = [comparand for comparand in comparands if comparand.ident in fault.idents]
        if not guilty:
            raise fault
        self.verdicts += [Verdict(comparand.ident, refused=str(fault)) for comparand in guilty]
        return [comparand for comparand in comparands if comparand not in guilty]

    # What can be compared.

    def _comparands(self) -> list[tuple[Lane, list[Comparand]]]:
        with self._database.begin() as connection:
            lanes = {lane.id: lane for lane in read_lanes(connection)}
            rows = read_plugins(connection)
        groups: dict[int, list[Comparand]] = {}
        for ident in self._idents:
            row = rows.get(ident)
            lane = lanes.get(row.lane) if row is not None else None
            reason = _reason_to_skip(row, lane)
            if reason or lane is None:
                self.verdicts.append(Verdict(ident, skipped=reason, waits=True))
                continue
            comparand = self._comparand(self._installed.datasets[ident], row, lane)
            if comparand.needs_all and not self._history:
                self.verdicts.append(Verdict(ident, skipped="it depends on all of its history"))
            elif comparand.start >= comparand.stop:
                self.verdicts.append(Verdict(ident, skipped="it covers nothing of this time"))
            else:
                groups.setdefault(lane.id, []).append(comparand)
        return [(lanes[number], comparands) for number, comparands in groups.items()]

    def _comparand(self, dataset: Dataset, row: Any, lane: Lane) -> Comparand:
        since = max(row.since or 0.0, lane.history_start or 0.0, row.pruned_until or 0.0)
        start = since if self._start is None else max(since, self._start)
        stop = math.inf if self._stop is None else self._stop
        if depends_on_history(dataset):
            return Comparand(dataset, lane.id, since, since, math.inf, needs_all=True)
        table = dataset.declaration
        assert table is not None
        if table.width is None:
            return Comparand(dataset, lane.id, start, start, stop, needs_all=False)
        # Whole buckets: outwards of what was asked for, inwards of what is covered.
        first = table.floored(since)
        first += table.width if first < since else 0
        begin = max(first, table.floored(start))
        end = stop if stop == math.inf else table.ceiled(stop)
        return Comparand(dataset, lane.id, float(begin), float(begin), end, needs_all=False)

    # One lane: its plugins have counted the same.

    def _compare_lane(
        self, lane: Lane, comparands: list[Comparand]
    ) -> Iterator[tuple[float, float]]:
        start = min(comparand.since for comparand in comparands)
        stop = min(max(comparand.stop for comparand in comparands), self._clock.time())
        uncertain = UncertainRanges()
        for window in self._lacking.get(lane.id, ()):
            uncertain.add(window.start, window.stop)
        missing: list[Window] = []
        if lane.joins is not None:
            # Its history is still being filled in.
            missing.append(Window(lane.watermark or 0.0, math.inf))
            stop = min(stop, missing[0].start)
            uncertain.add(stop, math.inf)
        pruned_until = min(stop, lane.claims_pruned_until or lane.history_start or 0.0)
        with ExitStack() as stack:
            scratch = stack.enter_context(
                Recount(
                    {s.ident: (s.dataset, s.since) for s in comparands},
                    self._classics,
                    self._time_limit,
                    self._clock,
                )
            )
            for piece in read(self._archive, start, pruned_until, scratch.topics):
                scratch.add(piece)
                self.messages += piece.size
                if piece.missing:
                    uncertain.add(piece.window.start, piece.window.stop)
                    missing.append(piece.window)
                yield piece.window.stop, stop
            recent: list[Message] = []
            for piece in read(self._archive, max(start, pruned_until), stop):
                recent += piece.messages
                self.messages += piece.size
                if piece.missing:
                    uncertain.add(piece.window.start, piece.window.stop)
                    missing.append(piece.window)
                yield piece.window.stop, stop
            connection = stack.enter_context(self._database.begin())
            claimed, unclaimed = claimed_among(connection, lane.id, recent, pruned_until, uncertain)
            scratch.count(claimed, pruned_until)
            for comparand in comparands:
                refused = scratch.regressions.objection_to_compare(connection, comparand.ident)
                if refused:
                    self.verdicts.append(Verdict(comparand.ident, refused=refused))
                    continue
                verdict = Comparison(comparand, uncertain, stop).compare(
                    connection, scratch, self._archive
                )
                verdict.unfilled = _unfilled(comparand, unclaimed, missing, self._clock.time())
                verdict.waits |= verdict.unfilled is not None
                self.verdicts.append(verdict)
        yield stop, stop


def claimed_among(
    connection: Connection,
    number: int,
    recent: Sequence[Message],
    start: float,
    uncertain: UncertainRanges,
) -> tuple[list[Message], list[Message]]:
    """Those of the messages from ``start`` on that the lane has counted by now, and the others.

    Copies of counted messages are neither. If that cannot be told, or the archive did not return
    what was counted, the time is added to ``uncertain``.
    """
    lane = next((lane for lane in read_lanes(connection) if lane.id == number), None)
    if lane is None:
        uncertain.add(0.0, math.inf)  # it has joined another one meanwhile
        return [], []
    pruned_until = max(lane.claims_pruned_until or 0.0, start)
    claims = read_claims(connection, number, lane.history_start or 0.0)
    known: set[bytes] = set()
    counted, others = [], []
    for message in recent:
        digests = (claim_digest(message.identity), *content_digests(message))
        found = [digest for digest in digests if claims.pop(digest, None) is not None]
        if message.timestamp < pruned_until - 2 * TIMESTAMP_TOLERANCE or found:
            counted.append(message)
            known.update(digests)
        elif (
            message.timestamp < pruned_until + 2 * TIMESTAMP_TOLERANCE
            and lane.claims_pruned_until is not None
        ):
            # Its claim may have been pruned, under another time.
            uncertain.add(message.timestamp, message.timestamp)
        elif known.isdisjoint(digests):
            others.append(message)
    for when in claims.values():
        # Where claims are pruned, only those are left that the archive has lost.
        uncertain.add(when, when)
    for when in read_waiting_times(connection, number):
        uncertain.add(when, when)
    return counted, others


def _unfilled(
    comparand: Comparand, unclaimed: Iterable[Message], missing: Iterable[Window], now: float
) -> float | None:
    """Since when a comparand lacks something that the archive has; None where it lacks nothing.

    Args:
        unclaimed: messages that have not been counted.
        missing: times that the archive returned incompletely, or was not asked for yet.
        now: UNIX seconds.
    """
    moments = [
        message.timestamp
        for message in unclaimed
        if comparand.start <= message.timestamp < comparand.stop
        and comparand.dataset.subscribes(message.topic)
    ]
    stop = min(comparand.stop, now)
    moments += [
        max(window.start, comparand.start)
        for window in missing
        if window.start < stop and window.stop > comparand.start
    ]
    return min(moments, default=None)


def check_idents(installed: Installed, idents: Sequence[str]) -> None:
    """Check that all of ``idents`` are installed.

    Raises:
        StatscacheError: one is not; the text names it and where to look.
    """
    for ident in idents:
        if ident not in installed.datasets:
            raise StatscacheError(
                f"nothing that is installed is called {ident!r}: 'statscache plugins' lists the "
                "idents"
            )


def _reason_to_skip(row: Any, lane: Lane | None) -> str:
    if row is None or lane is None:
        return "nothing has been counted for it yet: the hub, or 'statscache backfill', begins"
    if row.state == GONE:
        return "it is not installed any more"
    if row.shadow:
        return progress_of_rebuild(row)
    if lane.watermark is None:
        return "it was counted without an archive"
    return ""
