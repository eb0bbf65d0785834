"""Ask the archive again for what it did not return before."""

from __future__ import annotations

import logging

from statscache.archive import Archive, Window
from statscache.counting.batch import Batch
from statscache.counting.engine import Engine
from statscache.counting.lanes.gaps import oldest_gaps
from statscache.counting.lanes.lane import read_lanes

log = logging.getLogger(__name__)

_AT_ONCE = 20


def refetch_gaps(engine: Engine, archive: Archive) -> int:
    """Fill in gaps up to which the claims of lanes are pruned; returns how many messages were read.

    Claims in gaps are not pruned: they tell what has been counted already. Newer gaps are left
    alone, since the overlap is read again in each round.

    Raises:
        ArchiveUnavailable: the gaps stay.
        DatabaseUnavailable: the same.
    """
    with engine.transaction() as connection:
        lanes = {lane.id: lane for lane in read_lanes(connection)}
        gaps = oldest_gaps(connection, _AT_ONCE)
    messages = 0
    for row in gaps:
        lane = lanes.get(row.lane)
        if lane is None or lane.claims_pruned_until is None or row.stop > lane.claims_pruned_until:
            continue
        piece = archive.fetch(Window(row.start, row.stop))
        messages += piece.size
        outcome = engine.commit(Batch.of_gap(row.lane, piece))
        if row.lane in outcome.committed and not piece.missing:
            log.info("the archive returns now what it had not: %d messages", piece.size)
    return messages
