"""Catching up over HTTP with an archive that does everything wrong is like one pass."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from statscache.archive import DatagrepperArchive
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.counting import late
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.errors import ArchiveUnavailable
from statscache.message import Message
from statscache.plugins.installed import discovery
from tests.support.clocks import Impatient
from tests.support.datagrepper import Datagrepper
from tests.support.oracle import Oracle
from tests.support.stream import Stream

HOURS = 3
POLLING = Polling(lag=2, overlap=900, interval=60)

FAULTS = {
    "lag": 1.0,
    "latency": 0.001,
    "share_500": 0.03,
    "share_502": 0.03,
    "share_broken": 0.03,
    "share_truncated": 0.03,
    "share_429": 0.03,
    "share_reset": 0.03,
    "share_hang": 0.01,
    "retry_after": "0.05",
    "most_rows": 450,
}


def history(now: float, count: int) -> list[dict[str, Any]]:
    """In whole seconds, as they are sent; some seconds are full."""
    generator = random.Random(3)
    stream = Stream(3, without_id=0.2)
    begin = now - HOURS * 3600
    full = [begin + generator.random() * (now - begin) for _ in range(3)]
    times = [begin + generator.random() * (now - begin) for _ in range(count)]
    times += [second + generator.random() * 2 for second in full for _ in range(150)]
    return [stream.message(float(int(when))) for when in times]


def archived(raws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the bridges hand them on: with a year before the id, without, and some both ways."""
    generator = random.Random(4)
    found = []
    for raw in raws:
        copies = [raw]
        if "msg_id" in raw and generator.random() < 0.5:
            bare = raw | {"msg_id": Message.from_fedmsg(raw).identity}
            copies = [raw, bare] if generator.random() < 0.2 else [bare]
        found += copies
    return found


def catch_up(engine: Engine, archive: DatagrepperArchive, **more: Any) -> None:
    """As often as it needs to."""
    for _ in range(30):
        try:
            CatchUp(engine, archive, more.pop("polling", POLLING), **more).run_until_complete()
            return
        except ArchiveUnavailable:
            time.sleep(0.1)
    raise AssertionError("the archive was away each time")


@pytest.mark.parametrize(
    "way", ["one at a time", pytest.param("folded in threads", marks=pytest.mark.long)]
)
def test_every_fault_at_once(
    datagrepper: Datagrepper, migrated_uri: str, tmp_path: Path, way: str
) -> None:
    now = time.time() - 30
    raws = history(now, 900)
    generator = random.Random(way)
    live = [Message.from_fedmsg(raw) for raw in raws if generator.random() < 0.2]
    # What the archive gets late, with its old time, but within the overlap.
    tardy = [raw for raw in raws if raw["timestamp"] > now - 600]
    assert len(tardy) > 20
    datagrepper.add(archived([raw for raw in raws if raw not in tardy]))
    datagrepper.set(**FAULTS)

    installed = discovery.discover({})
    epoch = datetime.fromtimestamp(now - HOURS * 3600 - 60, UTC)
    engine = Engine(Database(migrated_uri), installed, epoch=epoch, has_history=True)
    engine.open()
    archive = DatagrepperArchive(datagrepper.url, timeout=0.5, clock=Impatient())
    archive.slice_size = 100

    def trouble() -> None:
        time.sleep(0.3)
        datagrepper.set(outage=True, recovery=0.5)
        datagrepper.add(archived(tardy))
        engine.count(live[::2])
        time.sleep(0.3)
        datagrepper.set(outage=False)

    with ExitStack() as stack:
        stack.callback(engine.close)
        stack.callback(archive.close)
        more: dict[str, Any] = {"polling": POLLING}
        if way == "folded in threads":
            more["polling"] = Polling(lag=2, overlap=900, interval=60, concurrency=4)
            more["executor"] = stack.enter_context(ThreadPoolExecutor(2))
        engine.count(live[1::2])
        troubling = threading.Thread(target=trouble)
        troubling.start()
        catch_up(engine, archive, **more)
        troubling.join()
        time.sleep(0.6)
        # All that it has can be seen now.
        catch_up(engine, archive, **more)
        engine.count(live)
        datagrepper.set(**dict.fromkeys((name for name in FAULTS if "share" in name), 0.0))
        while late.resolve(engine, archive):
            pass
    oracle = Oracle(tmp_path / "oracle.db", raws, installed)
    assert oracle.differences(migrated_uri) == []
    statuses = Counter(request.status for request in datagrepper.requests)
    assert statuses.total() - statuses[200] > 5
