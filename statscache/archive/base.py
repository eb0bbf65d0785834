"""The interface of an archive: it returns all messages of a window of time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from statscache.message import Message
from statscache.rejection import Rejection
from statscache.topics import EVERYTHING

_FIRST_LOOK = 300.0
"""Seconds before the present in which the newest message is looked for first."""

_GROWTH = 4


@dataclass(frozen=True)
class Window:
    """A time, half-open: from ``start`` to before ``stop``, UNIX seconds."""

    start: float
    stop: float

    @property
    def whole(self) -> Window:
        """The shortest one around it that starts and stops at whole seconds."""
        return Window(float(math.floor(self.start)), float(math.ceil(self.stop)))

    @property
    def is_one_second(self) -> bool:
        """Whether no whole second lies inside it: archives do not tell finer times apart."""
        return self.whole.stop - self.whole.start <= 1

    def halves(self) -> tuple[Window, Window]:
        """Returns the two halves, which meet at a whole second: one must lie inside the window."""
        middle = (self.whole.start + self.whole.stop) // 2
        return Window(self.start, middle), Window(middle, self.stop)


@dataclass
class Slice:
    """What an archive has of a window.

    Attributes:
        messages: by time, each once: see :func:`distinct`.
        rejected: what it returned that is not a message.
        missing: how many messages the archive says that it has and did not return; 0 is complete.
    """

    window: Window
    messages: list[Message] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    missing: int = 0

    @property
    def size(self) -> int:
        """How many rows there are; the width of the next window is chosen by it."""
        return len(self.messages) + len(self.rejected)


class Archive(ABC):
    """A source of history.

    Pickled, it is its configuration: connections are made where it is used, so that it can be
    sent to other processes and machines.
    """

    slice_size: int = 500
    """How many messages a window should hold."""

    widest: float = math.inf
    """How long a window may be, in seconds, for all that is known so far."""

    @abstractmethod
    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        """Returns all messages of ``window`` under ``topics`` (patterns, see statscache.topics).

        Where they are far more than :attr:`slice_size`, the slice has only the first ones, and its
        window ends earlier than the one that was asked for.

        Raises:
            ArchiveUnavailable: after several tries; nothing has been skipped.
        """

    def newest(self, start: float, stop: float) -> float | None:
        """Returns the time of its newest message from ``start`` to before ``stop``, or None.

        Looked for from the end, in windows that grow: where the clock is right it is near.

        Raises:
            ArchiveUnavailable: after several tries.
        """
        width = _FIRST_LOOK
        while start < stop:
            window = Window(max(start, stop - width), stop)
            found = self.newest_of(window)
            if found is not None:
                return found
            stop, width = window.start, _GROWTH * width
        return None

    def newest_of(self, window: Window) -> float | None:
        """Returns the time of its newest message of a window, or None.

        Raises:
            ArchiveUnavailable: after several tries.
        """
        found = None
        start = window.start
        while start < window.stop:
            piece = self.fetch(Window(start, window.stop))
            if piece.messages:
                found = piece.messages[-1].timestamp
            start = piece.window.stop
        return found

    def count(self, window: Window) -> int:
        """Returns how many messages it has of a window; copies of one may be counted twice.

        Raises:
            ArchiveUnavailable: after several tries.
        """
        number = 0
        start = window.start
        while start < window.stop:
            piece = self.fetch(Window(start, window.stop))
            number += len(piece.messages)
            start = piece.window.stop
        return number

    @abstractmethod
    def describe(self) -> str:
        """Returns a name of it for people, without passwords."""

    def close(self) -> None:  # noqa: B027
        """Close connections and delete scratch files; it may be used again."""


def distinct(messages: Iterable[Message]) -> list[Message]:
    """Returns the messages by time, and of those with one identity the earliest.

    Of copies of the same time that differ, one is chosen by content, so that the result depends
    neither on the order in which an archive has them nor on which it returned first.
    """
    chosen: dict[str, Message] = {}
    for message in messages:
        known = chosen.setdefault(message.identity, message)
        if known is not message and _rank(message) < _rank(known):
            chosen[message.identity] = message
    return sorted(chosen.values(), key=lambda message: (message.timestamp, message.identity))


def _rank(message: Message) -> tuple[float, str, bytes]:
    try:
        body = orjson.dumps(message.msg, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        body = repr(message.msg).encode("utf-8", "surrogatepass")
    return message.timestamp, message.topic, body
