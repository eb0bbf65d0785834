"""The rows of plugins in the database: in which lane each is, and in which state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update

from statscache.counting.lanes.lane import MAIN, ORDERED, Lane
from statscache.counting.lanes.lanes import Lanes
from statscache.database import tables
from statscache.database.plugin_state import GONE
from statscache.plugins.installed.discovery import Dataset

_CONCERN_OTHERS = {"lane", "state", "shadow", "pruned_until"}
"""The columns that decide what is written for a plugin, and to which table."""


class PluginRows:
    """Reads and writes the rows of plugins, inside the engine's transaction.

    Args:
        lanes: noted as changed whenever a change of a row matters to other processes.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    def all(self, connection: Connection) -> Sequence[Any]:
        """The rows of all plugins, by ident."""
        return connection.execute(select(tables.plugin).order_by(tables.plugin.c.ident)).all()

    def in_lane(self, connection: Connection, number: int) -> Sequence[Any]:
        """The rows of the plugins in a lane."""
        mine = tables.plugin.c.lane == number
        return connection.execute(select(tables.plugin).where(mine)).all()

    def has_members(self, connection: Connection, lane: Lane) -> bool:
        """Whether a lane has plugins that are installed."""
        row = tables.plugin.c
        query = select(row.ident).where(row.lane == lane.id, row.state != GONE).limit(1)
        return connection.execute(query).first() is not None

    def has_others(self, connection: Connection, lane: Lane, idents: Iterable[str]) -> bool:
        """Whether plugins other than ``idents`` are in a lane; True for the permanent ones."""
        if lane.name in (MAIN, ORDERED):
            return True
        return bool({row.ident for row in self.in_lane(connection, lane.id)} - set(idents))

    def add(self, connection: Connection, ident: str, **values: Any) -> None:
        """Add the row of a new plugin."""
        connection.execute(tables.plugin.insert().values(ident=ident, missed=0, **values))
        self._lanes.touch(connection)

    def update(self, connection: Connection, ident: str, **values: Any) -> None:
        """Change columns of the row of a plugin."""
        row = tables.plugin
        connection.execute(update(row).where(row.c.ident == ident).values(values))
        if values.keys() & _CONCERN_OTHERS:
            self._lanes.touch(connection)

    def add_missed(self, connection: Connection, idents: Iterable[str], missed: int) -> None:
        """Note how many messages these have missed that no archive can return."""
        row = tables.plugin.c
        mine = update(tables.plugin).where(row.ident.in_(idents))
        connection.execute(mine.values(missed=row.missed + missed))

    def remove_lane_if_empty(self, connection: Connection, number: int | None) -> None:
        """Remove a lane that no plugin is in any more, unless it is a permanent one."""
        row = tables.plugin.c
        is_used = connection.scalar(
            select(func.count()).select_from(tables.plugin).where(row.lane == number)
        )
        for lane in self._lanes.all(connection):
            if lane.id == number and not is_used and lane.name not in (MAIN, ORDERED):
                self._lanes.remove(connection, lane)


def read_plugins(connection: Connection, idents: Iterable[str] | None = None) -> dict[str, Any]:
    """The rows of these plugins (default: all), by ident; a connection that only reads will do."""
    query = select(tables.plugin).order_by(tables.plugin.c.ident)
    if idents is not None:
        query = query.where(tables.plugin.c.ident.in_(list(idents)))
    return {row.ident: row for row in connection.execute(query)}


def home_name(dataset: Dataset) -> str:
    """The name of the home of a plugin: the lane in which it is when it has caught up."""
    return ORDERED if dataset.declaration is None else MAIN
