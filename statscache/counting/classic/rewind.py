"""Revert what classic plugins wrote without their history."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from statscache.counting.classic.runner import ClassicRunner
from statscache.errors import described
from statscache.isolation.blame import blames_plugin
from statscache.isolation.lost_connections import LostConnections

log = logging.getLogger(__name__)


def rewound_start(
    runners: Sequence[ClassicRunner], start: float, first: float, whole: Callable[[float], float]
) -> float:
    """The latest time, not after ``start``, from which all of them can begin again, or ``first``.

    All times are UNIX seconds.

    Args:
        whole: from a time to one at or before it, from which on the lane can be set back.
    """
    while start > first:
        # Until all of them agree: a window of one may begin inside that of another.
        earlier = whole(min(runner.window_start(start) for runner in runners))
        if earlier == start:
            return start
        start = earlier
    return first


def revert(
    connection: Connection, runner: ClassicRunner, first: float, lost_connections: LostConnections
) -> str | None:
    """Let a plugin revert its rows from ``first`` on; returns why it cannot, or None.

    Raises:
        PluginFault: it spoilt the transaction.
    """
    try:
        with lost_connections.turn(connection, (runner.ident,), 0), connection.begin_nested():
            runner.revert(connection, first)
    except BaseException as error:
        if not blames_plugin(error):
            raise
        log.exception("%s cannot take back its rows: they stay", runner.ident)
        return described(error)
    return None
