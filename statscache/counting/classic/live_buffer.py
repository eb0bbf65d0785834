"""Live messages that wait until classic plugins have been given their history."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable, Iterator

from statscache.message import Message

MOST_BYTES = 256 * 1024 * 1024
"""Of the messages of one lane: a minute at three thousand messages a second, most of a day at
three."""


class Held:
    """The latest messages, oldest first, as bytes: objects would take several times as much.

    Where they are more than :data:`MOST_BYTES` the oldest go, since the archive will have those by
    the time that they are wanted.
    """

    def __init__(self) -> None:
        # Pickled, since JSON would not bring back everything that a message may hold.
        self._pickles: deque[bytes] = deque()
        self._bytes = 0

    def extend(self, messages: Iterable[Message]) -> None:
        """Hold these too."""
        for message in messages:
            pickled = pickle.dumps(message.raw)
            self._pickles.append(pickled)
            self._bytes += len(pickled)
        while self._bytes > MOST_BYTES:
            self._bytes -= len(self._pickles.popleft())

    def __iter__(self) -> Iterator[Message]:
        for pickled in self._pickles:
            yield Message.from_fedmsg(pickle.loads(pickled))  # noqa: S301  # our own
