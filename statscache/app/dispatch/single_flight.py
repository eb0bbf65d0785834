"""One computation for all threads that ask for the same thing at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Computation(Generic[Value]):
    def __init__(self) -> None:
        self.is_done = threading.Event()
        # Empty, or with the one value, which may be None.
        self.values: list[Value] = []


class SingleFlight(Generic[Key, Value]):
    """Lets one thread compute what several ask for at the same time.

    Args:
        patience: seconds after which a waiting thread computes for itself.
        may_share: whether a value is for the waiting threads too; they compute their own otherwise.
    """

    def __init__(self, patience: float, may_share: Callable[[Value], bool]) -> None:
        self._patience = patience
        self._may_share = may_share
        self._computations: dict[Key, _Computation[Value]] = {}
        self._lock = threading.Lock()

    def share(self, key: Key, compute: Callable[[], Value]) -> Value:
        """Returns the value of ``compute``, called here or in the thread that was first.

        If the first thread fails, each other one computes for itself, and raises its own
        exception. No thread waits for one that is itself waiting.
        """
        with self._lock:
            computation = self._computations.get(key)
            is_first = computation is None
            if computation is None:
                computation = self._computations[key] = _Computation()
        if not is_first:
            computation.is_done.wait(self._patience)
            return computation.values[0] if computation.values else compute()
        try:
            value = compute()
            if self._may_share(value):
                computation.values.append(value)
            return value
        finally:
            # Removed before the others wake: no new thread joins a computation that has ended.
            with self._lock:
                del self._computations[key]
            computation.is_done.set()
