"""Lanes of classic plugins: what was written without its history is taken back."""

from __future__ import annotations

from statscache.counting.classic.live_buffer import LiveBuffer
from statscache.counting.classic.rewind import revert, rewound_start
from statscache.counting.lanes import checkpoints
from statscache.counting.lanes.checksums import checksum_window
from statscache.counting.lanes.lane import Lane, read_lane
from statscache.counting.membership import replayed
from statscache.counting.membership.quarantine import Quarantine
from statscache.counting.membership.rejections import forget
from statscache.counting.transactions import Transactions
from statscache.isolation.lost_connections import LostConnections
from statscache.message import TIMESTAMP_TOLERANCE


class ClassicLanes:
    """The lanes of classic plugins.

    Args:
        transactions: of the engine.
        quarantine: of plugins that cannot take back their rows.
        buffer: what waits for their history.
        lost_connections: in whose turns the connection was lost.
    """

    def __init__(
        self,
        transactions: Transactions,
        quarantine: Quarantine,
        buffer: LiveBuffer,
        lost_connections: LostConnections,
    ) -> None:
        self._transactions = transactions
        self._quarantine = quarantine
        self._buffer = buffer
        self._lost_connections = lost_connections

    def waiting(self) -> list[int]:
        """The numbers of the lanes whose plugins get no live messages yet."""
        return [
            number
            for number, plugins in self._transactions.lane_plugins.items()
            if plugins.runners and not self._buffer.is_released(number)
        ]

    def rewind(self, number: int) -> None:
        """Take back what classic plugins of a lane wrote without their history."""
        with self._transactions.begin(alone=True) as connection:
            lane = read_lane(connection, number)
            plugins = self._transactions.lane_plugins[number]
            assert lane is not None
            assert lane.watermark is not None
            first = lane.history_start or 0.0
            start = rewound_start(
                plugins.runners, lane.watermark, first, lambda moment: _whole(lane, moment)
            )
            for runner, since in zip(plugins.runners, plugins.history_starts, strict=True):
                begin = max(start, since or 0.0)
                failure = revert(connection, runner, begin, self._lost_connections)
                if failure is None:
                    forget(connection, runner.ident, begin)
                else:
                    self._quarantine.isolate(connection, lane, (runner.ident,), failure, ())
            idents = [runner.ident for runner in plugins.runners]
            self._transactions.note_changes(connection, idents)
            checkpoints.rewind(connection, lane, start)
            replayed.forget(connection, plugins.idents, start)
        self._buffer.hold_back(number)


def _whole(lane: Lane, moment: float) -> float:
    """A time at or before another one, from which on a lane can be set back."""
    pruned_until = lane.claims_pruned_until
    if pruned_until is not None and moment < pruned_until + TIMESTAMP_TOLERANCE:
        return float(checksum_window(moment))
    return moment
