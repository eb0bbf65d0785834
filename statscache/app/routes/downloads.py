"""Downloads: all the rows that are asked for, any number of them in the memory of a few.

Few rows are an answer like any other, which is kept. Many are sent piece by piece, as they are
read: such a download takes a thread and a connection until its end, so few run at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from statscache.app.dispatch.route import Call
from statscache.app.http import formats
from statscache.app.http.answer import Answer, Table
from statscache.app.http.problems import Problem
from statscache.app.state import served_values
from statscache.app.state.row_reader import Span

FEWEST_AT_A_TIME = 3
"""Downloads that a process always lets run: what one page may want at once."""

MOST_AT_A_TIME = 10
"""Whatever the number of threads: each takes one of the fifteen connections to the database."""

RETRY_AFTER = 30

Write = Callable[[Sequence[Any], bool], bytes]
"""Rows as they are sent; and whether they are the first ones, before which a header stands."""


class Downloads:
    """All downloads that are under way in one process.

    Attributes:
        maximum: how many there may be.
    """

    def __init__(self) -> None:
        self.maximum = FEWEST_AT_A_TIME
        self._running = 0
        self._lock = threading.Lock()

    def leave_threads(self, threads: int | None) -> None:
        """Let downloads have three eighths of the threads of the server; None: they take none.

        Listeners have half of them, so that an eighth is left for all others. Where there are
        fewer than eight threads, others may have to wait until a download ends.
        """
        share = MOST_AT_A_TIME if threads is None else threads * 3 // 8
        self.maximum = min(max(FEWEST_AT_A_TIME, share), MOST_AT_A_TIME)

    def answer(self, call: Call, span: Span) -> Answer:
        """The rows of ``span`` that ``call`` asks for, in the format ``csv`` or ``ndjson``.

        Raises:
            Problem: a 429, because as many are sent piece by piece as may be.
        """
        chunks = _chunks(call, span)
        first = next(chunks)
        second = next(chunks, None)
        if second is None:
            return Answer(body=first)
        return Answer(chunks=self._start(chain((first, second), chunks)))

    def _start(self, chunks: Iterator[bytes]) -> Download:
        with self._lock:
            if self._running >= self.maximum:
                raise Problem(
                    429,
                    f"{self.maximum} large downloads are under way, which is the most of a server "
                    "with so many threads: try again in a moment, or fetch pages",
                    parameter="rows_per_page",
                    headers={"Retry-After": str(RETRY_AFTER)},
                )
            self._running += 1
        return Download(chunks, self._end)

    def _end(self) -> None:
        with self._lock:
            self._running -= 1


class Download:
    """The chunks of one download; :meth:`close` ends it, whether it has begun or not.

    Args:
        chunks: to be sent.
        release: called once, at the end.
    """

    def __init__(self, chunks: Iterator[bytes], release: Callable[[], None]) -> None:
        self._chunks = chunks
        self._release = release
        self._lock = threading.Lock()
        self._is_over = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        """Make room for another one."""
        with self._lock:
            was_over, self._is_over = self._is_over, True
        if not was_over:
            self._release()


def _chunks(call: Call, span: Span) -> Iterator[bytes]:
    """The body, a portion of rows in each; the first one is there even if there are no rows."""
    write, is_first = _writer(call), True
    for portion in _portions(call, span):
        yield write(portion, is_first)
        is_first = False
    if is_first:
        yield write((), is_first)


def _portions(call: Call, span: Span) -> Iterable[Sequence[Any]]:
    reader = call.reader
    if not reader.exists(call.transaction):
        return ()
    return reader.portions(call.transaction, call.row_query, span, instances=_is_own(call))


def _is_own(call: Call) -> bool:
    """Whether the author of the plugin writes the rows."""
    return call.format == "csv" and call.reader.writes_csv


def _writer(call: Call) -> Write:
    if _is_own(call):
        return _Own(call.dataset.model.to_csv)
    reader = call.reader
    names = call.values["select"] or list(reader.columns)
    types = [reader.columns[name].type for name in names]
    is_csv = call.format == "csv"
    tidy = served_values.writer(call.dataset, names, types, as_text=is_csv)
    return partial(_csv if is_csv else _ndjson, call, names, tidy)


def _csv(call: Call, names: Sequence[str], tidy: Any, rows: Sequence[Any], is_first: bool) -> bytes:
    return formats.csv_text(Table(names, tidy(rows)), call.values["csv"], header=is_first).encode()


def _ndjson(
    _call: Call, names: Sequence[str], tidy: Any, rows: Sequence[Any], _is_first: bool
) -> bytes:
    return formats.ndjson(Table(names, tidy(rows)))


class _Own:
    """The CSV of a model's own ``to_csv``, called for some rows at a time: one header for all.

    Args:
        to_csv: of the model.
    """

    def __init__(self, to_csv: Callable[[Sequence[Any]], str]) -> None:
        self._to_csv = to_csv
        self._header = to_csv(())
        self._ended = True

    def __call__(self, rows: Sequence[Any], is_first: bool) -> bytes:
        text = self._to_csv(rows)
        if not is_first:
            text = text.removeprefix(self._header)
        if not self._ended and not text.startswith(("\r", "\n")):
            text = f"\r\n{text}"
        self._ended = text.endswith("\n")
        return text.encode()
