"""Classic plugins that work in threads of their own, beside the stream of messages."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy.orm import Session

from statscache.plugins.base import BasePlugin
from statscache.plugins.schedule import Schedule
from statscache.plugins.threads import Queue

log = logging.getLogger(__name__)

_STOP = object()


class AsyncPlugin(BasePlugin):
    """A plugin whose slow work (a request to another service) runs in separate threads.

    ``process`` puts items on :attr:`queue` (``enqueue``), or :meth:`fill` does when the hub starts;
    threads call :meth:`work` with them, one item at a time. The plugin keeps the results in
    memory, under its own lock, until the next ``update`` writes them.
    """

    workers: ClassVar[int] = 1
    """How many threads work on the queue."""

    def __init__(
        self, schedule: Schedule | None, config: Mapping[str, Any], model: Any = None
    ) -> None:
        super().__init__(schedule, config, model)
        self.queue = Queue()
        self._threads: list[threading.Thread] = []

    def work(self, item: Any) -> None:
        """Called in one of the threads for each item; an exception is logged."""
        raise NotImplementedError

    def fill(self, session: Session) -> None:
        """Called when the hub starts, to put unfinished items of an earlier run on the queue."""

    def launch(self, session: Session) -> None:
        """Fill the queue and start the threads."""
        super().launch(session)
        self.fill(session)
        self._threads = [
            threading.Thread(target=self._run, name=f"{self.ident}-{number}", daemon=True)
            for number in range(self.workers)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each thread finish its item; queued items are discarded."""
        while True:
            try:
                self.queue.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self.queue.put(_STOP)
        for thread in self._threads:
            thread.join(timeout=5)

    def _run(self) -> None:
        while (item := self.queue.get()) is not _STOP:
            try:
                self.work(item)
            except BaseException:  # sys.exit() as well: the thread is needed for the next item
                log.exception("%s could not work on %r", self.ident, item)
            finally:
                self.queue.task_done()
