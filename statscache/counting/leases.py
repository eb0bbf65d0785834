"""Leases: which process works at a lane, so that others leave that to it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from statscache.counting.lanes import Lane


def owner() -> str:
    """The name under which this process takes leases."""
    return f"{_machine()} {os.getpid()}"


def is_ours(lane: Lane) -> bool:
    """Whether no other process had the lease of ``lane`` when it was read."""
    return lane.leased_by in (None, owner())


def has_ended(name: str) -> bool:
    """Whether the process that takes leases under ``name`` is known to be gone: it was killed.

    Of another machine, or container, nothing is known: its leases run out.
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
        # Containers may share a name, and their processes have numbers of their own.
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}"
