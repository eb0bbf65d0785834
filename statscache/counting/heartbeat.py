"""The heartbeat: until when live messages have been counted, and why they no longer are."""

from __future__ import annotations

from sqlalchemy import delete, insert

from statscache.clock import Clock
from statscache.counting.classic.live_buffer import LiveBuffer
from statscache.counting.lanes.checkpoints import beat
from statscache.counting.lanes.lane import read_lanes
from statscache.counting.transactions import Transactions
from statscache.database import tables
from statscache.database.connection import Database

BEAT_EVERY = 10.0
"""Seconds between two heartbeats."""


class Heartbeat:
    """Notes that the hub listens.

    Args:
        database: to write to.
        transactions: of the engine.
        buffer: what waits for the history of classic plugins.
        clock: the present.
    """

    def __init__(
        self, database: Database, transactions: Transactions, buffer: LiveBuffer, clock: Clock
    ) -> None:
        self._database = database
        self._transactions = transactions
        self._buffer = buffer
        self._clock = clock
        self._is_ending = False
        # The lanes that have got all live messages since the last beat.
        self._beating: set[int] = set()

    def beat(self, now: float) -> None:
        """Note that all live messages until ``now`` have been counted; see :meth:`Engine.beat`."""
        with self._transactions.begin() as connection:
            beating = set()
            for lane in read_lanes(connection):
                plugins = self._transactions.lane_plugins.get(lane.id)
                if plugins is None or lane.has_failed:
                    continue
                if lane.ordered and not self._buffer.is_released(lane.id):
                    continue
                is_first = lane.id not in self._beating
                beat(connection, lane, plugins.idents, now, is_first=is_first)
                beating.add(lane.id)
            if not self._is_ending:
                connection.execute(delete(tables.hub_failure))
        self._beating = beating

    def note_end(self, reason: str) -> None:
        """Note why this process ends; see :meth:`Engine.note_end`."""
        self._is_ending = True
        with self._database.begin() as connection:
            connection.execute(delete(tables.hub_failure))
            connection.execute(
                insert(tables.hub_failure).values(id=1, failed_at=self._clock.time(), reason=reason)
            )
