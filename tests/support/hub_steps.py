"""One step of the hub's own loop, up to a time that a test chooses."""

from __future__ import annotations

from collections.abc import Collection

from statscache.archive import Archive
from statscache.catchup.lane_log import LaneLog
from statscache.catchup.polling import Polling
from statscache.catchup.progress import Progress
from statscache.catchup.ready_lanes import ReadyLanes
from statscache.catchup.reconcile import Reconciler
from statscache.counting.engine import Engine
from statscache.counting.lanes.lane import Lane, read_lanes

OVERLAP = 600.0


def lanes_of(engine: Engine) -> list[Lane]:
    """All the lanes, as they are now."""
    with engine.transaction() as connection:
        return read_lanes(connection)


def lane(engine: Engine, name: str = "main") -> Lane:
    """One of them."""
    return next(each for each in lanes_of(engine) if each.name == name)


def reconcile(
    engine: Engine,
    archive: Archive,
    until: float,
    overlap: float = OVERLAP,
    names: Collection[str] | None = None,
) -> int:
    """Ask the archive again for an overlap, and for what follows; returns how much was counted."""
    lanes = ReadyLanes(engine, LaneLog()).read()
    if names is not None:
        lanes = [lane for lane in lanes if lane.name in names]
    return _reconciler(engine, archive, overlap).reconcile(lanes, until)


def settle(engine: Engine, archive: Archive, until: float, overlap: float = OVERLAP) -> None:
    """Reconcile, prune the claims that are old, and look up what came late."""
    reconcile(engine, archive, until, overlap)
    _reconciler(engine, archive, overlap).prune_and_resolve_late()


def _reconciler(engine: Engine, archive: Archive, overlap: float) -> Reconciler:
    return Reconciler(engine, archive, Polling(overlap=overlap), Progress(), LaneLog())
