"""How far a lane has come: its watermark, and until when it has counted live messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, case, delete, select, update

from statscache.counting.lanes.gaps import end_gaps, note_silence
from statscache.counting.lanes.lane import Lane
from statscache.database import tables
from statscache.message import TIMESTAMP_TOLERANCE


def advance(
    connection: Connection,
    lane: Lane,
    counted: int,
    newest: float | None,
    now: float,
    watermark: float | None = None,
) -> None:
    """Move the checkpoint of the lane past what was just counted.

    Args:
        counted: how many messages.
        newest: the largest timestamp among them, UNIX seconds.
        now: UNIX seconds.
        watermark: the time up to which the lane has now been reconciled with the archive.
    """
    row = tables.lane.c
    values: dict[str, Any] = {
        "messages": row.messages + counted,
        "batches": row.batches + 1,
        "committed_at": now,
    }
    # Never backwards: another process may have moved the lane past this batch, or it lies in a gap.
    if newest is not None:
        values["newest"] = case((row.newest > newest, row.newest), else_=newest)
    if watermark is not None:
        values["watermark"] = case((row.watermark > watermark, row.watermark), else_=watermark)
    # An overlap without new messages does not show that what failed works again.
    is_further = watermark is not None and watermark > (lane.watermark or 0.0)
    if lane.failures and (counted or is_further):
        values |= {"failures": 0, "retry_at": None}
    connection.execute(update(tables.lane).where(row.id == lane.id).values(values))


def rewind(connection: Connection, lane: Lane, start: float) -> None:
    """Set a lane back to a time, as if nothing from then on had been counted.

    Where its claims are pruned, ``start`` must be the start of a checksum window: a checksum cannot
    be divided.
    """
    for table, column in (
        (tables.claim, tables.claim.c.timestamp),
        (tables.claim_checksum, tables.claim_checksum.c.start),
        (tables.gap, tables.gap.c.start),
    ):
        connection.execute(delete(table).where(table.c.lane == lane.id, column >= start))
    row = tables.lane.c
    until, pruned_until = start - TIMESTAMP_TOLERANCE, row.claims_pruned_until
    connection.execute(
        update(tables.lane)
        .where(row.id == lane.id)
        .values(
            watermark=start,
            claims_pruned_until=case((pruned_until > until, until), else_=pruned_until),
        )
    )


def beat(
    connection: Connection, lane: Lane, idents: Iterable[str], now: float, *, is_first: bool
) -> None:
    """Note that live messages have been counted until ``now``, even if there were none.

    Args:
        idents: whose the messages were.
        is_first: live messages were not counted since the last beat, but are from ``now`` on.
    """
    row, plugin = tables.lane.c, tables.plugin
    # A time in the future was noted before the clock was put back: it is replaced by now.
    values: dict[str, Any] = {
        "beat_at": now,
        "live_since": case((row.live_since > now, now), else_=row.live_since),
    }
    if lane.watermark is None:
        end_gaps(connection, lane, now)
    if is_first:
        values["live_since"] = now
        last = connection.scalar(select(row.beat_at).where(row.id == lane.id))
        if lane.watermark is None and last is not None and last < now:
            note_silence(connection, lane, last, now)
    connection.execute(update(tables.lane).where(row.id == lane.id).values(values))
    connection.execute(
        update(plugin)
        .where(
            plugin.c.ident.in_(list(idents)),
            plugin.c.live_since.is_(None) | (plugin.c.live_since > now),
        )
        .values(live_since=now)
    )
