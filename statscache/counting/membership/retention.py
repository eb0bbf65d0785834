"""Retention: which rows have outlived the age that is configured, and how they are deleted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import Connection, delete, select

from statscache.clock import Clock
from statscache.counting.membership.plugin_rows import PluginRows
from statscache.database import tables
from statscache.database.definitions import shadow_table
from statscache.plugins.installed.discovery import Installed

_ROWS_AT_ONCE = 50_000


class Retention:
    """Deletes rows that are older than they are kept, inside the engine's transaction.

    Args:
        installed: the plugins.
        ages: schedule to the age at which rows of that resolution are deleted; it overrides what
            the plugins declare; an age of None: never.
        rows: of the plugins.
        clock: by which rows age, unless it is ahead of the messages.
    """

    def __init__(
        self,
        installed: Installed,
        ages: Mapping[str, timedelta | None],
        rows: PluginRows,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._installed = installed
        self._ages = ages
        self._rows = rows

    def note(self, connection: Connection, newest: float) -> dict[str, float]:
        """Note before which time rows are not kept; returns that time by ident.

        From then on no process writes such rows: a late message must not create a partial one. So
        they can be deleted in small parts later. Their age is measured by the newest message, since
        a clock that is ahead must not age them.

        Args:
            newest: the time of the newest message that there is, UNIX seconds.
        """
        limits = self._limits(min(self._clock.time(), newest))
        row = tables.plugin.c
        known = connection.execute(select(row.ident, row.pruned_until)).all()
        noted = {}
        for ident, until in known:
            if ident in limits:
                noted[ident] = max(limits[ident], until or 0.0)
                if until is None or until < limits[ident]:
                    self._rows.update(connection, ident, pruned_until=limits[ident])
        return noted

    def _limits(self, now: float) -> dict[str, float]:
        limits = {}
        for plugin in self._installed.aggregates:
            for table in plugin.tables:
                age = self._ages.get(str(table.schedule), table.retention)
                if age is not None and table.width is not None:
                    limits[table.ident] = float(int(now - age.total_seconds()))
        return limits

    def delete_rows(self, connection: Connection, ident: str, until: float) -> tuple[int, bool]:
        """Delete rows of earlier times than ``until``, from the shadow too.

        At most some 50,000 of each table. Returns how many were deleted, and whether there are
        more.
        """
        table = self._installed.datasets[ident].model.__table__
        query = select(tables.plugin.c.shadow).where(tables.plugin.c.ident == ident)
        shadow = connection.scalar(query)
        number, is_more = 0, False
        for each in [table, *([shadow_table(table, shadow)] if shadow else [])]:
            when = each.c.timestamp
            old = select(when).where(when < until).order_by(when)
            bound = connection.scalar(old.offset(_ROWS_AT_ONCE).limit(1))
            is_more |= bound is not None
            # The bucket of the bound is deleted as a whole: there may be no earlier one.
            inside = when < until if bound is None else when <= bound
            number += connection.execute(delete(each).where(inside)).rowcount
        return number, is_more
