"""What is compared: a dataset, and the times of it."""

from __future__ import annotations

from dataclasses import dataclass

from statscache.plugins.installed.discovery import Dataset


@dataclass(frozen=True)
class Comparand:
    """A dataset that is compared.

    Attributes:
        since: messages from here on are counted.
        start, stop: rows of this time are compared.
        needs_all: whether its rows depend on all of its history, not on their own time alone.
    """

    dataset: Dataset
    lane: int
    since: float
    start: float
    stop: float
    needs_all: bool

    @property
    def ident(self) -> str:
        """The ident of the dataset."""
        return self.dataset.ident


def depends_on_history(dataset: Dataset) -> bool:
    """Whether rows depend on all messages that ever were, not on those of their own time.

    Those of classic plugins do, and totals that are not kept in buckets.
    """
    if dataset.declaration is None:
        return True
    return dataset.schedule is None and not all(value.rule.takes_newest for value in dataset.values)
