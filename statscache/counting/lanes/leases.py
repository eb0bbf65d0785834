"""Leases: at any time one process fills in the history of a lane."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sqlalchemy import Connection, update

from statscache.counting.lanes.lane import Lane
from statscache.database import tables

_LONGEST = 2 * 60 * 60.0
"""Seconds, far above any lease: an end that is later was noted before the clock was put back."""


def owner() -> str:
    """The name under which this process takes leases."""
    return f"{_machine()} {os.getpid()}"


def is_ours(lane: Lane) -> bool:
    """Whether no other process had the lease of ``lane`` when it was read."""
    return lane.leased_by in (None, owner())


def take_lease(connection: Connection, lane: Lane, now: float) -> bool:
    """Take or renew the lease of ``lane``; False: another process has it.

    For a minute, or ten if the lane is ordered. The leases of a killed process of this machine
    are free at once.
    """
    row = tables.lane.c
    has_run_out = ~row.leased_until.between(now, now + _LONGEST)
    is_free = row.leased_by.is_(None) | (row.leased_by == owner()) | has_run_out
    if lane.leased_by is not None and has_ended(lane.leased_by):
        is_free |= row.leased_by == lane.leased_by
    taken = connection.execute(
        update(tables.lane)
        .where(row.id == lane.id, is_free)
        .values(leased_by=owner(), leased_until=now + lane.lease_length)
    )
    return taken.rowcount == 1


def take_lease_over(connection: Connection, lane: Lane, now: float) -> None:
    """Take the lease of ``lane``, even from another process."""
    connection.execute(
        update(tables.lane)
        .where(tables.lane.c.id == lane.id)
        .values(leased_by=owner(), leased_until=now + lane.lease_length)
    )


def end_lease(connection: Connection, lane: Lane) -> None:
    """End the lease that this process has of ``lane``."""
    row = tables.lane.c
    connection.execute(
        update(tables.lane)
        .where(row.leased_by == owner(), row.id == lane.id)
        .values(leased_by=None, leased_until=None)
    )


def end_leases(connection: Connection) -> None:
    """End all leases that this process has."""
    connection.execute(
        update(tables.lane)
        .where(tables.lane.c.leased_by == owner())
        .values(leased_by=None, leased_until=None)
    )


def has_ended(name: str) -> bool:
    """Whether the process that takes leases under ``name`` is known to be gone: it was killed.

    Nothing is known of another machine or container: its leases must run out.
    """
    machine, _, number = name.rpartition(" ")
    if machine != _machine() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _machine() -> str:
    try:
        # Containers may share a hostname, and each numbers its processes itself.
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}"
