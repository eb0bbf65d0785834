"""Messages that keep coming while things go wrong, and what the tables must hold in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from statscache.plugins.installed import discovery
from tests.support.datagrepper import Datagrepper
from tests.support.hub import Hub
from tests.support.oracle import Oracle
from tests.support.stream import Stream

QUICK: dict[str, Any] = {
    "statscache.producer.frequency": timedelta(seconds=0.1),
    "statscache.archive.lag": timedelta(seconds=2),
    "statscache.archive.interval": timedelta(seconds=1),
    "statscache.archive.overlap": timedelta(seconds=30),
}


class Live:
    """Messages that are published, and archived, until the end of the block.

    Args:
        rate: messages per second.
    """

    def __init__(self, hub: Hub, archive: Datagrepper, rate: float = 100.0) -> None:
        self._hub = hub
        self._archive = archive
        self._pause = 1 / rate
        self._stream = Stream(without_id=0.1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.raws: list[dict[str, Any]] = []

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            raw = self._stream.message(time.time())
            self.raws.append(raw)
            self._archive.add([raw])
            self._hub.publish(raw)
        self._archive.store.close()


def quick(archive: Datagrepper, **more: Any) -> dict[str, Any]:
    """A configuration that catches up with the last day, at once."""
    yesterday = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1)
    return (
        QUICK
        | {
            "statscache.datagrepper.endpoint": archive.url,
            "statscache.consumer.epoch": yesterday.replace(microsecond=0),
        }
        | more
    )


def assert_complete(
    hub: Hub, raws: list[dict[str, Any]], uri: str, copied: Callable[[], str] | None = None
) -> None:
    """The tables come to hold what they must, and go on to.

    ``copied`` gives the URI of a copy of the database, where that at ``uri`` is out of reach.
    """
    oracle = Oracle(hub.folder / "oracle.db", raws, discovery.discover({}))
    look = copied or (lambda: uri)
    deadline = time.monotonic() + 30
    while oracle.differences(look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    # Once more after it has asked the archive again.
    time.sleep(1.5)
    assert oracle.differences(look()) == [], hub.log.read_text()
