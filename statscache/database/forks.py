"""What a process must not share with those that it forks, such as its connections."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Kind = TypeVar("Kind")


class PerProcess(Generic[Kind]):
    """A value that a forked process makes for itself.

    The value of the parent is kept there, and not closed: a connection would be closed for the
    parent too.

    Args:
        make: makes the value, now and after each fork.

    Attributes:
        value: that of this process.
    """

    def __init__(self, make: Callable[[], Kind]) -> None:
        self._make = make
        self._inherited: list[Kind] = []
        self.value = make()
        _ALL.add(self)

    def _renew(self) -> None:
        self._inherited.append(self.value)
        self.value = self._make()


_ALL: WeakSet[PerProcess[Any]] = WeakSet()


def _renew_all() -> None:
    for each in list(_ALL):
        each._renew()


os.register_at_fork(after_in_child=_renew_all)
