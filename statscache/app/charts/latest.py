"""Tables of latest values: what they have now, all of it or the rows of some time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from statscache.app.charts.lines import COMPLETE, MISSING, PARTIAL
from statscache.app.charts.sources import Part, SourceTable
from statscache.app.dispatch.route import Call
from statscache.app.http import parameters
from statscache.app.http.answer import Lifetime
from statscache.app.state import coverage
from statscache.app.state.coverage import Coverage
from statscache.app.state.steps import MINUTES
from statscache.plugins.installed.discovery import Dataset


def is_latest(dataset: Dataset) -> bool:
    """Whether the rows are latest values, of which it is known how they are merged."""
    return dataset.schedule is None and not dataset.is_classic


@dataclass(frozen=True)
class LatestRows:
    """The rows of a table of latest values, as charts read ranges.

    Attributes:
        source: the table.
        start: the earliest time of a row, UNIX seconds; None is any.
        stop: before which time; None is any.
    """

    source: SourceTable
    start: float | None
    stop: float | None

    count = 1
    """How many buckets there are."""

    @property
    def parts(self) -> Sequence[Part]:
        """What to read."""
        return [Part(self.source, between=(self.start, self.stop))]

    @property
    def whole(self) -> LatestRows:
        """The same."""
        return self

    @property
    def axis(self) -> dict[str, Any]:
        """What tells the rows, for JSON."""
        return {"resolution": None, "tz": None, "start": self.start, "stop": self.stop}

    @property
    def states(self) -> list[str]:
        """Whether all that happened has been counted."""
        covered = self.source.coverage
        if covered.since is None:
            return [MISSING]
        return [PARTIAL if covered.gaps or covered.state == "filling" else COMPLETE]

    @property
    def coverage(self) -> Coverage:
        """Of the table."""
        return self.source.coverage

    @property
    def lifetime(self) -> Lifetime:
        """How long an answer may be kept."""
        return Lifetime.OPEN


def resolve(call: Call) -> LatestRows:
    """The rows that ``call`` asks for.

    Raises:
        Problem: it asks for what only buckets have.
    """
    for name in ("resolution", "points", "compare"):
        if call.values.get(name) is not None:
            parameters.refuse(
                name,
                f"cannot be had: {call.dataset.ident} has latest values, not numbers in buckets of "
                "time",
            )
    start, stop = (call.values[name] if name in call.given else None for name in ("start", "stop"))
    if start is not None and stop is not None and start >= stop:
        parameters.refuse("start", "must be earlier than stop")
    known = coverage.measure(call.snapshot, call.dataset.ident)
    source = SourceTable(call.dataset, 0, 0, 0, known.floored(MINUTES), is_open=True)
    return LatestRows(source, start, stop)
