"""Live messages that wait until classic plugins have got their history.

Classic plugins need messages in the order of time. So live ones are kept in memory while older ones
are filled in from the archive, and are released after the last of these. They are not claimed while
they wait: after a crash they come from the archive.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from statscache.message import Message

MOST_BYTES = 256 * 1024 * 1024
"""For the messages of one lane: a minute at 3,000 messages a second, most of a day at three."""


class LiveBuffer:
    """What is kept for the lanes of classic plugins, by their numbers.

    Args:
        has_history: whether there is an archive; without one no live message waits.
    """

    def __init__(self, *, has_history: bool) -> None:
        self._has_history = has_history
        self._released: set[int] = set()
        self._kept: dict[int, KeptMessages] = {}

    def is_released(self, number: int) -> bool:
        """Whether live messages are passed to the plugins of the lane at once."""
        return not self._has_history or number in self._released

    def keep(self, number: int, messages: Iterable[Message]) -> None:
        """Keep live messages for a lane."""
        self._kept.setdefault(number, KeptMessages()).keep(messages)

    def kept(self, number: int) -> list[Message]:
        """What is kept for a lane, oldest first."""
        return list(self._kept.get(number, ()))

    def release(self, number: int) -> None:
        """Pass on all that follows: what was kept has been counted."""
        self._released.add(number)
        self._kept.pop(number, None)

    @contextmanager
    def releasing(self, number: int) -> Iterator[list[Message]]:
        """Release the plugins of a lane: the block counts what is kept.

        If that fails, they keep waiting.
        """
        self._released.add(number)
        try:
            yield self.kept(number)
        except BaseException:
            self._released.discard(number)
            raise
        self._kept.pop(number, None)

    def hold_back(self, number: int) -> None:
        """Keep what follows: the plugins get their history before live messages."""
        self._released.discard(number)

    def merge(self, number: int, home: int) -> None:
        """Forget a lane that has joined another one."""
        if number in self._released:
            self._released.add(home)
        self._released.discard(number)
        self._kept.pop(number, None)


class KeptMessages:
    """The latest messages, oldest first, as bytes: objects would take several times as much.

    Beyond :data:`MOST_BYTES` the oldest are dropped: the archive will have them when they are
    needed.
    """

    def __init__(self) -> None:
        # Pickled, since JSON cannot restore everything that a message may hold.
        self._pickles: deque[bytes] = deque()
        self._bytes = 0

    def keep(self, messages: Iterable[Message]) -> None:
        """Append ``messages``."""
        for message in messages:
            pickled = pickle.dumps(message.raw)
            self._pickles.append(pickled)
            self._bytes += len(pickled)
        while self._bytes > MOST_BYTES:
            self._bytes -= len(self._pickles.popleft())

    def __iter__(self) -> Iterator[Message]:
        for pickled in self._pickles:
            yield Message.from_fedmsg(pickle.loads(pickled))  # noqa: S301  # our own
