"""Which plugin makes the server end the session: it is lost in its turn, twice in a row.

A plugin may make the server end the session that all share: by a statement, or because it lets the
server wait for the next one for longer than ``idle_in_transaction_session_timeout``. That looks
like a database that goes away, which is to be waited for. But a database that goes away does not
choose the turn of one plugin twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from statscache.clock import Clock
from statscache.errors import DatabaseUnavailable, PluginFault

log = logging.getLogger(__name__)


@dataclass
class _Loss:
    """The turn in which a transaction lost its connection."""

    idents: tuple[str, ...]
    size: int
    seconds: float


class LostConnections:
    """The plugins in whose turns the connection was lost last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Of each suspect, the messages that it has to come through to be trusted again.
        self._suspects: dict[tuple[str, ...], int] = {}
        self._lost: _Loss | None = None

    def begin_transaction(self) -> None:
        """Note that a transaction begins."""
        self._lost = None

    @contextmanager
    def turn(
        self, connection: Connection, idents: tuple[str, ...], size: int, seconds: float = 0.0
    ) -> Iterator[None]:
        """Around all that a plugin does with ``connection``, and the statement that follows it.

        Args:
            connection: of the transaction.
            idents: of the plugin.
            size: how many messages it gets.
            seconds: how long it has worked before.
        """
        began = self._clock.monotonic() - seconds
        try:
            yield
        finally:
            if not connection.invalidated:
                self._clear(idents, size)
            elif self._lost is None:
                self._lost = _Loss(idents, size, self._clock.monotonic() - began)

    def judge(self, error: DatabaseUnavailable) -> PluginFault | None:
        """Whose fault it is that a transaction has ended with ``error``; None: the database's."""
        if self._lost is None:
            return None
        lost = self._lost
        # It remains a suspect until a turn of it ends well, so that the next loss quarantines it.
        is_suspected = lost.idents in self._suspects
        self._suspects[lost.idents] = lost.size
        if is_suspected:
            return PluginFault(
                "the connection to the database was lost in its turn, twice in a row, now after "
                f"{lost.seconds:.0f} s ({error}): it ends the session by a statement, or takes "
                "longer than idle_in_transaction_session_timeout of the server",
                lost.idents,
                lost.seconds,
            )
        log.warning(
            "the connection to the database was lost in the turn of %s, after %.0f s: "
            "if it is lost there again, the plugin is quarantined",
            ", ".join(lost.idents),
            lost.seconds,
        )
        return None

    def _clear(self, idents: tuple[str, ...], size: int) -> None:
        # As many messages as it got then: few may do no harm where many do, and live ones
        # come in between two tries of a slice of the archive.
        remaining = self._suspects.get(idents, 0) - max(size, 1)
        if remaining > 0:
            self._suspects[idents] = remaining
        else:
            self._suspects.pop(idents, None)
