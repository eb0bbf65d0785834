"""Which lanes are moved now, and from where: those that have plugins, and do not rest."""

from __future__ import annotations

from statscache.catchup.lane_log import LaneLog
from statscache.counting.engine import Engine
from statscache.counting.lanes.lane import Lane
from statscache.message import TIMESTAMP_TOLERANCE


class ReadyLanes:
    """Reads which lanes are to be moved.

    Args:
        engine: that counts for them.
        log: where lanes that rest are told of.
        idents: the plugins whose lanes are moved; absent, all.
    """

    def __init__(self, engine: Engine, log: LaneLog, idents: frozenset[str] | None = None) -> None:
        self._engine = engine
        self._log = log
        self._idents = idents

    def read(self) -> list[Lane]:
        """Returns the lanes that want messages and have a watermark, as they are now.

        Raises:
            DatabaseUnavailable: they cannot be read.
        """
        now = self._engine.clock.time()
        lanes = self._engine.read_lanes()
        for lane in lanes:
            if lane.retry_at is not None and lane.retry_at > now:
                self._log.backs_off(lane)
        ready = [
            lane
            for lane in lanes
            if lane.watermark is not None
            and not lane.is_backing_off(now)
            and self._engine.plugins_of(lane) is not None
        ]
        if self._idents is None:
            return ready
        wanted = [x for x in ready if self._idents.intersection(members_of(self._engine, x))]
        # Homes are moved too: a lane can join only when both have the same watermark.
        homes = {lane.joins for lane in wanted}
        return wanted + [lane for lane in ready if lane.name in homes and lane not in wanted]


def members_of(engine: Engine, lane: Lane) -> tuple[str, ...]:
    """Returns the idents of the plugins of a lane."""
    plugins = engine.plugins_of(lane)
    return plugins.idents if plugins is not None else ()


def home_of(lane: Lane, lanes: list[Lane]) -> Lane | None:
    """Returns the home of ``lane``; None if that is not among ``lanes``."""
    return next((other for other in lanes if other.name == lane.joins), None)


def watermark_of(lane: Lane) -> float:
    """Returns the watermark of a lane that has one: see :class:`ReadyLanes`."""
    assert lane.watermark is not None
    return lane.watermark


def start_of(lane: Lane, overlap: float) -> float:
    """Returns from when on the archive is asked for a lane: ``overlap`` before its watermark.

    Not from before the lane's history, nor from where it no longer has claims: what the archive
    returned from there could not be told from what was counted.
    """
    start = max(watermark_of(lane) - overlap, lane.history_start or 0.0)
    if lane.claims_pruned_until is None:
        return start
    # A copy of what lies before may be stamped a little later.
    return max(start, lane.claims_pruned_until + TIMESTAMP_TOLERANCE)
