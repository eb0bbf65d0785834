"""Quarantine: plugins whose rows cannot be written go on in lanes of their own.

With an archive such a lane is filled in later, and joins the others. Without one nothing comes
again: the plugin stays in its lane, and the number of messages that it misses is noted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, select

from statscache.clock import Clock
from statscache.counting.lanes.lane import Lane
from statscache.counting.lanes.lanes import Lanes
from statscache.counting.membership.plugin_rows import PluginRows, home_name
from statscache.database import tables
from statscache.database.plugin_state import ACTIVE, FAILING
from statscache.plugins.installed.discovery import Installed

log = logging.getLogger(__name__)

_LONGEST_ERROR = 10_000
"""Characters of an error that are kept."""


class Quarantine:
    """Keeps failing plugins from harming the others, inside the engine's transaction.

    Args:
        installed: the plugins.
        lanes: how lanes are kept.
        rows: of the plugins.
        clock: by which it is noted when plugins failed.
    """

    def __init__(self, installed: Installed, lanes: Lanes, rows: PluginRows, clock: Clock) -> None:
        self._clock = clock
        self._installed = installed
        self._lanes = lanes
        self._rows = rows
        self._failing: frozenset[str] = frozenset()

    def isolate(
        self,
        connection: Connection,
        lane: Lane,
        idents: tuple[str, ...],
        error: str,
        batches: Sequence[int],
        rest: float = 0.0,
    ) -> None:
        """Move a plugin whose writes failed to a lane that has not counted ``batches``.

        There it rests for so many seconds at least.
        """
        name = self._lanes.vacant_name(connection, f"quarantine {idents[0]}")
        own = self._lanes.split(connection, lane, name, batches)
        for ident in idents:
            self._rows.update(
                connection,
                ident,
                lane=own.id,
                state=FAILING,
                error=error[:_LONGEST_ERROR],
                failed_at=self._clock.time(),
            )
        pause = self._lanes.back_off(connection, own, rest)
        log.error("%s in a lane of its own, next try in %.0f s", ", ".join(idents), pause)

    def note_failure(
        self, connection: Connection, idents: Iterable[str], error: str, missed: int
    ) -> None:
        """Note that the rows of ``missed`` messages could not be written.

        No archive can return these messages again.
        """
        for ident in idents:
            self._rows.update(
                connection,
                ident,
                state=FAILING,
                error=error[:_LONGEST_ERROR],
                failed_at=self._clock.time(),
                missed=tables.plugin.c.missed + missed,
            )

    def note_failing(self, rows: Iterable[Any]) -> None:
        """Learn from the rows of all plugins which are failing."""
        self._failing = frozenset(row.ident for row in rows if row.state == FAILING)

    def failing(self, idents: Iterable[str]) -> list[str]:
        """Those whose last write did not succeed."""
        return sorted(self._failing.intersection(idents))

    def end(self, connection: Connection, idents: Iterable[str]) -> None:
        """Note that the rows of these can be written again; no archive has what they missed."""
        for ident in idents:
            home = self._lanes.open(connection, home_name(self._installed.datasets[ident]))
            row = tables.plugin.c
            lane = connection.scalar(select(row.lane).where(row.ident == ident))
            self._rows.update(connection, ident, state=ACTIVE, lane=home.id)
            self._rows.remove_lane_if_empty(connection, lane)
