"""The audit in the background: it compares the tables with the archive, a day at a time.

It goes through the history in order, so that each row is compared once a sweep, and then begins
again. After each day it also compares a random one, so that an old row does not have to wait for
the sweep. It reads no more of the archive than its budget.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from statscache.archive import Archive, Window
from statscache.audit.archive_loss import find_loss, widened
from statscache.audit.comparand import depends_on_history
from statscache.audit.gaps import refetch_gaps
from statscache.audit.repair import buckets_of, repair
from statscache.audit.shortfall import objections
from statscache.audit.verdict import Verdict
from statscache.audit.verify import Verification
from statscache.counting.engine import Engine
from statscache.counting.lanes.lane import PERMANENT, read_lanes
from statscache.counting.membership.audited import (
    add_mismatches,
    note_audited,
    note_span_audited,
)
from statscache.database import tables
from statscache.database.connection import Database
from statscache.errors import ArchiveUnavailable, DatabaseUnavailable
from statscache.plugins.buckets import floored
from statscache.times import DAY

log = logging.getLogger(__name__)

_LONGEST_STEP = 1.0
"""Seconds after which a step ends, so that lanes can catch up in between."""

_IDLE = 60.0
"""Seconds until the next step when there was nothing to audit."""

_HOUR = 3600.0


class Audit:
    """Compares the tables with the archive, one step at a time; one thread uses it.

    Args:
        engine: whose tables are compared.
        archive: what is right.
        budget: messages of the archive that may be read in an hour; 0 switches the audit off.
        repairs: whether what differs is repaired.
    """

    def __init__(self, engine: Engine, archive: Archive, budget: int, *, repairs: bool) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._archive = archive
        self._budget = budget
        self._repairs = repairs
        self._database = Database(engine.uri, read_only=True)
        self._work: Iterator[int] | None = None
        self._resume_at = 0.0
        # The days whose loss was logged in this sweep: some are compared twice.
        self._told: set[float] = set()

    def advance(self) -> float:
        """Make one step, of a second at most; returns the seconds until the next one is due.

        Raises:
            ArchiveUnavailable: the next step begins with the same day.
            DatabaseUnavailable: the same.
        """
        if not self._budget:
            return _IDLE
        now = self._clock.monotonic()
        if self._resume_at <= now:
            self._resume_at = max(self._resume_at, now - _LONGEST_STEP) + self._read_on(
                now + _LONGEST_STEP
            )
        return max(0.0, self._resume_at - self._clock.monotonic())

    def close(self) -> None:
        """Close the connections."""
        self._work = None
        self._database.dispose()

    def _read_on(self, deadline: float) -> float:
        """Read until the deadline; returns the seconds that the budget allows for what was read."""
        if self._work is None:
            self._work = self._audit()
        messages = 0
        try:
            for read in self._work:
                messages += read
                if self._clock.monotonic() >= deadline:
                    return messages * _HOUR / self._budget
        except (ArchiveUnavailable, DatabaseUnavailable):
            self._work = None
            raise
        except Exception:
            log.exception("the audit failed, and begins the day again")
        self._work = None
        return messages * _HOUR / self._budget + _IDLE

    def _audit(self) -> Iterator[int]:
        """Audit until there is nothing to do; yields now and then how many messages were read."""
        while True:
            yield refetch_gaps(self._engine, self._archive)
            begin, end = self._limits()
            if begin + DAY > end:
                return
            position = max(begin, self._position())
            if position + DAY > end:
                yield from self._compare(None, begin)
                self._end_sweep()
                return  # a pause, even where there was hardly anything to read
            window = Window(position, position + DAY)
            lost = yield from self._compare(window, begin)
            self._advance_to(window.stop, lost)
            days = int(end - begin) // DAY
            if days > 1:
                chosen = begin + random.randrange(days) * DAY  # noqa: S311
                if chosen != position:
                    yield from self._compare(Window(chosen, chosen + DAY), begin)

    def _limits(self) -> tuple[float, float]:
        """Of which time there are whole days whose claims have been pruned in all lanes."""
        with self._database.begin() as connection:
            lanes = [lane for lane in read_lanes(connection) if lane.name in PERMANENT]
            # Without an epoch the history begins with the first message that there was.
            oldest = connection.scalar(select(func.min(tables.claim_checksum.c.start))) or 0.0
        reconciled = [lane for lane in lanes if lane.history_start is not None]
        if not reconciled:
            return 0.0, 0.0
        begin = max(oldest, min(lane.history_start or 0.0 for lane in reconciled))
        end = min(lane.claims_pruned_until or 0.0 for lane in reconciled)
        return floored(begin, DAY), floored(end, DAY)

    def _compare(self, window: Window | None, begin: float) -> Generator[int, None, int]:
        """Compare a day; or, without, those whose rows depend on all of their history.

        Returns how many messages the archive lacks of the day, as far as rows differ.
        """
        verification = self._verification(None, window)
        yield from self._run_verification(verification)
        for verdict in verification.verdicts:
            if verdict.refused:
                log.error("%s cannot be audited: %s", verdict.ident, verdict.refused)
        differing = [v.ident for v in verification.verdicts if v.differences]
        lost = 0
        if differing:
            lost = yield from self._look_again(differing, window)
        self._note(verification.verdicts, window, begin)
        return lost

    def _look_again(
        self, differing: Sequence[str], window: Window | None
    ) -> Generator[int, None, int]:
        """Report, and repair, what still differs: rows may have been pruned, messages come late.

        Where the archive has lost messages, only that is reported. Returns how many it lacks.
        """
        lacking: dict[int, list[Window]] = {}
        lost = 0
        if window is None:
            differing = self._without_lost(differing)
        else:
            datasets = self._engine.installed.datasets
            buckets = filter(None, (buckets_of(datasets[ident]) for ident in differing))
            found = yield from find_loss(self._engine, self._archive, widened(window, buckets))
            lacking = {number: loss.undecidable for number, loss in found.items()}
            # Lanes have counted nearly the same: it is logged once, not for each.
            worst = max(found.values(), key=lambda each: each.total_lost, default=None)
            if worst is not None and worst.total_lost:
                lost = worst.total_lost
                if window.start not in self._told:
                    self._told.add(window.start)
                    log.error("%s: nothing is deleted on its word", worst)
        if differing:
            again = self._verification(differing, window, lacking)
            yield from self._run_verification(again)
            confirmed = [verdict for verdict in again.verdicts if verdict.differences]
            if confirmed:
                self._report(confirmed)
                if self._repairs:
                    yield from self._repair(confirmed, window)
        return lost

    def _without_lost(self, idents: Sequence[str]) -> list[str]:
        """Those of whose whole history the archive has lost no more than is tolerated."""
        refused = objections(self._engine, self._archive, idents)
        for text in set(refused.values()):
            log.error("%s: nothing is deleted on its word", text)
        return [ident for ident in idents if ident not in refused]

    def _verification(
        self,
        idents: Iterable[str] | None,
        window: Window | None,
        lacking: Mapping[int, Sequence[Window]] | None = None,
    ) -> Verification:
        installed = self._engine.installed
        if window is not None:
            limits = (window.start, window.stop)
            return Verification(
                self._database,
                installed,
                self._archive,
                idents,
                *limits,
                history=False,
                time_limit=self._engine.time_limit,
                lacking=lacking,
                clock=self._clock,
            )
        if idents is None:
            datasets = installed.datasets.items()
            idents = [ident for ident, dataset in datasets if depends_on_history(dataset)]
        return Verification(
            self._database,
            installed,
            self._archive,
            idents,
            time_limit=self._engine.time_limit,
            clock=self._clock,
        )

    def _run_verification(self, verification: Verification) -> Iterator[int]:
        done = 0
        for _ in verification.compare():
            yield verification.messages - done
            done = verification.messages
        self._update(messages=tables.audit.c.messages + done)

    def _report(self, verdicts: list[Verdict]) -> None:
        total = 0
        for verdict in verdicts:
            count = len(verdict.differences) + verdict.more
            total += count
            log.error(
                "the audit found %d rows of %s that differ from the archive, such as %s",
                count,
                verdict.ident,
                verdict.differences[0],
            )
            with self._engine.transaction() as connection:
                add_mismatches(connection, verdict.ident, count)
        self._update(
            mismatches=tables.audit.c.mismatches + total,
            last_mismatch=str(verdicts[0].differences[0]),
        )

    def _repair(self, verdicts: list[Verdict], window: Window | None) -> Iterator[int]:
        idents = [verdict.ident for verdict in verdicts]
        repaired = yield from repair(self._engine, self._archive, idents, window)
        if repaired:
            log.warning("repaired: %s", ", ".join(repaired))
        count = sum(len(v.differences) + v.more for v in verdicts if v.ident in repaired)
        self._update(repaired=tables.audit.c.repaired + count)

    # Its state.

    def _position(self) -> float:
        with self._database.begin() as connection:
            return connection.scalar(select(tables.audit.c.position)) or 0.0

    def _note(self, verdicts: list[Verdict], window: Window | None, begin: float) -> None:
        """Remember up to when, without a gap, each ident has been compared."""
        compared = [each for each in verdicts if not each.skipped and not each.refused]
        with self._engine.transaction() as connection:
            for verdict in compared:
                if window is None:
                    note_audited(connection, verdict.ident, verdict.stop)
                else:
                    start, stop = window.start, window.stop
                    note_span_audited(connection, verdict.ident, start, stop, begin)

    def _advance_to(self, position: float, lost: int) -> None:
        self._update(position=position, lost=tables.audit.c.lost + lost)

    def _end_sweep(self) -> None:
        row = tables.audit.c
        self._told.clear()
        self._update(sweeps=row.sweeps + 1, position=None, lost=0, lost_last_sweep=row.lost)
        log.info("the audit has compared all of the history, and begins again")

    def _update(self, **values: Any) -> None:
        with self._engine.transaction() as connection:
            _open_state(connection)
            connection.execute(update(tables.audit).values(checked_at=self._clock.time(), **values))


def _open_state(connection: Connection) -> None:
    if connection.scalar(select(tables.audit.c.id)) is None:
        connection.execute(
            insert(tables.audit).values(id=1, sweeps=0, messages=0, mismatches=0, repaired=0)
        )
