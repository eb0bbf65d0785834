"""Connections of waitress, the server of ``statscache serve``, as this API needs them."""

from __future__ import annotations

import math
import socket
import struct
import time
from contextlib import suppress
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import WSGITask

from statscache.app.http.client import SEND_UNTIL


class Task(WSGITask):
    """A request that may say by when its answer must have been sent, and may fail in its midst."""

    def get_environment(self) -> dict[str, Any]:
        """The WSGI environment."""
        environ: dict[str, Any] = super().get_environment()
        assert isinstance(self.channel, Channel)
        environ[SEND_UNTIL] = self.channel.send_until
        return environ

    def execute(self) -> None:
        """Answer it."""
        try:
            super().execute()
        except Exception:
            if self.wrote_header:
                assert isinstance(self.channel, Channel)
                self.channel.is_broken = True
            raise


class Parser(HTTPRequestParser):
    """A request; whatever is wrong with its address is a 400."""

    def parse_header(self, header_plus: bytes) -> None:
        """Called when all of the header is there.

        Raises:
            ParsingError: it is no HTTP, or its address is none.
        """
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise ParsingError(f"Bad URI: {error}") from error


class Channel(HTTPChannel):
    """A connection that is broken when a client has not read its answer in time.

    The thread that is writing it, and waits for the client, then ends, and so does its transaction.

    Attributes:
        is_broken: whether the answer has no end, which its client must not take for one.
    """

    task_class = Task
    parser_class = Parser
    _until = math.inf
    is_broken = False

    def send_until(self, at: float) -> None:
        """Close the connection at this time, by :func:`time.monotonic`, if there is still more."""
        self._until = at

    def readable(self) -> bool:
        """Called by the thread of the server, at least once a second."""
        if self.requests or self.total_outbufs_len:
            if time.monotonic() >= self._until:
                self.logger.warning("a client took longer to read an answer than it may")
                self.is_broken = True
                self.handle_close()
        else:
            self._until = math.inf
        return self.connected and bool(super().readable())

    def writable(self) -> bool:
        """Called by the thread of the server, after :meth:`readable`."""
        return self.connected and bool(super().writable())

    def handle_close(self) -> None:
        """Called by the thread of the server."""
        if self.is_broken and self.socket is not None:
            with suppress(OSError):
                # Reset: in HTTP/1.0 a connection that is closed is the end of the answer.
                linger = struct.pack("ii", 1, 0)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        super().handle_close()

    def send_continue(self) -> None:
        """Ask for the body of a request that waits to be asked, if it has one."""
        request = self.request
        if request is not None and request.completed and request.body_rcv is None:
            request.expect_continue = False
        else:
            super().send_continue()
