"""What the present is rounded down to, so that answers change only once per step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from statscache.plugins.buckets import UNIX_EPOCH, floored
from statscache.plugins.installed.discovery import Dataset


class Steps(Protocol):
    """What the present is rounded down to, so that equal queries within one step are one query."""

    def floor(self, moment: float) -> float:
        """The start of the step that ``moment`` is in, in UNIX seconds."""

    def after(self, moment: float) -> float:
        """The start of the next step, which is later than ``moment``."""

    def end(self, moment: float) -> float:
        """What ``now`` means at ``moment``: the end of the bucket that is open."""


class Open(float):
    """The end of an open step, which is to be that of the open bucket once its width is chosen."""


@dataclass(frozen=True)
class Every:
    """Steps of ``width`` seconds, counted from ``offset``."""

    width: int
    offset: int = 0

    def floor(self, moment: float) -> float:
        """The start of the step that ``moment`` is in."""
        start: int = floored(math.floor(moment), self.width, self.offset)
        return start

    def after(self, moment: float) -> float:
        """The start of the next step."""
        return self.floor(moment) + self.width

    end = after


MINUTES = Every(60)
"""The steps where nothing has a resolution."""


def steps_of(dataset: Dataset | None) -> Steps:
    """The steps of the buckets of ``dataset``; minutes where it has none."""
    schedule = None if dataset is None else dataset.schedule
    if schedule is None:
        return MINUTES
    offset = (schedule.epoch - UNIX_EPOCH).total_seconds()
    return Every(max(1, int(schedule.interval.total_seconds())), int(offset))
