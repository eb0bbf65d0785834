"""Shadows: the tables into which plugins are rebuilt, beside those that are served.

A shadow takes the place of the served table, in one transaction, when it is complete. It is
blocked where it lacks what the served table has: because the plugin rejects now what it had counted
before (:mod:`statscache.counting.membership.regressions`), or because the archive has lost too much
of it (:mod:`statscache.audit.shortfall`). A blocked shadow is counted on in a lane of its own.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, select, update

from statscache.clock import Clock
from statscache.counting.lanes.lane import Lane
from statscache.counting.lanes.lanes import Lanes
from statscache.counting.membership import regressions, rejections, replayed
from statscache.counting.membership.plugin_rows import PluginRows
from statscache.database import tables
from statscache.database.definitions import (
    create_shadow,
    definition_of,
    drop_shadow,
    shadow_name,
    swap,
)
from statscache.database.plugin_state import ACTIVE, FAILING, FILLING, block_reason, is_blocked
from statscache.plugins.installed.discovery import Dataset

log = logging.getLogger(__name__)


class Shadows:
    """Begins, blocks and swaps shadows, inside the engine's transaction.

    Args:
        lanes: how lanes are kept.
        rows: of the plugins.
        clock: by which it is noted when a shadow was blocked.

    Attributes:
        blocked: the idents whose shadows are blocked, as far as it is known.
        forced: the idents whose shadows replace their tables even if they lack something.
    """

    def __init__(self, lanes: Lanes, rows: PluginRows, clock: Clock) -> None:
        self._clock = clock
        self._lanes = lanes
        self._rows = rows
        self._told: set[str] = set()
        self.blocked: frozenset[str] = frozenset()
        self.forced: frozenset[str] = frozenset()

    def begin(self, connection: Connection, dataset: Dataset, lane: Lane, since: float) -> int:
        """Move a plugin to ``lane``, which fills a shadow; returns the number of the lane it left.

        Args:
            since: where the history of the plugin begins, UNIX seconds.
        """
        name = shadow_name(dataset)
        create_shadow(connection, dataset.model.__table__, name)
        row = tables.plugin.c
        previous = connection.execute(
            select(
                *(row.lane, row.served_until, row.counted_until, row.rejected_before),
                *(tables.lane.c.watermark, tables.lane.c.newest),
            )
            .outerjoin(tables.lane, tables.lane.c.id == row.lane)
            .where(row.ident == dataset.ident)
        ).one()
        served_until = previous.served_until
        counted_until, rejected_before = previous.counted_until, previous.rejected_before
        # If an earlier shadow is discarded, they are known: the served table is still the same.
        if rejected_before is None:
            counted_until = max(previous.watermark or 0.0, previous.newest or 0.0)
            rejected_before = regressions.rejected_so_far(connection, dataset.ident)
        self._rows.update(
            connection,
            dataset.ident,
            lane=lane.id,
            state=FILLING,
            shadow=name,
            since=since,
            missed=0,
            pruned_until=None,
            served_until=previous.watermark if served_until is None else served_until,
            counted_until=counted_until,
            rejected_before=rejected_before,
            shortfall=None,
            error=None,
            failed_at=None,
        )
        self._told.discard(dataset.ident)
        # The rebuild counts those messages again.
        rejections.forget(connection, dataset.ident)
        return int(previous.lane)

    def give_up(self, connection: Connection, dataset: Dataset, row: Any) -> None:
        """Drop the shadow of a plugin, if it has one."""
        if row.shadow:
            drop_shadow(connection, dataset.model.__table__, row.shadow)
            self._rows.update(connection, dataset.ident, shadow=None)

    def is_rebuilding(self, connection: Connection, lane: Lane) -> bool:
        """Whether a plugin of a lane is being rebuilt."""
        row = tables.plugin.c
        query = select(row.ident).where(row.lane == lane.id, row.shadow.is_not(None)).limit(1)
        return connection.execute(query).first() is not None

    def is_under_way(self, connection: Connection, dataset: Dataset, row: Any) -> bool:
        """Whether a plugin is being rebuilt as it is installed now, and nothing objects to it."""
        return row.shadow == shadow_name(dataset) and not self._objection(connection, row)

    def is_forced(self, connection: Connection, lane: Lane) -> bool:
        """Whether all shadows of a lane are to replace their tables even if they lack something."""
        members = self._rows.in_lane(connection, lane.id)
        return self.forced.issuperset(row.ident for row in members)

    def note_shortfall(self, connection: Connection, lane: Lane, text: str) -> None:
        """Note why the shadows of a lane must not take their places: the archive lacks so much."""
        row = tables.plugin.c
        mine = (row.lane == lane.id, row.shadow.is_not(None))
        connection.execute(update(tables.plugin).where(*mine).values(shortfall=text))

    def note_blocked(self, rows: Iterable[Any]) -> None:
        """Learn from the rows of all plugins which shadows are blocked."""
        self.blocked = frozenset(row.ident for row in rows if is_blocked(row))

    def block(self, connection: Connection, lane: Lane) -> Lane | None:
        """Block the shadows of a lane that must not take their places.

        They are counted on in a lane of their own, which is returned, so that the others can join;
        None if there are none. They are looked at again whenever that lane comes to join.
        """
        rows = self._rows.in_lane(connection, lane.id)
        objections = {
            row.ident: objection for row in rows if (objection := self._objection(connection, row))
        }
        if not objections:
            return None
        if len(objections) < len(rows):
            name = self._lanes.vacant_name(connection, f"held {min(objections)}")
            lane = self._lanes.split(connection, lane, name)
        for row in rows:
            if row.ident in objections:
                self._block(connection, row, lane, objections[row.ident])
        return lane

    def _block(self, connection: Connection, row: Any, lane: Lane, objection: str) -> None:
        is_retried = bool(_retriable(connection, row))
        error = block_reason(row.ident, objection, is_retried=is_retried)
        self._tell(row.ident, error)
        if (row.lane, row.error) != (lane.id, error):
            values = {"lane": lane.id, "state": FAILING, "error": error}
            values["failed_at"] = row.failed_at if is_blocked(row) else self._clock.time()
            self._rows.update(connection, row.ident, **values)

    def tell_blocked(self, row: Any) -> None:
        """Log why the shadow of a plugin is blocked, if it is."""
        if is_blocked(row):
            self._tell(row.ident, row.error)

    def _tell(self, ident: str, error: str) -> None:
        """Log it once in each process, since the shadow is checked every minute."""
        if ident not in self._told:
            self._told.add(ident)
            log.error("%s: %s", ident, error)

    def retriable(self, connection: Connection, number: int) -> list[str]:
        """The digests of the rejections for which the shadows of a lane are blocked."""
        rows = self._rows.in_lane(connection, number)
        digests = [_retriable(connection, row) for row in rows if is_blocked(row)]
        return list(dict.fromkeys(itertools.chain.from_iterable(digests)))

    def _objection(self, connection: Connection, row: Any) -> str:
        """Why the shadow of a plugin must not take the place of its table; empty: it may."""
        if not row.shadow or row.ident in self.forced:
            return ""
        return str(row.shortfall or regressions.objection(connection, row))

    def swap_in(self, connection: Connection, dataset: Dataset, row: Any, home: Lane) -> None:
        """Move a complete plugin to ``home``; its shadow, if there is one, takes its place."""
        self._told.discard(row.ident)
        if row.shadow:
            swap(connection, dataset.model.__table__, row.shadow)
            # The new rows come from the archive: they lack what only the files had.
            replayed.forget(connection, [row.ident])
        self._rows.update(
            connection,
            row.ident,
            lane=home.id,
            state=ACTIVE,
            error=None,
            failed_at=None,
            shadow=None,
            served_until=None,
            counted_until=None,
            rejected_before=None,
            shortfall=None,
            definition=definition_of(dataset),
            audited_until=None,
        )


def _retriable(connection: Connection, row: Any) -> list[str]:
    """The digests of the rejections for which a shadow is blocked, if it lacks nothing else.

    Empty where only a rebuild can fill in all that it lacks.
    """
    return [] if row.shortfall else regressions.retriable(connection, row)
