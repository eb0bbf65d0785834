"""Joining: merge a lane into its home when both have counted the same messages."""

from __future__ import annotations

import logging

from statscache.counting.classic.live_buffer import LiveBuffer
from statscache.counting.lanes.lane import read_lanes
from statscache.counting.lanes.lanes import Lanes
from statscache.counting.membership.membership import Membership
from statscache.counting.membership.plugin_rows import PluginRows
from statscache.counting.membership.shadows import Shadows
from statscache.counting.retry import Retry
from statscache.counting.transactions import Transactions

log = logging.getLogger(__name__)


class Joining:
    """Lets lanes join those that they are meant for.

    Args:
        transactions: of the engine.
        lanes: which lanes there are.
        membership: which plugins are in which lane.
        plugin_rows: of all plugins, in the database.
        shadows: which take the places of served tables.
        buffer: what waits for the history of classic plugins.
        retry: counts rejections that block shadows.
    """

    def __init__(
        self,
        transactions: Transactions,
        lanes: Lanes,
        membership: Membership,
        plugin_rows: PluginRows,
        shadows: Shadows,
        buffer: LiveBuffer,
        retry: Retry,
    ) -> None:
        self._transactions = transactions
        self._lanes = lanes
        self._membership = membership
        self._plugin_rows = plugin_rows
        self._shadows = shadows
        self._buffer = buffer
        self._retry = retry

    def join(self, number: int) -> list[str]:
        """Let a lane join; returns the idents that have. See :meth:`Engine.join`."""
        self._retry.retry_blocked(number)
        with self._transactions.begin(alone=True) as connection:
            lanes = {lane.id: lane for lane in read_lanes(connection)}
            lane, plugins = lanes.get(number), self._transactions.lane_plugins.get(number)
            if lane is None or plugins is None or lane.joins is None or lane.has_failed:
                return []
            home = next((other for other in lanes.values() if other.name == lane.joins), None)
            if home is None:
                return []
            if self._plugin_rows.has_members(connection, home):
                may_lack = self._shadows.is_forced(connection, lane)
                if not self._lanes.can_join(connection, lane, home, may_lack=may_lack):
                    return []
            elif not self._lanes.can_replace(connection, lane, home):
                return []
            blocked = self._shadows.block(connection, lane)
            if blocked is not None and blocked.id == lane.id:
                return []
            shadows = {*plugins.idents} - {*plugins.served}
            joined = self._membership.join(connection, lane, home)
            # Only shadows bring other rows. The revisions of the other plugins stay as they are.
            self._transactions.note_changes(connection, shadows.intersection(joined))
        log.info("complete: %s", ", ".join(joined))
        self._buffer.merge(number, home.id)
        return joined

    def join_complete(self) -> list[str]:
        """Let lanes join that no archive fills in; see :meth:`Engine.join_complete`."""
        with self._transactions.begin() as connection:
            lanes = read_lanes(connection)
        apart = [lane.id for lane in lanes if lane.joins is not None and lane.watermark is None]
        return [ident for number in apart for ident in self.join(number)]
