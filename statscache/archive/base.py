"""What an archive is: it gives all the messages of a window of time."""

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
        """The two that it is made of; they meet at a whole second, so it has to have one."""
        middle = (self.whole.start + self.whole.stop) // 2
        return Window(self.start, middle), Window(middle, self.stop)


@dataclass
class Slice:
    """What an archive has of a window.

    Attributes:
        messages: by time, each once: see :func:`distinct`.
        rejected: what it gave that is no message.
        missing: how many messages it says that it has and did not give; 0 is complete.
    """

    window: Window
    messages: list[Message] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    missing: int = 0

    @property
    def size(self) -> int:
        """How much there is: windows are chosen by it."""
        return len(self.messages) + len(self.rejected)


class Archive(ABC):
    """A source of history.

    Pickled, it is its configuration: connections are made where it is used, so that it can be
    sent to other processes and machines.
    """

    target: int = 500
    """How many messages a window should hold."""

    widest: float = math.inf
    """How long a window may be, in seconds, for all that is known so far."""

    @abstractmethod
    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        """All that it has of ``window`` under ``topics`` (patterns, see statscache.topics).

        Where that is far more than :attr:`target`, only the beginning of it is answered for: the
        window of the slice then ends earlier than the one that was asked for.

        Raises:
            ArchiveUnavailable: after several tries; nothing has been skipped.
        """

    def newest(self, start: float, stop: float) -> float | None:
        """The time of its newest message from ``start`` to before ``stop``; None: it has none.

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
        """The time of its newest message of a window; None: it has none.

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
        """How many messages it has of a window; it may count copies of one twice.

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
        """What it is, for people, without passwords."""

    def close(self) -> None:  # noqa: B027
        """Let go of connections and scratch files; it may be used again."""


def distinct(messages: Iterable[Message]) -> list[Message]:
    """The messages by time, and of those with one identity the earliest.

    Copies of the same time that differ are chosen between by content, so that the answer depends
    neither on the order in which an archive has them nor on which it gave first.
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
