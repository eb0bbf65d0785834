"""Where the history of each plugin begins."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection

from statscache.clock import Clock
from statscache.counting.classic.runner import ClassicRunner
from statscache.isolation.blame import blames_plugin
from statscache.isolation.lost_connections import LostConnections
from statscache.plugins.buckets import floored
from statscache.plugins.installed.discovery import Dataset
from statscache.times import DAY

log = logging.getLogger(__name__)


class History:
    """Tells from which time (UNIX seconds) each plugin needs messages.

    Args:
        epoch: how far back history goes; None: as far as the archive does.
        runners: of the classic plugins, by ident.
        lost_connections: notes in which turns the connection was lost.
        clock: from whose time ``backlog_delta`` is subtracted.
    """

    def __init__(
        self,
        epoch: datetime | None,
        runners: Mapping[str, ClassicRunner],
        lost_connections: LostConnections,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._epoch = epoch
        self._runners = runners
        self._lost_connections = lost_connections
        # Classic plugins that cannot be asked which rows they have.
        self._unasked: set[str] = set()

    def start(self, dataset: Dataset) -> float:
        """Returns where the history of a plugin begins.

        Rounded down to midnight UTC, so that the first day is complete.
        """
        return self._start(dataset.plugin.backlog_delta)

    def earliest(self, datasets: Iterable[Dataset]) -> float:
        """Where the history of the first of them begins; where there are none, the epoch."""
        return min((self.start(dataset) for dataset in datasets), default=self._start(None))

    def _start(self, backlog_delta: timedelta | None) -> float:
        start = self._epoch.timestamp() if self._epoch else 0.0
        if backlog_delta is not None:
            start = max(start, self._clock.time() - backlog_delta.total_seconds())
        return max(0.0, floored(start, DAY))

    def assume_no_rows(self, idents: Iterable[str]) -> None:
        """Assume that these classic plugins have no rows: asking them spoils the transaction."""
        self._unasked.update(idents)

    def start_after_rows(self, connection: Connection, dataset: Dataset) -> float:
        """Where the history of a new classic plugin begins, which may have rows already.

        The rows are from another installation, or from a statscache of 2015. The plugin is asked
        for the time of the last one, and reverts a window that may be incomplete.
        """
        runner = self._runners[dataset.ident]
        start = self.start(dataset)
        if dataset.ident in self._unasked:
            return start
        try:
            with (
                self._lost_connections.turn(connection, (dataset.ident,), 0),
                connection.begin_nested(),
            ):
                return runner.begin(connection, start)
        except BaseException as error:
            if not blames_plugin(error):
                raise
            log.exception("%s does not tell which rows it has: it gets all messages", runner.ident)
            runner.renew()
            return start
