"""The application for ASGI servers, where clients that wait take no threads.

Flask answers, in a thread of a small pool; only the waiting is done here. So one process can have
hundreds of listeners, which do not delay other requests.
"""

from __future__ import annotations

import asyncio
import io
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import flask

from statscache.app.http.client import DEFERRED, SEND_UNTIL
from statscache.app.live.event_stream import HEARTBEAT, EventStream
from statscache.app.live.listeners import Listener
from statscache.app.live.long_poll import LongPoll
from statscache.errors import RequestTimeout

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

THREADS = 8
"""Requests that are answered at a time."""


class AsgiApplication:
    """An ASGI application around ``app``.

    Args:
        app: made by :func:`statscache.app.create_app`.
        threads: requests that are answered at a time.
        prefix: the path under which a proxy shows it, whether the proxy passes that on or not.
    """

    def __init__(self, app: flask.Flask, threads: int = THREADS, prefix: str = "") -> None:
        self._app = app
        self._prefix = prefix
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="statscache")
        self.service = app.extensions["statscache"]
        self.service.runs_in(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            # There are no websockets here: the server closes the connection.
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._prefix:
            scope["root_path"] = self._prefix
        gone = asyncio.ensure_future(_gone(receive))
        try:
            answer = await self._ask(scope)
            if isinstance(answer.deferred, LongPoll):
                await self._in_thread(answer.finish)
                await _wait_for_change(answer.deferred, gone)
                answer = await self._ask(scope, answer.deferred)
            try:
                await answer.send(send, answer.start)
                if isinstance(answer.deferred, EventStream) and scope["method"] != "HEAD":
                    await _stream(answer.deferred, self._patient(send), gone)
                elif not answer.is_whole:
                    while (chunk := await self._in_thread(answer.read)) and not gone.done():
                        event = {"type": "http.response.body", "body": chunk, "more_body": True}
                        await answer.send(send, event)
                await answer.send(send, {"type": "http.response.body", "body": answer.whole})
            finally:
                if not answer.is_whole:
                    await self._in_thread(answer.finish)
        finally:
            gone.cancel()

    def _patient(self, send: Send) -> Send:
        """``send`` for events: with a limit of time for each of them."""

        async def send_in_time(event: Event) -> None:
            await _in_time(send, event, self.service.patience)

        return send_in_time

    async def _ask(self, scope: Scope, waited: LongPoll | None = None) -> _Response:
        asking = self._in_thread(_Response, self._app, scope, waited)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            # Nothing else would close the answer.
            asking.add_done_callback(_finish)
            raise

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


class _Response:
    """The response of the WSGI application.

    Args:
        app: the WSGI application.
        scope: the request.
        waited: the long poll that is over, when the request is made again.

    Attributes:
        start: the first event.
        deferred: what the rest has to wait for.
        whole: the body, if it is there as a whole.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], scope: Scope, waited: LongPoll | None = None
    ) -> None:
        self.start: dict[str, Any] = {"type": "http.response.start"}
        deferred: list[Any] = [] if waited is None else [waited]
        self._until = math.inf
        more = {DEFERRED: deferred, SEND_UNTIL: self._send_until}
        self._body = app(environ_of(scope) | more, self._start)
        self._chunks = iter(self._body)
        self.deferred = deferred[0] if deferred and waited is None else None
        self.is_whole = any(name == b"content-length" for name, _ in self.start["headers"])
        self.whole = b""
        if self.is_whole:
            try:
                self.whole = b"".join(self._chunks)
            finally:
                self.finish()

    def _start(self, status: str, headers: Iterable[tuple[str, str]], *_: Any) -> None:
        self.start["status"] = int(status.split()[0])
        self.start["headers"] = [
            (name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers
        ]

    def _send_until(self, at: float) -> None:
        self._until = at

    async def send(self, send: Send, event: Event) -> None:
        """Send an event while there is time, see :func:`_in_time`."""
        await _in_time(send, event, self._until - time.monotonic())

    def read(self) -> bytes:
        """The next piece of the body; nothing at the end."""
        for chunk in self._chunks:
            if chunk:
                return chunk
        return b""

    def finish(self) -> None:
        """Close the body."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


async def _in_time(send: Send, event: Event, seconds: float) -> None:
    """Send an event while there is time.

    Raises:
        RequestTimeout: there is none: the server closes the connection.
    """
    try:
        async with asyncio.timeout(seconds if seconds < math.inf else None):
            await send(event)
    except TimeoutError:
        raise RequestTimeout("a client took longer to read an answer than it may") from None


def _finish(asking: asyncio.Future[_Response]) -> None:
    if not asking.cancelled() and asking.exception() is None:
        asking.result().finish()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def _gone(receive: Receive) -> None:
    """Ends when the client hangs up; bodies of requests are of no interest."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stream(stream: EventStream, send: Send, gone: asyncio.Future[None]) -> None:
    loop = asyncio.get_running_loop()
    alarm = _Alarm(stream.listener, gone)
    beat_at = loop.time() + stream.heartbeat
    while not gone.done() and not stream.listener.is_over:
        events = stream.take()
        if not events and loop.time() >= beat_at:
            events = HEARTBEAT
        if events:
            # With a slow client this takes long; all changes meanwhile become one event.
            await send({"type": "http.response.body", "body": events, "more_body": True})
            beat_at = loop.time() + stream.heartbeat
        await alarm.sleep(beat_at - loop.time())


async def _wait_for_change(poll: LongPoll, gone: asyncio.Future[None]) -> None:
    alarm = _Alarm(poll.listener, gone)
    with poll.listener:
        while not gone.done() and (remaining := poll.remaining):
            await alarm.sleep(remaining)


class _Alarm:
    """Wakes a coroutine when the thread that watches wakes its listener."""

    def __init__(self, listener: Listener, gone: asyncio.Future[None]) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._gone = gone
        listener.wake = self._wake

    def _wake(self) -> None:
        # The loop may have ended.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def sleep(self, seconds: float) -> None:
        """Sleep until it is woken, the client is gone, or the time is over."""
        ringing = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait(
                (ringing, self._gone),
                timeout=max(0.0, seconds),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            ringing.cancel()
        self._event.clear()


def environ_of(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The WSGI environment of a request of ASGI."""
    root = scope.get("root_path", "")
    path = scope["path"]
    if "://" in path and not path.startswith("/"):
        # In absolute form, as proxies send it; WSGI servers parse it themselves.
        path = "/" + path.partition("://")[2].partition("/")[2]
    if root and (path == root or path.startswith(f"{root}/")):
        path = path.removeprefix(root)
    server = scope.get("server") or ("localhost", None)
    client = scope.get("client") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root.encode().decode("latin-1"),
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 80),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for raw_name, raw_text in scope["headers"]:
        if b"_" in raw_name:
            # It would be taken for the header with a hyphen.
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        text = raw_text.decode("latin-1")
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ
