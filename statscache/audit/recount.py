"""Count what an archive has into a scratch database, with which the tables are compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Dialect, Select

from statscache.archive.base import Slice
from statscache.clock import Clock
from statscache.counting.classic.runner import ClassicRunner
from statscache.counting.folding.lane_plugins import LanePlugins, Target
from statscache.counting.membership.regressions import Regressions
from statscache.database.connection import Database
from statscache.errors import described
from statscache.isolation.lost_connections import LostConnections
from statscache.isolation.time_limit import TimeLimit
from statscache.message import TIMESTAMP_TOLERANCE, Message
from statscache.plugins.base import BasePlugin
from statscache.plugins.installed.discovery import Dataset

SAME_MESSAGE = 2 * TIMESTAMP_TOLERANCE
"""Seconds within which two copies of one id in consecutive slices are one message."""


class Recount:
    """Datasets counted from scratch; leaving the context deletes the scratch database.

    Args:
        datasets: by ident, each with the time (UNIX seconds) from which on it gets messages.
        classics: ident to a function that makes a fresh instance of a classic plugin.
        time_limit: under which the plugins work.
        clock: by which they are measured.

    Attributes:
        messages: how many were counted.
        regressions: what the plugins rejected of them.
    """

    def __init__(
        self,
        datasets: Mapping[str, tuple[Dataset, float]],
        classics: Mapping[str, Callable[[], BasePlugin]],
        time_limit: TimeLimit,
        clock: Clock,
    ) -> None:
        self.messages = 0
        self.regressions = Regressions(datasets)
        self._seen: dict[str, float] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="statscache-recount-")
        self._database = Database(f"sqlite:///{Path(self._folder.name) / 'scratch.db'}")
        targets = []
        runners = []
        with self._database.begin() as connection:
            for ident, (dataset, since) in datasets.items():
                dataset.model.__table__.create(connection, checkfirst=True)
                if dataset.declaration is not None:
                    targets.append(Target(ident, dataset.declaration, dataset.plugin, since=since))
                else:
                    runners.append((ClassicRunner(classics[ident], time_limit), since))
        self._plugins = LanePlugins(
            targets,
            runners,
            self._database.backend,
            time_limit=time_limit,
            lost_connections=LostConnections(clock),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for runner in self._plugins.runners:
            runner.stop()
        self._database.dispose()
        self._folder.cleanup()

    @property
    def dialect(self) -> Dialect:
        """The dialect of the scratch database."""
        return self._database.engine.dialect

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the archive must be asked for."""
        return self._plugins.topics

    def add(self, piece: Slice) -> None:
        """Count a slice; slices come in the order of time.

        Raises:
            PluginFault: a plugin takes too long, or spoils what the others do.
            RuntimeError: a plugin cannot write into an empty table of its own.
        """
        self.count(piece.messages, piece.window.start)

    def count(self, messages: Sequence[Message], start: float) -> None:
        """Count messages, none of them older than ``start``."""
        new = self._not_seen(messages)
        self.messages += len(new)
        with self._database.begin() as connection:
            result = self._plugins.count(connection, new, start)
        self.regressions.note(result.rejections)
        for idents, error in result.failed:
            raise RuntimeError(f"{', '.join(idents)} cannot be recounted: {described(error)}")

    def rows(self, statement: Select[Any]) -> Iterator[tuple[Any, ...]]:
        """Returns the rows of a query in the scratch database."""
        with self._database.begin() as connection:
            yield from stream(connection, statement)

    def _not_seen(self, messages: Sequence[Message]) -> list[Message]:
        """Those that were not at the end of the last slice already, restamped."""
        new = [message for message in messages if message.identity not in self._seen]
        if messages:
            self._seen |= {message.identity: message.timestamp for message in messages}
            bound = messages[-1].timestamp - SAME_MESSAGE
            self._seen = {key: when for key, when in self._seen.items() if when >= bound}
        return new


def stream(connection: Connection, statement: Select[Any]) -> Iterator[tuple[Any, ...]]:
    """The rows of an answer, however many, in bounded memory."""
    result = connection.execution_options(yield_per=5_000).execute(statement)
    for row in result:
        yield tuple(row)
