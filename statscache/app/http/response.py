"""What is sent: status, headers and body."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from werkzeug.http import parse_etags

from statscache.app.http import formats, parameters
from statscache.app.http.answer import Lifetime, Links
from statscache.app.http.client import Client
from statscache.app.http.request import Request
from statscache.app.state.revisions import Revision
from statscache.app.state.transaction import ReadTransaction
from statscache.errors import RequestTimeout

Headers = list[tuple[str, str]]

RECONCILED_SECONDS = 3_600
STATIC_SECONDS = 300
LONGEST_OPEN_SECONDS = 60
SHARES_OF_A_STEP = 12
"""An open range is kept for a twelfth of a step: five seconds for buckets of a minute."""

EXPOSED = (
    "ETag, Link, X-Link-Number, X-Link-Count, X-Maximum-Rows-Per-Page, X-Has-More, Retry-After"
)
"""The headers that pages of other origins may read."""

COMMON_HEADERS = (
    ("Vary", "Accept, Accept-Encoding"),
    # Pages of any origin may read everything: it is public, and nothing can be changed.
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", EXPOSED),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True)
class AwaitedChange:
    """What a client may be kept waiting for: a newer revision of ``ident`` than ``known``."""

    ident: str
    known: Revision
    seconds: int


@dataclass(frozen=True)
class Response:
    """What is sent at once, unless the client waits for a change instead."""

    status: int
    headers: Headers
    body: bytes
    awaited: AwaitedChange | None = None


class BodyStream:
    """The pieces of a body; :meth:`close` ends the transaction that they are read in.

    Args:
        chunks: to be sent.
        transaction: that they are read in.
        compressed: whether they are to be.
        until: when all of them must have been sent, by :func:`time.monotonic`; infinite for what
            has no end.
        patience: seconds in which a client must have read each of them.
        client: that they are sent to.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        transaction: ReadTransaction,
        *,
        compressed: bool,
        until: float,
        patience: float,
        client: Client,
    ) -> None:
        self._source = chunks
        self._until = until
        self._patience = patience
        self._client = client
        timed = self._in_time()
        self._chunks = _compressed(timed) if compressed else timed
        self._transaction = transaction

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks
        finally:
            self.close()

    def _in_time(self) -> Iterator[bytes]:
        for chunk in self._source:
            self._client.send_until(min(self._until, time.monotonic() + self._patience))
            yield chunk
            if time.monotonic() >= self._until:
                raise RequestTimeout("a download took longer than a request may: it is cut off")

    def close(self) -> None:
        """End it; the server calls this too, when it finds that the client is gone."""
        if time.monotonic() >= self._until:
            self._client.send_until(self._until)
        try:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
        finally:
            self._transaction.close()


@dataclass(frozen=True)
class StreamResponse:
    """What is sent piece by piece."""

    status: int
    headers: Headers
    body: BodyStream


def cache_control(lifetime: Lifetime, width: float, *, is_relative: bool) -> str:
    """How long others may keep an answer.

    Args:
        width: of the step that the present is in, seconds.
        is_relative: whether a time of the query is.
    """
    if lifetime is Lifetime.NONE:
        return "no-store"
    if lifetime is Lifetime.STATIC:
        seconds: float = STATIC_SECONDS
    elif lifetime is Lifetime.RECONCILED:
        # A range that moves with the present is another one in the next step.
        seconds = min(RECONCILED_SECONDS, width) if is_relative else RECONCILED_SECONDS
    else:
        seconds = min(LONGEST_OPEN_SECONDS, max(1, width // SHARES_OF_A_STEP))
    return f"public, max-age={int(seconds)}"


def matches(if_none_match: str, etag: str) -> bool:
    """Whether an ``If-None-Match`` names ``etag``."""
    if if_none_match == etag:
        return True
    # A proxy that compresses an answer makes its tag weak.
    return parse_etags(if_none_match).contains_weak(etag.strip('"'))


def link_header(request: Request, links: Links) -> str:
    """The header ``Link``: absolute addresses, with the other parameters of ``request`` kept."""
    given = [pair for pair in parameters.split(request.query) if pair[0] != "_"]
    texts = []
    for relation, changes in links:
        changed = dict(changes)
        pairs = [pair for pair in given if pair[0] not in changed]
        pairs += [(name, text) for name, text in changed.items() if text is not None]
        texts.append(f'<{request.address}?{urlencode(pairs)}>; rel="{relation}"')
    return ", ".join(texts)


def _compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    gzip_format = 16 + zlib.MAX_WBITS
    compressor = zlib.compressobj(formats.COMPRESSION_LEVEL, zlib.DEFLATED, gzip_format)
    for chunk in chunks:
        smaller = compressor.compress(chunk)
        if smaller:
            yield smaller
    yield compressor.flush()
