"""Connections of waitress, the server of ``statscache serve``, as this API needs them."""

from __future__ import annotations

import math
import time
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from statscache.app.client import SEND_UNTIL


class Task(WSGITask):
    """A request that may say by when its answer must have been sent."""

    def get_environment(self) -> dict[str, Any]:
        """The WSGI environment."""
        environ: dict[str, Any] = super().get_environment()
        assert isinstance(self.channel, Channel)
        environ[SEND_UNTIL] = self.channel.send_until
        return environ


class Channel(HTTPChannel):
    """A connection that is closed when a client has not read its answer in time.

    The thread that is writing it, and waits for the client, then ends, and so does its transaction.
    """

    task_class = Task
    _until = math.inf

    def send_until(self, at: float) -> None:
        """Close the connection at this time, by :func:`time.monotonic`, if there is still more."""
        self._until = at

    def readable(self) -> bool:
        """Called by the thread of the server, at least once a second."""
        if self.requests or self.total_outbufs_len:
            if time.monotonic() >= self._until:
                self.logger.warning("a client took longer to read an answer than it may")
                self.handle_close()
        else:
            self._until = math.inf
        return self.connected and bool(super().readable())

    def writable(self) -> bool:
        """Called by the thread of the server, after :meth:`readable`."""
        return self.connected and bool(super().writable())

    def send_continue(self) -> None:
        """Ask for the body of a request that waits to be asked, if it has one."""
        request = self.request
        if request is not None and request.completed and request.body_rcv is None:
            request.expect_continue = False
        else:
            super().send_continue()
