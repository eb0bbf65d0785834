"""How many messages an archive lacks of those that were counted, by their numbers.

An archive may have been emptied, or restored in part. What it lacks was counted all the same, so
nothing is deleted, or replaced by less, because of it. Which messages it lacks is found, for a
short time, in :mod:`statscache.audit.archive_loss`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection

from statscache.archive import Archive, Window
from statscache.counting.engine import Engine
from statscache.counting.lanes.checksums import checksum_window, read_checksums
from statscache.counting.lanes.claims import read_due_times
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.message import TIMESTAMP_TOLERANCE
from statscache.plugins.buckets import floored
from statscache.times import DAY, iso

_WIDTH = 7 * DAY
"""Seconds of history for which the archive is asked at a time how much it has."""


@dataclass
class Shortfall:
    """What is missing.

    Attributes:
        counted: how many messages were counted.
        lost: how many of them the archive lacks, as far as their numbers tell.
        first: since when, UNIX seconds.
    """

    counted: int = 0
    lost: int = 0
    first: float = math.inf

    @property
    def share(self) -> float:
        """Of what was counted, 0 to 1."""
        return self.lost / self.counted if self.counted else 0.0

    def __str__(self) -> str:
        return (
            f"the archive lacks {self.lost} of the {self.counted} messages that were counted, "
            f"the first of them from {iso(self.first)} on"
        )


def measure(
    read: Callable[[], AbstractContextManager[Connection]],
    archive: Archive,
    name: str,
    start: float = 0.0,
    stop: float = math.inf,
) -> Shortfall:
    """Compare what a lane has counted from ``start`` to before ``stop`` with what there is of it.

    By numbers, of all topics, for a week at a time: in what it remembers a lane does not tell
    topics apart.

    Args:
        read: begins a transaction.
        name: of a lane that others join; of these it is known that they have counted everything.

    Raises:
        ArchiveUnavailable: nothing is known.
        DatabaseUnavailable: the same.
    """
    with read() as connection:
        lane = next((each for each in read_lanes(connection) if each.name == name), None)
        if lane is None or lane.watermark is None:
            return Shortfall()
        stop = min(stop, lane.watermark)
        numbers = _counted(connection, lane, start, stop)
    found = Shortfall()
    for week, counted in sorted(numbers.items()):
        window = Window(
            max(week, start) - TIMESTAMP_TOLERANCE, min(week + _WIDTH, stop) + TIMESTAMP_TOLERANCE
        )
        lost = max(0, counted - archive.count(Window(max(0.0, window.start), window.stop)))
        found.counted += counted
        found.lost += lost
        if lost:
            found.first = min(found.first, max(week, start))
    return found


def _counted(connection: Connection, lane: Lane, start: float, stop: float) -> Counter[int]:
    """How many messages the lane has counted, by week: by claims and by checksums."""
    numbers: Counter[int] = Counter()
    for moment, (number, _) in read_checksums(connection, lane, start, stop).items():
        numbers[floored(moment, _WIDTH)] += number
    for when in read_due_times(connection, lane, start, stop):
        numbers[floored(checksum_window(when), _WIDTH)] += 1
    return numbers


def objection(engine: Engine, archive: Archive, name: str, start: float = 0.0) -> str:
    """Why nothing of the lane is to be rebuilt from ``start`` on; empty where it may be."""
    found = measure(engine.transaction, archive, name, start)
    return str(found) if found.share > engine.tolerated_loss else ""


def objections(engine: Engine, archive: Archive, idents: Iterable[str]) -> dict[str, str]:
    """Why the rebuild of some of ``idents`` must not begin, by ident."""
    found: dict[str, str] = {}
    for home, starts in engine.to_rebuild(idents).items():
        text = objection(engine, archive, home, min(starts.values()))
        if text:
            found |= dict.fromkeys(starts, text)
    return found
