"""Gather texts into batches, decode them, and let the engine count them.

A transport puts what it receives into an :class:`Intake` and never waits for the database;
another thread flushes it.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from statscache.clock import JumpDetector
from statscache.counting.batch import Batch, Origin, Outcome
from statscache.counting.engine import Engine
from statscache.counting.heartbeat import BEAT_EVERY
from statscache.errors import DatabaseUnavailable, InvalidMessage, SchemaError
from statscache.hub.supervision import StartThread, daemon
from statscache.logs.recurring import Recurring
from statscache.message import Message, decode
from statscache.rejection import Rejection
from statscache.times import to_the_second

log = logging.getLogger(__name__)

Text = str | bytes

PRUNE_EVERY = 60 * 60.0
"""Seconds between two rounds of deleting what has outlived its retention."""

LONGEST_BACKOFF = 30.0
"""Seconds between two tries at most, while the database is away."""

_PATIENCE = 5.0
"""Seconds after which a commit that still waits for the database is told of in the log."""

_USUAL_SIZE = 4096
"""Bytes of a message for which memory is planned; where they are larger, fewer are held."""

_BATCH_BYTES = 32 * 1024 * 1024
"""Bytes after which a batch is closed: decoded they take several times as much."""


def count_texts(
    engine: Engine,
    texts: Iterable[Text],
    rejections: Sequence[Rejection] = (),
    origin: Origin = Origin.BUS,
) -> Outcome:
    """Decode one batch and count it; what is not a message is rejected.

    Args:
        origin: where they come from: the bus, or a file.

    Raises:
        DatabaseUnavailable: nothing of it was committed.
    """
    with _collector_paused():
        messages = []
        refused = list(rejections)
        for text in texts:
            try:
                messages.append(decode(text))
            except InvalidMessage as error:
                refused.append(Rejection.of_frame(text, str(error)))
        outcome = count_messages(engine, messages, refused, origin)
        if messages:
            times = [message.timestamp for message in messages]
            outcome.span = min(times), max(times)
        return outcome


def count_messages(
    engine: Engine,
    messages: Sequence[Message],
    rejections: Sequence[Rejection] = (),
    origin: Origin = Origin.BUS,
) -> Outcome:
    """Count one batch; where the engine itself fails, find the message and reject that alone.

    Raises:
        DatabaseUnavailable: what was not counted before can be counted by the same call.
    """
    try:
        return engine.commit(Batch(origin, live=messages, rejections=rejections))
    except DatabaseUnavailable:
        raise
    except Exception as error:
        if not messages:
            raise
        if len(messages) == 1:
            log.exception("cannot count %r", messages[0])
            refusal = Rejection.by_plugin(messages[0], "", error)
            return engine.commit(Batch(origin, rejections=[*rejections, refusal]))
    middle = len(messages) // 2
    first = count_messages(engine, messages[:middle], rejections, origin)
    second = count_messages(engine, messages[middle:], (), origin)
    return first + second


class Intake:
    """A bounded buffer between the threads of a transport and the engine.

    Args:
        engine: opened.
        batch_size: messages in one transaction at most.
        buffer_size: messages in memory at most, of 4 KiB on average. While the database is away
            or too slow, more are dropped and counted: only an archive can bring them back.
    """

    def __init__(self, engine: Engine, batch_size: int, buffer_size: int) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._batch_size = batch_size
        self._buffer_size = buffer_size
        self._texts: deque[Text] = deque()
        self._in_hand: list[Text] = []
        self._rejections: deque[Rejection] = deque()
        self._bytes = 0
        self._dropped = 0
        self._dropped_since = 0.0
        # Guards what is waiting; held only to read or change that, never during a commit.
        self._counting = threading.Lock()
        self._flushing = threading.Lock()
        self._waits_since: float | None = None
        self._backoff = 0.0
        self._troubles = Recurring(engine.clock)
        self._retry_at = 0.0
        self._prune_at = self._clock.monotonic()
        self._flusher: threading.Thread | None = None
        self._wanted = threading.Event()
        self._deadline: float | None = None
        self._beat_at = self._clock.monotonic()
        self._jumps = JumpDetector(engine.clock)

    def accept(self, text: Text) -> None:
        """Take in a message; from any thread, at once."""
        if self._has_room(len(text)):
            self._texts.append(text)

    def reject(self, content: Text, reason: str, *, once: bool = False) -> None:
        """Take in something that is not a message; from any thread, at once.

        ``once``: however often the same content comes, it is counted once.
        """
        rejection = Rejection.of_frame(content, reason, once=once)
        if self._has_room(len(rejection.content)):
            self._rejections.append(rejection)

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._texts) + len(self._in_hand)

    @property
    def is_full(self) -> bool:
        """Whether there is a whole batch to commit."""
        return len(self._texts) >= self._batch_size

    def start(self, start_thread: StartThread = daemon) -> None:
        """Start a thread that flushes whenever :meth:`wake` is called.

        The thread waits for that call, never for a time, so one step of it is :meth:`flush`.
        """
        self._flusher = start_thread("statscache-intake", self._flush_when_woken)

    def wake(self) -> None:
        """Let the thread that :meth:`start` has started flush; from any thread, at once."""
        since = self._waits_since
        if since is not None and self._clock.monotonic() - since > _PATIENCE:
            self._waits_since = None
            if self._engine.plugin_at_work() is None:  # which it would tell of
                log.warning(
                    "the database has not answered for %.0f s: %d messages wait",
                    _PATIENCE,
                    len(self),
                )
        self._wanted.set()

    def flush(self) -> None:
        """Commit what is in the buffer, or say in the log why not; never raises.

        At once if another thread does it already, or if it failed a moment ago.
        """
        if self._clock.monotonic() < self._retry_at or not self._flushing.acquire(blocking=False):
            return
        try:
            self._flush()
        finally:
            self._flushing.release()

    def close(self, timeout: float = 5.0) -> None:
        """Commit what is left, trying again for ``timeout`` seconds; nothing is put in any more."""
        self._deadline = self._clock.monotonic() + timeout
        if self._flusher is None or not self._flusher.is_alive():
            self._flush_until(self._deadline)
        else:
            self._wanted.set()
            # It may wait for the database for longer than systemd's time limit for a stop.
            self._flusher.join(timeout)
        if len(self):
            left = "the archive has them" if self._engine.has_history else "they are lost"
            log.error("stopped with %d messages that could not be committed; %s", len(self), left)

    def replace_engine(self, engine: Engine) -> None:
        """Commit what is left by another engine: a thread that uses this one never returns."""
        self._engine = engine
        self._flusher = None
        self._flushing = threading.Lock()
        self._retry_at = 0.0

    def _flush_when_woken(self) -> None:
        while self._deadline is None:
            self._wanted.wait()
            self._wanted.clear()
            self.flush()
        self._flush_until(self._deadline)

    def _flush_until(self, deadline: float) -> None:
        with self._flushing:
            # Note that the hub listened until now.
            self._beat_at = 0.0
            while not self._flush() and self._clock.monotonic() < deadline:
                self._clock.sleep(0.2)

    def _has_room(self, size: int) -> bool:
        """Whether something of this size may be kept; it is counted then, and else as dropped."""
        with self._counting:
            waiting = len(self) + len(self._rejections)
            if waiting < self._buffer_size and self._bytes < self._buffer_size * _USUAL_SIZE:
                self._bytes += size
                return True
            self._dropped += 1
            if self._dropped > 1:
                return False
            self._dropped_since = self._clock.time()
        log.error("%d messages wait for the database: newer ones are dropped", waiting)
        return False

    def _flush(self) -> bool:
        """Whether everything that was there has been committed."""
        self._tell_of_jumps()
        now = self._clock.time()
        try:
            if not self._engine.is_open:
                self._engine.open()
            # What arrives meanwhile is for the next flush, so that this one ends.
            remaining = len(self)
            while remaining > 0 or self._rejections or self._dropped:
                remaining -= self._commit_batch()
            if self._clock.monotonic() >= self._beat_at:
                self._engine.beat(now)
                self._beat_at = self._clock.monotonic() + BEAT_EVERY
            if self._clock.monotonic() >= self._prune_at:
                self._engine.prune()
                self._prune_at = self._clock.monotonic() + PRUNE_EVERY
        except SchemaError:
            raise  # only the operator can fix it
        except Exception as error:
            self._backoff = min(max(1.0, self._backoff * 2), LONGEST_BACKOFF)
            self._retry_at = self._clock.monotonic() + self._backoff
            if self._troubles.happened(str(error)):
                log.error(
                    "cannot commit, %d messages wait, next try in %.0f s: %s",
                    len(self),
                    self._backoff,
                    error,
                    exc_info=None if isinstance(error, DatabaseUnavailable) else error,
                )
            return False
        if self._troubles.ended():
            log.info("the database is back")
        self._backoff = self._retry_at = 0.0
        return True

    def _tell_of_jumps(self) -> None:
        jump = self._jumps.jump()
        if jump:
            log.warning(
                "the clock has jumped %.0f s %s: messages are counted by their own times; "
                "see whether the time of this machine is right",
                abs(jump),
                "ahead" if jump > 0 else "back",
            )

    def _commit_batch(self) -> int:
        """Count the oldest messages; they are kept until they are committed."""
        size = sum(map(len, self._in_hand))
        while self._texts and len(self._in_hand) < self._batch_size and size < _BATCH_BYTES:
            text = self._texts.popleft()
            self._in_hand.append(text)
            size += len(text)
        rejections = list(islice(self._rejections, self._batch_size))
        dropped = self._dropped
        self._waits_since = self._clock.monotonic()
        try:
            count_texts(
                self._engine,
                self._in_hand,
                [*rejections, self._gap(dropped)] if dropped else rejections,
            )
        finally:
            self._waits_since = None
        count = len(self._in_hand)
        for _ in rejections:
            size += len(self._rejections.popleft().content)
        with self._counting:
            self._in_hand.clear()
            self._bytes -= size
            self._dropped -= dropped
        return count

    def _gap(self, dropped: int) -> Rejection:
        since = to_the_second(self._dropped_since)
        return Rejection.of_frame(
            f"{dropped} messages that arrived from {since} on",
            "dropped: the buffer was full, because the database was away or too slow",
            times=dropped,
        )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without the garbage collector, which would search every batch for cycles.

    Decoded messages have none, and half of the time of a replay would be spent on it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
