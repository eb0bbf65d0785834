"""Messages that moved to a neighbouring bucket: their times differ in bus and archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from statscache.archive import Archive, read
from statscache.audit.verdict import Difference
from statscache.message import TIMESTAMP_TOLERANCE
from statscache.plugins.aggregate import AggregateTable

Row = tuple[Any, ...]


class BoundaryShifts:
    """Tells which differences of counters come of messages that moved across an edge of buckets.

    What one bucket lacks, its neighbour has too much of. No more messages can have moved across an
    edge than the archive has around it.
    """

    def __init__(self, archive: Archive, table: AggregateTable, start: float, stop: float) -> None:
        self._archive = archive
        self._plugin = plugin = table.plugin
        self._width = table.width or 1
        self._limits = (start, stop)
        self._value = plugin.values[0].name
        self._messages_around: dict[float, dict[Row, tuple[int, int]]] = {}

    def explain_differences(self, differences: Sequence[Difference]) -> list[Difference]:
        """The differences that such messages explain."""
        by_key: dict[Row, dict[int, tuple[int, Difference]]] = {}
        for difference in differences:
            moment, *keys = difference.key.values()
            surplus = self._number(difference.stored) - self._number(difference.counted)
            by_key.setdefault(tuple(keys), {})[int(moment)] = (surplus, difference)
        found: list[Difference] = []
        for key, buckets in by_key.items():
            for run in _runs(sorted(buckets), self._width):
                if self._balances(key, [buckets[moment][0] for moment in run], run[0]):
                    found += [buckets[moment][1] for moment in run]
        return found

    def _balances(self, key: Row, surpluses: list[int], start: int) -> bool:
        """Whether moves across the edges, within what each allows, explain all surpluses."""
        start_limit, stop_limit = self._limits
        stop = start + len(surpluses) * self._width
        # Beyond the limits of the comparison a neighbour may have the rest.
        least, most = self._crossing(key, start) if start <= start_limit else (0, 0)
        edge = start
        for surplus in surpluses:
            edge += self._width
            # Carry to the right edge: inflow at the left minus the surplus.
            least, most = least - surplus, most - surplus
            if edge < stop:
                down, up = self._crossing(key, edge)
                least, most = max(least, down), min(most, up)
                if least > most:
                    return False
        down, up = self._crossing(key, stop) if stop >= stop_limit else (0, 0)
        return max(least, down) <= min(most, up)

    def _crossing(self, key: Row, edge: float) -> tuple[int, int]:
        """How much may have gone over an edge, to the left (negative) and to the right."""
        if edge not in self._messages_around:
            near: dict[Row, tuple[int, int]] = {}
            first, last = edge - TIMESTAMP_TOLERANCE, edge + TIMESTAMP_TOLERANCE
            window = read(self._archive, first, last, self._plugin.topics)
            for message in (message for piece in window for message in piece.messages):
                for *keys, number in self._plugin.rows(message):
                    left, right = near.get(tuple(keys), (0, 0))
                    if message.timestamp >= edge:
                        near[tuple(keys)] = (left - number, right)
                    else:
                        near[tuple(keys)] = (left, right + number)
            self._messages_around[edge] = near
        return self._messages_around[edge].get(key, (0, 0))

    def _number(self, values: Mapping[str, Any] | None) -> int:
        return int(values[self._value]) if values is not None else 0


def _runs(moments: Sequence[int], width: int) -> Iterator[list[int]]:
    """``moments`` in groups of neighbours."""
    run: list[int] = []
    for moment in moments:
        if run and moment != run[-1] + width:
            yield run
            run = []
        run.append(moment)
    if run:
        yield run
