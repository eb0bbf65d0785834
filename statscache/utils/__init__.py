"""The functions that plugins of 2015, and their tests, imported from here, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from statscache import config
from statscache.archive import DatagrepperArchive, read
from statscache.config import Settings
from statscache.plugins import BaseModel, BasePlugin
from statscache.plugins.installed import discovery
from statscache.times import unix_seconds

__all__ = ["create_tables", "datagrep", "find_stats_consumer", "init_model", "init_plugins"]

_DATAGREPPER = "https://apps.fedoraproject.org/datagrepper/"


def find_stats_consumer(hub: Any) -> Any:
    """Our consumer among those of a hub.

    Raises:
        ValueError: it is not there.
    """
    for consumer in hub.consumers:
        # By its name: its module brings in the reactor.
        if type(consumer).__name__ == "StatscacheConsumer":
            return consumer
    raise ValueError("the hub has no consumer of statscache: see statscache.consumer.enabled")


def datagrep(
    start: datetime,
    stop: datetime | None,
    workers: int = 1,
    profile: bool = False,
    quantum: int = 100,
) -> Iterator[list[dict[str, Any]]]:
    """The messages of a time, oldest first, in lists of ``quantum`` or fewer: fedmsg dicts.

    They come from ``statscache.datagrepper.endpoint``, or, where that is not set, from Fedora's.

    Args:
        start: naive datetimes are UTC.
        stop: now when absent.
        workers: questions under way at a time.
        profile: has no meaning any more.
        quantum: messages in a list.

    Raises:
        ArchiveUnavailable: it does not answer.
    """
    endpoint = Settings.from_config(config.load()).datagrepper_endpoint
    archive = DatagrepperArchive(endpoint or _DATAGREPPER)
    until = time.time() if stop is None else unix_seconds(stop)
    try:
        for piece in read(archive, unix_seconds(start), until, concurrency=workers):
            raws = [message.raw for message in piece.messages]
            yield from (raws[first : first + quantum] for first in range(0, len(raws), quantum))
    finally:
        archive.close()


def init_plugins(config: Mapping[str, Any]) -> list[BasePlugin]:
    """New instances of the classic plugins that are installed."""
    return [make() for make in discovery.discover(config).classics]


def init_model(db_url: str) -> scoped_session[Session]:
    """A session on the database, one for each thread."""
    return scoped_session(sessionmaker(bind=create_engine(db_url)))


def create_tables(db_url: str) -> None:
    """Create the tables of all models of classic plugins that have been imported."""
    engine = create_engine(db_url)
    BaseModel.metadata.create_all(engine)
    engine.dispose()
