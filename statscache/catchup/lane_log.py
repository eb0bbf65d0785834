"""Log what each lane does, whenever that changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from statscache.counting.lanes.lane import Lane
from statscache.times import iso

log = logging.getLogger(__name__)


class LaneLog:
    """Remembers what was logged last of each lane."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def fills_in(self, lane: Lane, idents: Iterable[str], *, holds_live: bool) -> None:
        """Log that it is far from the present."""
        if self._is_new(lane, "fills in"):
            log.info(
                "%s fills in its history from %s on%s: %s",
                lane.name,
                iso(lane.watermark or 0.0),
                "; live messages wait for it" if holds_live else "",
                ", ".join(idents),
            )

    def is_left(self, lane: Lane) -> None:
        """Log that another process fills in its history."""
        if self._is_new(lane, "is left"):
            log.info("%s is left to another process, %s", lane.name, lane.leased_by)

    def is_near(self, lane: Lane, until: float) -> None:
        """Log that it has been compared with the archive up to the present."""
        if self._is_new(lane, "is near"):
            log.info("%s has been compared with the archive up to %s", lane.name, iso(until))

    def backs_off(self, lane: Lane) -> None:
        """Log that it has failed, and is tried again later."""
        if self._is_new(lane, "backs off") and lane.retry_at is not None:
            log.warning("%s has failed, next try at %s", lane.name, iso(lane.retry_at))

    def _is_new(self, lane: Lane, what: str) -> bool:
        is_new = self._said.get(lane.name) != what
        self._said[lane.name] = what
        return is_new
