"""Gaps: time ranges of which a lane did not get all messages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, case, delete, select, update

from statscache.counting.lanes.lane import Lane
from statscache.database import tables
from statscache.database.upsert import Upsert


def note_gap(
    connection: Connection, lane: Lane, start: float, stop: float, missing: int, now: float
) -> None:
    """Remember how many messages of a time range the archive did not return; 0 closes the gap.

    Args:
        missing: messages that the archive reports, and did not return.
        now: UNIX seconds.
    """
    gap = tables.gap.c
    mine = (gap.lane == lane.id, gap.start >= start, gap.start < stop)
    query = select(gap.stop, gap.missing).where(*mine, gap.stop > stop)
    rests = connection.execute(query.order_by(gap.stop.desc())).all()
    connection.execute(delete(tables.gap).where(*mine))
    rows = [(lane.id, start, stop, missing, now)] if missing else []
    if rests:
        # The rest of a longer gap stays, since only its beginning was asked for again.
        rows.append((lane.id, stop, rests[0].stop, rests[0].missing, now))
    _upsert(connection.dialect.name).write(connection, rows)


def note_silence(connection: Connection, lane: Lane, start: float, stop: float) -> None:
    """Remember that no hub listened; without an archive, those messages are lost."""
    _upsert(connection.dialect.name).write(connection, [(lane.id, start, stop, 0, stop)])


def read_gaps(connection: Connection, lane: Lane) -> list[tuple[float, float]]:
    """The time ranges of which the lane did not get all messages."""
    gap = tables.gap.c
    query = select(gap.start, gap.stop).where(gap.lane == lane.id).order_by(gap.start)
    return [(row.start, row.stop) for row in connection.execute(query)]


def oldest_gaps(connection: Connection, most: int) -> Sequence[Any]:
    """Those of all lanes that were noticed first: lane, start, stop and more of each."""
    query = select(tables.gap).order_by(tables.gap.c.noticed_at).limit(most)
    return connection.execute(query).all()


def end_gaps(connection: Connection, lane: Lane, now: float) -> None:
    """End all gaps at ``now``: the clock may have been put back since they were noted."""
    gap = tables.gap.c
    mine = (gap.lane == lane.id, gap.stop > now)
    if connection.execute(select(gap.start).where(*mine).limit(1)).first() is not None:
        connection.execute(delete(tables.gap).where(*mine, gap.start >= now))
        connection.execute(update(tables.gap).where(*mine).values(stop=now))


@cache
def _upsert(backend: str) -> Upsert:
    return Upsert(
        tables.gap,
        backend,
        {
            "stop": lambda old, new: case(
                (new["stop"] > old["stop"], new["stop"]), else_=old["stop"]
            ),
            "missing": lambda old, new: new["missing"],
            "noticed_at": lambda old, new: new["noticed_at"],
        },
    )
