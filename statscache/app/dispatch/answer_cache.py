"""Answers, kept in the memory of the process and bounded by their bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from statscache.app.http.answer import Links

ENTRY_OVERHEAD = 1_000
"""Bytes that an entry takes besides its body: the objects around it, keys and headers."""


@dataclass(frozen=True)
class Entry:
    """A serialised answer.

    Attributes:
        validator: what it depends on, as it was when it was computed.
        status: of HTTP.
        headers: all but those that depend on the request.
        links: relation to what differs in the query there.
        body: as it is sent.
    """

    validator: Hashable
    status: int
    headers: tuple[tuple[str, str], ...]
    links: Links
    body: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        headers = sum(len(name) + len(text) for name, text in self.headers)
        return len(self.body) + headers + ENTRY_OVERHEAD


class AnswerCache:
    """Keeps the answers that were used last; for all threads, and bounded.

    Args:
        most_bytes: of all entries together.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of all entries together."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """The entry, if it is kept."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep ``entry`` in place of the one under ``key``, and drop the oldest ones."""
        if entry.size > self._most_bytes:
            return
        with self._lock:
            old = self._entries.pop(key, None)
            self._bytes += entry.size - (old.size if old is not None else 0)
            self._entries[key] = entry
            while self._bytes > self._most_bytes:
                _, gone = self._entries.popitem(last=False)
                self._bytes -= gone.size
