"""The transactions of an engine: one at a time, and a plugin that spoils one is quarantined.

A thread takes :attr:`Transactions.lock`, then the lock under which lanes change, shared or alone,
then locks on rows in the order of their keys. No thread takes them in another order.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from statscache.clock import Clock
from statscache.counting.classic.live_buffer import LiveBuffer
from statscache.counting.folding.lane_plugins import LanePlugins
from statscache.counting.lanes.lane import MAIN, PERMANENT, Lane, read_lanes
from statscache.counting.lanes.lanes import Lanes
from statscache.counting.membership.membership import Membership
from statscache.counting.membership.quarantine import Quarantine
from statscache.database import tables
from statscache.database.announcements import announce
from statscache.database.connection import Database
from statscache.database.upsert import Upsert
from statscache.errors import DatabaseUnavailable, PluginFault
from statscache.isolation.lost_connections import LostConnections
from statscache.isolation.time_limit import TimeLimit

log = logging.getLogger(__name__)

_PAUSES = 20
"""The pause, as a multiple of the time that it took."""


class Transactions:
    """The transactions of an engine, in which lanes and their plugins stay as they are.

    Args:
        database: to write to.
        lanes: which lanes there are.
        membership: which plugins are in which lane.
        quarantine: of plugins that spoilt a transaction.
        buffer: what waits for the history of classic plugins.
        lost_connections: in whose turns the connection was lost.
        clock: the present.

    Attributes:
        lock: held by the thread that has a transaction.
        lane_plugins: the plugins of each lane, as of the last transaction.
        is_alone: whether no other process counts during the present one.
    """

    def __init__(
        self,
        database: Database,
        lanes: Lanes,
        membership: Membership,
        quarantine: Quarantine,
        buffer: LiveBuffer,
        lost_connections: LostConnections,
        clock: Clock,
    ) -> None:
        self._database = database
        self._lanes = lanes
        self._membership = membership
        self._quarantine = quarantine
        self._buffer = buffer
        self._lost_connections = lost_connections
        self._clock = clock
        self._revisions = Upsert(
            tables.revision,
            database.backend,
            {
                "revision": lambda old, new: old["revision"] + new["revision"],
                "changed_at": lambda old, new: new["changed_at"],
            },
        )
        self.lock = threading.RLock()
        self.lane_plugins: dict[int, LanePlugins] = {}
        self.is_alone = False
        self._is_busy = False
        self._membership_version = -1
        self._connection: Connection | None = None
        # The idents whose rows the present transaction has changed.
        self._revised: set[str] = set()

    @contextmanager
    def begin(self, *, alone: bool = False) -> Iterator[Connection]:
        """A transaction; others take turns.

        ``alone``: no other process counts meanwhile, so that lanes may be changed.

        Raises:
            DatabaseUnavailable: nothing of it was committed.
            PluginFault: the same; the plugin that is to blame has been quarantined.
            RuntimeError: there is one in this thread already.
        """
        with self.lock:
            try:
                with self._begin(alone=alone) as connection:
                    yield connection
            except BaseException as error:
                fault = self.give_up(error)
                if fault is None:
                    raise
                self.quarantine(fault)
                raise fault from error
            # The memory of classic plugins matches their tables only after the commit.
            for runner in self._membership.runners.values():
                runner.commit()

    @contextmanager
    def _begin(self, *, alone: bool) -> Iterator[Connection]:
        if self._is_busy:
            raise RuntimeError("a transaction of the engine cannot begin inside another one")
        self._is_busy = True
        self._revised.clear()
        self._lost_connections.begin_transaction()
        try:
            with self._database.begin() as connection:
                self._connection = connection
                if alone:
                    self._lanes.exclude(connection)
                else:
                    self._lanes.share(connection)
                # SQLite has one writer at a time.
                self.is_alone = alone or self._database.backend == "sqlite"
                self._learn_membership(connection)
                yield connection
                if connection.in_transaction():
                    announce(connection, self._revised)
        finally:
            self._is_busy = False
            self._connection = None

    def _learn_membership(self, connection: Connection) -> None:
        """Learn which plugins are in which lanes, if that has changed."""
        version = self._lanes.membership_version(connection)
        if version != self._membership_version:
            backend = self._database.backend
            self.lane_plugins = self._membership.lane_plugins(connection, backend)
            main = self._lanes.open(connection, MAIN)
            # The main lane claims messages even without plugins.
            none = LanePlugins(
                [],
                [],
                backend,
                time_limit=TimeLimit(None, self._clock),
                lost_connections=self._lost_connections,
            )
            self.lane_plugins.setdefault(main.id, none)
            self._membership_version = version

    def note_changes(self, connection: Connection, idents: Iterable[str]) -> None:
        """Let readers know that the rows of ``idents`` have changed."""
        now = self._clock.time()
        changed = sorted(idents)
        self._revisions.write(connection, [(ident, 1, now) for ident in changed])
        self._revised.update(changed)

    def back_off(self, connection: Connection, lane: Lane, at_least: float = 0.0) -> None:
        """Let a lane whose plugins could not write count nothing for a while."""
        self._lanes.back_off(connection, lane, at_least)
        # Classic plugins get their history before live messages.
        self._buffer.hold_back(lane.id)

    # When a transaction fails.

    def give_up(self, error: BaseException) -> PluginFault | None:
        """Discard the state of a failed transaction; returns the fault, if a plugin caused it."""
        fault = self._fault(error)
        for runner in self._membership.runners.values():
            runner.roll_back()
        return fault

    def _fault(self, error: BaseException) -> PluginFault | None:
        if isinstance(error, PluginFault):
            return error
        # Later errors on an invalidated connection hide the cause.
        faults = (runner.fault for runner in self._membership.runners.values())
        fault = next((fault for fault in faults if fault is not None), None)
        if fault is None and isinstance(error, DatabaseUnavailable):
            return self._lost_connections.judge(error)
        return fault

    def quarantine(self, fault: PluginFault) -> None:
        """Quarantine a plugin that spoilt a transaction, and let its lane back off.

        Raises:
            DatabaseUnavailable: nothing has happened.
        """
        log.error("%s: %s", ", ".join(fault.idents), fault)
        # Limits the share of time that a slow plugin takes from all others.
        rest = fault.seconds * _PAUSES
        with self.lock, self._begin(alone=True) as connection:
            for lane in read_lanes(connection):
                plugins = self.lane_plugins.get(lane.id)
                members = plugins.idents if plugins is not None else ()
                idents = tuple(ident for ident in members if ident in fault.idents)
                if not idents:
                    continue
                if lane.name in PERMANENT or len(idents) < len(members):
                    self._quarantine.isolate(connection, lane, idents, str(fault), (), rest)
                else:
                    self._quarantine.note_failure(connection, idents, str(fault), 0)
                    self.back_off(connection, lane, rest)

    def abandon(self) -> None:
        """Abandon the transaction of a thread that never returns; called by another thread.

        The database rolls it back, which releases its locks.
        """
        connection = self._connection
        if connection is not None:
            raw: Any = connection.connection.dbapi_connection
            raw.fence = None
            raw.close()
