"""Classic plugins while the archive is away: live messages first, their history afterwards.

They need messages in the order of time, so live ones wait for the history. While the archive is
away they get live messages all the same, and are rewound when it is back.
"""

from __future__ import annotations

import logging

from statscache.archive import Archive, Window
from statscache.catchup.ready_lanes import ReadyLanes, watermark_of
from statscache.counting.engine import Engine
from statscache.counting.lanes import leases
from statscache.counting.lanes.lane import Lane
from statscache.errors import DatabaseUnavailable

log = logging.getLogger(__name__)


class ArchiveOutage:
    """Lets live messages through, and remembers which lanes got them without their history."""

    def __init__(self, engine: Engine, archive: Archive, ready: ReadyLanes) -> None:
        self._engine = engine
        self._archive = archive
        self._ready = ready
        self._let_through: set[int] = set()

    def let_live_messages_through(self) -> None:
        """Release the live messages of classic plugins, since the archive cannot be asked."""
        try:
            waiting = [
                lane.id
                for lane in self._ready.read()
                if self._engine.waits_for_history(lane.id) and leases.is_ours(lane)
            ]
            if waiting:
                log.warning("classic plugins get live messages without their history")
                self._engine.release_live()
                self._let_through.update(waiting)
        except DatabaseUnavailable as error:
            log.error("the database is away too: %s", error)

    def rewind(self, lane: Lane) -> bool:
        """Let a lane whose live messages were let through begin again; returns whether one was.

        Raises:
            ArchiveUnavailable: nothing was changed: there is nothing yet to begin again with.
        """
        if lane.id not in self._let_through:
            return False
        self._archive.fetch(Window(watermark_of(lane), watermark_of(lane) + 1.0))
        self._engine.rewind(lane.id)
        self._let_through.discard(lane.id)
        return True
