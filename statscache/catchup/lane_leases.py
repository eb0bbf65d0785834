"""Which process works at which lane: one at a time, by leases in the database."""

from __future__ import annotations

import logging

from statscache.catchup.ready_lanes import home_of
from statscache.counting.engine import Engine
from statscache.counting.lanes import leases
from statscache.counting.lanes.lane import Lane
from statscache.counting.lanes.leases import end_lease, end_leases, take_lease, take_lease_over
from statscache.errors import DatabaseUnavailable

log = logging.getLogger(__name__)


class LaneLeases:
    """The leases of this process.

    Args:
        engine: whose lanes are leased.
        takes_over: whether lanes of aggregates are taken from another process that fills them in,
            once: for a command that was started to be faster.
    """

    def __init__(self, engine: Engine, *, takes_over: bool = False) -> None:
        self._engine = engine
        self._takes_over = takes_over
        # Once, or two processes would take a lane from each other without end.
        self._taken: set[int] = set()

    def acquire(self, lane: Lane) -> bool:
        """Take or renew the lease of a lane; returns whether this process has it.

        Raises:
            DatabaseUnavailable: it is not known.
        """
        with self._engine.transaction() as connection:
            now = self._engine.clock.time()
            if self._takes_over and not lane.ordered and lane.id not in self._taken:
                self._taken.add(lane.id)
                take_lease_over(connection, lane, now)
            elif not take_lease(connection, lane, now):
                return False
        if lane.leased_by != leases.owner():
            self._engine.renew_classics(lane)
        return True

    def acquire_near(self, near: list[Lane], lanes: list[Lane]) -> list[Lane]:
        """Returns those of the lanes near the present that this process moves.

        Any process may reconcile aggregates, even several at a time. Classic plugins remember
        things, so that all of them are run by one process: the one that has the ordered lane.
        """
        ours = []
        for lane in near:
            home = home_of(lane, lanes)
            if not lane.ordered or ((home is None or self.acquire(home)) and self.acquire(lane)):
                ours.append(lane)
            elif leases.is_ours(lane):
                with self._engine.transaction() as connection:
                    end_lease(connection, lane)
        return ours

    def release_all(self) -> None:
        """Let other processes go on, or, while the database is away, once the leases run out."""
        try:
            with self._engine.transaction() as connection:
                end_leases(connection)
        except DatabaseUnavailable as error:
            log.info("the leases will run out: %s", error)
