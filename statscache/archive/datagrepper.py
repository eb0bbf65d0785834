"""datagrepper, the archive of Fedora's bus: returns slices of messages for windows of time."""

from __future__ import annotations

import json
import logging
from typing import Any

from statscache.archive.base import Archive, Slice, Window, distinct
from statscache.archive.datagrepper_client import DatagrepperClient, TooMuch, TooSlow
from statscache.archive.datagrepper_pages import ROWS_PER_PAGE, Filters, Paging
from statscache.archive.rows import MICROSECONDS, key_of, message_of
from statscache.clock import SYSTEM, Clock
from statscache.errors import ArchiveUnavailable, InvalidMessage
from statscache.logs.recurring import Recurring
from statscache.message import Message
from statscache.rejection import Rejection
from statscache.times import iso
from statscache.topics import EVERYTHING, matcher

log = logging.getLogger(__name__)

_LONGEST_FILTER = 2000
"""Characters of a query, which servers do not accept in any length."""

_INDEX_TOLERANCE = 1.0
"""Seconds by which the time in a message may differ from the one under which it is found."""

_GROWTH = 1.25
"""By how much longer a window may be when the last one was no trouble."""


class DatagrepperArchive(Archive):
    """A datagrepper; threads may share it.

    Args: see :class:`~statscache.archive.datagrepper_client.DatagrepperClient`.
    """

    slice_size = 5 * ROWS_PER_PAGE

    def __init__(
        self, endpoint: str, timeout: float = 70.0, tries: int = 6, clock: Clock = SYSTEM
    ) -> None:
        self.client = DatagrepperClient(endpoint, timeout, tries, clock)
        self._paging = Paging(self.client)
        self._clock = clock
        self._gaps = Recurring(clock)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Each process logs gaps itself, since it has its own log.
        self.__dict__.update(state)
        self._gaps = Recurring(self._clock)

    @property
    def requests(self) -> int:
        """How many questions were asked."""
        return self.client.requests

    @property
    def waited(self) -> float:
        """Seconds that their answers took, pauses included."""
        return self.client.waited

    def describe(self) -> str:
        """Returns its address, without credentials."""
        return self.client.describe()

    def close(self) -> None:
        """Close the connections, except those that are waiting for an answer."""
        self.client.close()

    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        """Returns all that it has of ``window``: see :meth:`Archive.fetch`."""
        wanted = matcher(topics)
        filters = filters_of(topics)
        widest = self.widest
        while True:
            try:
                rows, missing = self._paging.complete(window, filters)
                break
            except TooMuch as error:
                if window.is_one_second:
                    # Even one second was too slow, which says nothing about wider windows.
                    self.widest = widest
                    raise ArchiveUnavailable(str(error)) from error
                window = window.halves()[0]
                if isinstance(error, TooSlow):
                    self.widest = max(1.0, window.stop - window.start)
            except ArchiveUnavailable:
                self.widest = widest
                raise
        if window.stop - window.start > self.widest - 1.0:
            self.widest *= _GROWTH
        if missing and self._gaps.happened("missing"):
            when = f"{iso(window.start)} to {iso(window.stop)}"
            log.error("%s does not return %d of what it has of %s", self.describe(), missing, when)
        found: list[Message] = []
        rejected: list[Rejection] = []
        for row in rows:
            try:
                message = message_of(row)
            except InvalidMessage as error:
                reason = f"{self.describe()}: {error}"
                rejected.append(Rejection.of_archive(json.dumps(row), reason))
                continue
            if not wanted(message.topic):
                continue
            if _is_of(window, message):
                found.append(message)
            elif not window.whole.start <= message.timestamp < window.whole.stop:
                reason = f"{self.describe()} has it at another time, near {iso(window.start)}"
                rejected.append(Rejection.of_archive(message.to_json(), reason))
        return Slice(window, distinct(found), rejected, missing)

    def newest_of(self, window: Window) -> float | None:
        """Returns the time of its newest message of a window, or None."""
        try:
            answer = self.client.ask(window, [], 1, 1, order="desc")
        except TooSlow as error:
            if window.is_one_second:
                raise ArchiveUnavailable(str(error)) from error
            earlier, later = window.halves()
            found = self.newest_of(later)
            return self.newest_of(earlier) if found is None else found
        times = [when for _, when in map(key_of, answer["raw_messages"]) if when is not None]
        return max(times) / MICROSECONDS if times else None

    def count(self, window: Window) -> int:
        """Returns how many rows it says that it has of the whole seconds of a window."""
        try:
            return self._paging.count(window, [])
        except TooSlow as error:
            if window.is_one_second:
                raise ArchiveUnavailable(str(error)) from error
            return sum(map(self.count, window.halves()))


def _is_of(window: Window, message: Message) -> bool:
    """Whether ``window`` is where a message belongs that was found in its whole seconds."""
    start, stop = window.start, window.stop
    # No other window has what it has beyond an edge that was asked for as it is.
    if start == window.whole.start:
        start -= _INDEX_TOLERANCE
    if stop == window.whole.stop:
        stop += _INDEX_TOLERANCE
    return start <= message.timestamp < stop


def filters_of(topics: tuple[str, ...]) -> Filters:
    """Returns parameters with which the server returns less; never less than is wanted.

    It filters by exact topics and by categories, not by patterns, and a query has a longest length.
    """
    patterns = [topic.split(".") for topic in topics]
    if not any({"*", "#"} & set(words) for words in patterns):
        filters = [("topic", topic) for topic in topics]
        if sum(len(name) + len(value) + 2 for name, value in filters) <= _LONGEST_FILTER:
            return filters
    if all(_has_category(words) for words in patterns):
        categories = sorted({words[3] for words in patterns})
        if sum(len(category) + 10 for category in categories) <= _LONGEST_FILTER:
            return [("category", category) for category in categories]
    return []


def _has_category(words: list[str]) -> bool:
    """Whether all topics of a pattern are in the category that its fourth token names."""
    if len(words) < 4 or words[3] in ("*", "#") or "#" in words[:3]:
        return False
    # Topics of another bus, of which the archive takes the third one.
    return words[0] != "*" and not any("VirtualTopic" in word for word in words)
