"""Answers that were given, kept in the memory of the process and bounded by their bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

Links = tuple[tuple[str, tuple[tuple[str, str | None], ...]], ...]
"""Relation to what differs in the query there; None is left out."""

ENTRY_OVERHEAD = 1_000
"""Bytes that an entry takes besides its body: the objects around it, keys and headers."""


@dataclass(frozen=True)
class Entry:
    """A serialised answer.

    Attributes:
        mark: what it depends on, as it was when it was computed.
        status: of HTTP.
        headers: all but those that depend on who asks.
        links: relation to what differs in the query there.
        body: as it is sent.
    """

    mark: Hashable
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
    """Keeps the answers that were used last; for all threads.

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
        """Keep ``entry`` in place of what ``key`` had, and let the oldest ones go."""
        if entry.size > self._most_bytes:
            return
        with self._lock:
            old = self._entries.pop(key, None)
            self._bytes += entry.size - (old.size if old is not None else 0)
            self._entries[key] = entry
            while self._bytes > self._most_bytes:
                _, gone = self._entries.popitem(last=False)
                self._bytes -= gone.size


class Memo(Generic[Key, Value]):
    """Remembers the values that were used last, ``most`` of them; for all threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value, if it is remembered."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        """Remember ``value``."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._most:
                self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._values.clear()


class _Flight(Generic[Value]):
    def __init__(self) -> None:
        self.landed = threading.Event()
        self.values: list[Value] = []


class Flights(Generic[Key, Value]):
    """Lets one thread compute what several ask for at the same time.

    Args:
        patience: seconds after which who waits computes for itself.
        may_share: whether a value is also for those who wait; they compute their own otherwise.
    """

    def __init__(self, patience: float, may_share: Callable[[Value], bool]) -> None:
        self._patience = patience
        self._may_share = may_share
        self._flights: dict[Key, _Flight[Value]] = {}
        self._lock = threading.Lock()

    def run(self, key: Key, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives, here or in the thread that was first.

        Where the first one failed, the others compute for themselves, and so fail with their own
        exception; nobody waits for somebody who waits.
        """
        with self._lock:
            flight = self._flights.get(key)
            is_first = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
        if not is_first:
            flight.landed.wait(self._patience)
            return flight.values[0] if flight.values else compute()
        try:
            value = compute()
            if self._may_share(value):
                flight.values.append(value)
            return value
        finally:
            with self._lock:
                del self._flights[key]
            flight.landed.set()
