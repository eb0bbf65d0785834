"""What the hub does with an archive, one step at a time, at a time of our choosing."""

from __future__ import annotations

from collections.abc import Collection

from statscache.archive import Archive, read
from statscache.counting import late
from statscache.counting.engine import Engine
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.message import TIMESTAMP_TOLERANCE

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
    """Ask the archive again for an overlap, and for what is new until then; gives what counted."""
    counted = 0
    for each in lanes_of(engine):
        if each.watermark is None or engine.crew(each) is None:
            continue
        if names is not None and each.name not in names:
            continue
        start = max(each.watermark - overlap, each.history_start or 0.0)
        if each.claims_pruned_until is not None:
            start = max(start, each.claims_pruned_until + TIMESTAMP_TOLERANCE)
        for piece in read(archive, start, until):
            is_last = piece.window.stop >= until
            counted += engine.count_slice({each.id}, piece, is_last=is_last).counted
    return counted


def settle(engine: Engine, archive: Archive, until: float, overlap: float = OVERLAP) -> None:
    """Reconcile, forget the claims that are old, and find out about what came late."""
    reconcile(engine, archive, until, overlap)
    engine.prune_claims(overlap)
    while late.resolve(engine, archive):
        pass
