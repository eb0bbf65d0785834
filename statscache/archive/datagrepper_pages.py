"""Gather the pages of a window until they are complete: datagrepper shuffles them meanwhile.

- It pages by OFFSET, and counts for each page: deep pages are slow, windows of a few pages are not.
- Rows are ordered by time alone, in whole seconds. From one page to the next the order within a
  second may change, so that a row comes twice and another not at all, while ``count`` and ``total``
  agree: only the number of distinct rows tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from statscache.archive.base import Window
from statscache.archive.datagrepper_client import DatagrepperClient, TooMuch
from statscache.archive.rows import MICROSECONDS, key_of
from statscache.times import iso

ROWS_PER_PAGE = 100
"""The most that it returns; 0 would lift the limit, which is not ours to use."""

MOST_PAGES = 10
"""A window of more is split instead of paged."""

_TRIES_OF_A_WINDOW = 2
_FRUITLESS_TRIES = 8

Filters = list[tuple[str, str]]
"""Parameters of a query."""


@dataclass
class _Found:
    """The rows of a window by what is unique in the archive.

    Attributes:
        total: how many it says there are.
        torn: whole seconds whose rows are on two pages, so that some may be on neither.
    """

    rows: dict[Any, Any] = field(default_factory=dict)
    total: int = 0
    torn: set[int] = field(default_factory=set)

    @property
    def missing(self) -> int:
        return max(0, self.total - len(self.rows))


class Paging:
    """Asks ``client`` for all the pages of a window."""

    def __init__(self, client: DatagrepperClient) -> None:
        self._client = client

    def complete(self, window: Window, filters: Filters) -> tuple[list[Any], int]:
        """Returns the rows of a window, and how many are missing however often it is asked for.

        Raises:
            TooMuch: there are more than :data:`MOST_PAGES`, or it takes too long.
        """
        if window.is_one_second:
            found = self._gather_second(window, filters)
            return list(found.rows.values()), found.missing
        gathered: dict[Any, Any] = {}
        for attempt in range(_TRIES_OF_A_WINDOW):
            if attempt:
                self._client.pause_for_luck()
            found = self._page_through(window, filters)
            gathered |= found.rows
            explained = 0
            if len(gathered) < found.total and found.torn:
                for second in sorted(found.torn):
                    part = self._gather_second(Window(second, second + 1.0), filters)
                    gathered |= part.rows
                    there = sum(
                        when is not None and when // MICROSECONDS == second for _, when in gathered
                    )
                    explained += max(0, part.total - there)
                # Some of them may have been added since the count.
                found.total = self.count(window, filters)
            missing = max(0, found.total - len(gathered))
            if missing <= explained:
                return list(gathered.values()), missing
        halves = [self.complete(half, filters) for half in window.halves()]
        return [row for rows, _ in halves for row in rows], sum(missing for _, missing in halves)

    def _gather_second(self, window: Window, filters: Filters) -> _Found:
        """Gather the rows of a second, which have no order.

        They are on other pages each time, so that repeated tries find those that are missing.
        """
        gathered = _Found()
        fruitless = 0
        while True:
            found = self._page_through(window, filters)
            is_fruitless = found.rows.keys() <= gathered.rows.keys()
            fruitless = fruitless + 1 if is_fruitless else 0
            gathered.rows |= found.rows
            gathered.total = found.total
            if not gathered.missing:
                return gathered
            enough = _FRUITLESS_TRIES if found.total > ROWS_PER_PAGE else _TRIES_OF_A_WINDOW
            if fruitless == enough:
                return gathered
            self._client.pause_for_luck()

    def _page_through(self, window: Window, filters: Filters) -> _Found:
        """Returns the rows of all pages of a window, asked for once.

        Raises:
            TooMuch: they are more than :data:`MOST_PAGES`, and it could be split.
        """
        found = _Found()
        whole = window.whole
        page = 1
        last = None
        while True:
            answer = self._client.ask(window, filters, page, ROWS_PER_PAGE)
            keys = [key_of(row) for row in answer["raw_messages"]]
            found.rows |= zip(keys, answer["raw_messages"], strict=True)
            found.total = answer["total"]
            seconds = [when // MICROSECONDS for _, when in keys if when is not None]
            if seconds and seconds[0] == last and whole.start <= last < whole.stop:
                found.torn.add(last)
            last = seconds[-1] if seconds else None
            pages = answer["pages"]
            if pages > MOST_PAGES and not window.is_one_second:
                raise TooMuch(f"{self._client.describe()} has {pages} pages of {iso(window.start)}")
            if page >= pages:
                return found
            page += 1

    def count(self, window: Window, filters: Filters) -> int:
        """Returns how many rows it says that it has of the whole seconds of a window.

        Raises:
            TooSlow: it cannot count them in its time.
        """
        total: int = self._client.ask(window, filters, 1, 1)["total"]
        return total
