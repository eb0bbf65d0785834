"""Messages that wait until the archive tells whether a lane has counted them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, delete, select

from statscache.counting.lanes.digests import claim_digest
from statscache.counting.lanes.lane import Lane
from statscache.database import tables
from statscache.database.upsert import Upsert
from statscache.message import Message


def defer(connection: Connection, lane: Lane, late: Sequence[Message], now: float) -> None:
    """Let messages wait until the archive tells whether the lane has counted them."""
    rows = {
        digest: (lane.id, digest, message.timestamp, message.to_json(), now)
        for message in late
        for digest in [claim_digest(message.identity)]
    }
    _insertion(connection.dialect.name).write(connection, [rows[digest] for digest in sorted(rows)])


def read_waiting(
    connection: Connection, numbers: Iterable[int], margin: float, most: int
) -> list[Any]:
    """Returns lane, identity and content of the oldest messages that wait in these lanes.

    Only those up to ``margin`` seconds after the watermark of their lane: the archive has not been
    read further.
    """
    late, lane = tables.late, tables.lane
    return list(
        connection.execute(
            select(late.c.lane, late.c.identity, late.c.content)
            .join(lane, lane.c.id == late.c.lane)
            .where(late.c.lane.in_(numbers), late.c.timestamp < lane.c.watermark + margin)
            .order_by(late.c.timestamp, late.c.lane)
            .limit(most)
        )
    )


def read_waiting_times(connection: Connection, number: int) -> list[float]:
    """The times of all messages that wait in a lane, UNIX seconds."""
    late = tables.late.c
    return list(connection.scalars(select(late.timestamp).where(late.lane == number)))


def still_waiting(connection: Connection, lane: Lane, digests: Iterable[bytes]) -> set[bytes]:
    """Those of ``digests`` that wait: another process may have decided the others."""
    late = tables.late.c
    query = select(late.identity).where(late.lane == lane.id, late.identity.in_(list(digests)))
    return {bytes(digest) for digest in connection.scalars(query)}


def end_waiting(connection: Connection, number: int, digests: Iterable[bytes]) -> None:
    """Delete messages that have been decided."""
    late = tables.late.c
    connection.execute(
        delete(tables.late).where(late.lane == number, late.identity.in_(list(digests)))
    )


@cache
def _insertion(backend: str) -> Upsert:
    return Upsert(tables.late, backend, {})
