"""Compare tables with the archive: whatever it has is counted again, and the rows are compared.

While the hub goes on, the newest messages are a question of who came first. So what happened
behind the horizon of a lane must be in the tables; of what is newer, exactly what the lane has
claimed. Claims that the archive cannot show yet leave their buckets undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from sqlalchemy import Connection, select

from statscache.archive import Archive, Window, read
from statscache.audit.comparison import Comparison, Doubts, Subject, depends_on_history
from statscache.audit.recount import Recount
from statscache.audit.verdict import Verdict
from statscache.clock import SYSTEM, Clock
from statscache.counting.lanes.digests import claim_digest, content_digests
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.database import tables
from statscache.database.connection import Database
from statscache.database.plugin_state import GONE, progress_of_rebuild
from statscache.errors import PluginFault, StatscacheError
from statscache.isolation.time_limit import TimeLimit
from statscache.message import TIMESTAMP_TOLERANCE, Message
from statscache.plugins.discovery import Dataset, Installed


class Verification:
    """A comparison of some idents with the archive.

    Args:
        database: that the tables are in; it is only read.
        installed: the plugins.
        archive: that is right.
        idents: which; all of them when absent.
        start, stop: the time that is compared, widened to whole buckets; UNIX seconds. Absent: all
            that each ident covers.
        history: whether those idents are compared as well whose rows depend on all of their
            history, which is read from its beginning.
        time_limit: under which the plugins work; absent, there is none.
        lacking: times of which the archive has lost something, by the number of a lane; what
            differs there is undecided.

    Attributes:
        verdicts: one for each ident, when :meth:`run` is through.
        messages: how many the archive gave.
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
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self._time_limit = time_limit
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

    def run(self) -> Iterator[tuple[float, float]]:
        """Do it; gives, over and over, up to when the archive has been read, and up to when it is.

        Raises:
            ArchiveUnavailable: nothing is known yet; it can be run again.
            DatabaseUnavailable: the same.
        """
        self.verdicts.clear()
        for lane, subjects in self._subjects():
            left = subjects
            while left:
                try:
                    yield from self._compare_lane(lane, left)
                    break
                except PluginFault as fault:
                    left = self._without_the_guilty(left, fault)
        self.verdicts.sort(key=lambda verdict: verdict.ident)

    def _without_the_guilty(self, subjects: list[Subject], fault: PluginFault) -> list[Subject]:
        guilty = [subject for subject in subjects if subject.ident in fault.idents]
        if not guilty:
            raise fault
        self.verdicts += [Verdict(subject.ident, refused=str(fault)) for subject in guilty]
        return [subject for subject in subjects if subject not in guilty]

    # What can be compared.

    def _subjects(self) -> list[tuple[Lane, list[Subject]]]:
        with self._database.begin() as connection:
            lanes = {lane.id: lane for lane in read_lanes(connection)}
            rows = {row.ident: row for row in connection.execute(select(tables.plugin))}
        groups: dict[int, list[Subject]] = {}
        for ident in self._idents:
            row = rows.get(ident)
            lane = lanes.get(row.lane) if row is not None else None
            reason = _reason_to_skip(row, lane)
            if reason or lane is None:
                self.verdicts.append(Verdict(ident, skipped=reason, waits=True))
                continue
            subject = self._subject(self._installed.datasets[ident], row, lane)
            if subject.needs_all and not self._history:
                self.verdicts.append(Verdict(ident, skipped="it depends on all of its history"))
            elif subject.start >= subject.stop:
                self.verdicts.append(Verdict(ident, skipped="it covers nothing of this time"))
            else:
                groups.setdefault(lane.id, []).append(subject)
        return [(lanes[number], subjects) for number, subjects in groups.items()]

    def _subject(self, dataset: Dataset, row: Any, lane: Lane) -> Subject:
        since = max(row.since or 0.0, lane.history_start or 0.0, row.pruned_until or 0.0)
        start = since if self._start is None else max(since, self._start)
        stop = math.inf if self._stop is None else self._stop
        if depends_on_history(dataset):
            return Subject(dataset, lane.id, since, since, math.inf, needs_all=True)
        table = dataset.declaration
        assert table is not None
        if table.width is None:
            return Subject(dataset, lane.id, start, start, stop, needs_all=False)
        # Whole buckets: outwards of what was asked for, inwards of what is covered.
        first = table.floored(since)
        first += table.width if first < since else 0
        begin = max(first, table.floored(start))
        end = stop if stop == math.inf else table.ceiled(stop)
        return Subject(dataset, lane.id, float(begin), float(begin), end, needs_all=False)

    # One lane: its plugins have counted the same.

    def _compare_lane(self, lane: Lane, subjects: list[Subject]) -> Iterator[tuple[float, float]]:
        start = min(subject.since for subject in subjects)
        stop = min(max(subject.stop for subject in subjects), self._clock.time())
        doubts = Doubts()
        for window in self._lacking.get(lane.id, ()):
            doubts.add(window.start, window.stop)
        missing: list[Window] = []
        if lane.joins is not None:
            # Its history is still being filled in.
            missing.append(Window(lane.watermark or 0.0, math.inf))
            stop = min(stop, missing[0].start)
            doubts.add(stop, math.inf)
        settled = min(stop, lane.claims_pruned_until or lane.history_start or 0.0)
        with ExitStack() as stack:
            scratch = stack.enter_context(
                Recount(
                    {s.ident: (s.dataset, s.since) for s in subjects},
                    self._classics,
                    self._time_limit,
                )
            )
            for piece in read(self._archive, start, settled, scratch.topics):
                scratch.add(piece)
                self.messages += piece.size
                if piece.missing:
                    doubts.add(piece.window.start, piece.window.stop)
                    missing.append(piece.window)
                yield piece.window.stop, stop
            recent: list[Message] = []
            for piece in read(self._archive, max(start, settled), stop):
                recent += piece.messages
                self.messages += piece.size
                if piece.missing:
                    doubts.add(piece.window.start, piece.window.stop)
                    missing.append(piece.window)
                yield piece.window.stop, stop
            connection = stack.enter_context(self._database.begin())
            claimed, unclaimed = claimed_among(connection, lane.id, recent, settled, doubts)
            scratch.count(claimed, settled)
            for subject in subjects:
                refused = scratch.regressions.doubt(connection, subject.ident)
                if refused:
                    self.verdicts.append(Verdict(subject.ident, refused=refused))
                    continue
                verdict = Comparison(subject, doubts, stop).run(connection, scratch, self._archive)
                verdict.unfilled = _unfilled(subject, unclaimed, missing, self._clock.time())
                verdict.waits |= verdict.unfilled is not None
                self.verdicts.append(verdict)
        yield stop, stop


def claimed_among(
    connection: Connection,
    number: int,
    recent: Sequence[Message],
    settled: float,
    doubts: Doubts,
) -> tuple[list[Message], list[Message]]:
    """Those of the messages from ``settled`` on that the lane has counted by now, and the others.

    Copies of what it has counted are neither. Where it cannot be told, or the archive did not give
    what was counted, there are doubts.
    """
    claim, late = tables.claim.c, tables.late.c
    lane = next((lane for lane in read_lanes(connection) if lane.id == number), None)
    if lane is None:
        doubts.add(0.0, math.inf)  # it has joined another one meanwhile
        return [], []
    horizon = max(lane.claims_pruned_until or 0.0, settled)
    query = select(claim.identity, claim.timestamp).where(
        claim.lane == number, claim.timestamp >= (lane.history_start or 0.0)
    )
    claims = {bytes(digest): when for digest, when in connection.execute(query)}
    known: set[bytes] = set()
    counted, others = [], []
    for message in recent:
        digests = (claim_digest(message.identity), *content_digests(message))
        found = [digest for digest in digests if claims.pop(digest, None) is not None]
        if message.timestamp < horizon - 2 * TIMESTAMP_TOLERANCE or found:
            counted.append(message)
            known.update(digests)
        elif (
            message.timestamp < horizon + 2 * TIMESTAMP_TOLERANCE
            and lane.claims_pruned_until is not None
        ):
            # Its claim may have been pruned, under another time.
            doubts.add(message.timestamp, message.timestamp)
        elif known.isdisjoint(digests):
            others.append(message)
    for when in claims.values():
        # Behind the horizon only those are claimed still that the archive has lost.
        doubts.add(when, when)
    for when in connection.scalars(select(late.timestamp).where(late.lane == number)):
        doubts.add(when, when)
    return counted, others


def _unfilled(
    subject: Subject, unclaimed: Iterable[Message], missing: Iterable[Window], now: float
) -> float | None:
    """Since when a subject lacks something that the archive has; None where it lacks nothing.

    Args:
        unclaimed: messages that have not been counted.
        missing: times of which the archive did not give everything, or was not asked yet.
        now: UNIX seconds.
    """
    moments = [
        message.timestamp
        for message in unclaimed
        if subject.start <= message.timestamp < subject.stop
        and subject.dataset.subscribes(message.topic)
    ]
    stop = min(subject.stop, now)
    moments += [
        max(window.start, subject.start)
        for window in missing
        if window.start < stop and window.stop > subject.start
    ]
    return min(moments, default=None)


def check_idents(installed: Installed, idents: Sequence[str]) -> None:
    """See that all of ``idents`` are installed.

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
