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

from sqlalchemy import DateTime, Float

from statscache.app.dispatch.route import Answer, Call, Table
from statscache.app.http import formats
from statscache.app.http.problems import Problem
from statscache.app.state.row_reader import RowReader, Span
from statscache.plugins.models import plain

FEWEST_AT_A_TIME = 3
"""Downloads that a process always lets run: what one page may want at once."""

MOST_AT_A_TIME = 10
"""However many threads there are: each takes one of the fifteen connections to the database."""

RETRY_AFTER = 30

Write = Callable[[Sequence[Any], bool], bytes]
"""Rows as they are sent; and whether they are the first ones, before which a header stands."""


class Exports:
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

    def answer(self, call: Call, reader: RowReader, span: Span) -> Answer:
        """The rows of ``span`` that ``call`` asks for, in the format ``csv`` or ``ndjson``.

        Raises:
            Problem: a 429, because as many are sent piece by piece as may be.
        """
        chunks = _chunks(call, reader, span)
        first = next(chunks)
        second = next(chunks, None)
        if second is None:
            return Answer(body=first)
        return Answer(chunks=self._begin(chain((first, second), chunks)))

    def _begin(self, chunks: Iterator[bytes]) -> Export:
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
        return Export(chunks, self._end)

    def _end(self) -> None:
        with self._lock:
            self._running -= 1


class Export:
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
        """Let another one begin."""
        with self._lock:
            was_over, self._is_over = self._is_over, True
        if not was_over:
            self._release()


def _chunks(call: Call, reader: RowReader, span: Span) -> Iterator[bytes]:
    """The body, a portion of rows in each; the first one is there even if there are no rows."""
    write, is_first = _writer(call, reader), True
    for portion in _portions(call, reader, span):
        yield write(portion, is_first)
        is_first = False
    if is_first:
        yield write((), is_first)


def _portions(call: Call, reader: RowReader, span: Span) -> Iterable[Sequence[Any]]:
    if not reader.exists(call):
        return ()
    return reader.portions(call, span, instances=_is_own(call, reader))


def _is_own(call: Call, reader: RowReader) -> bool:
    """Whether the author of the plugin writes the rows."""
    return call.format == "csv" and reader.writes_csv


def _writer(call: Call, reader: RowReader) -> Write:
    if _is_own(call, reader):
        return _Own(call.dataset.model.to_csv)
    names = call.values["select"] or list(reader.columns)
    tidy = _tidier([reader.columns[name].type for name in names])
    return partial(_csv if call.format == "csv" else _ndjson, call, names, tidy)


def _csv(call: Call, names: Sequence[str], tidy: Any, rows: Sequence[Any], is_first: bool) -> bytes:
    return formats.csv_text(Table(names, tidy(rows)), call, header=is_first).encode()


def _ndjson(
    _call: Call, names: Sequence[str], tidy: Any, rows: Sequence[Any], _is_first: bool
) -> bytes:
    return formats.ndjson(Table(names, tidy(rows)))


class _Own:
    """The CSV of an author, who writes some rows at a time: with a header, which is that of none.

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


def _tidier(types: Sequence[Any]) -> Callable[[Sequence[Any]], Sequence[Sequence[Any]]]:
    """Makes values plain, where a type needs it."""
    if not any(isinstance(type_, DateTime | Float) for type_ in types):
        return lambda rows: rows
    return lambda rows: [[plain(value) for value in row] for row in rows]
