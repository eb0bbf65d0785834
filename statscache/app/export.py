"""All the rows of a dataset, sent piece by piece: any number of them in the memory of a few."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from sqlalchemy import DateTime, Float

from statscache.app import formats
from statscache.app.problems import Problem
from statscache.app.reader import RowReader
from statscache.app.route import Call, Table
from statscache.plugins.models import plain

MOST_AT_A_TIME = 2
"""Exports in one process: each takes a thread, and a transaction that lasts."""

LONGEST_SECONDS = 600.0
"""After which an export is broken off: its transaction keeps the database from tidying up."""

RETRY_AFTER = 30


class Exports:
    """All that are under way in one process."""

    def __init__(self) -> None:
        self._turns = threading.BoundedSemaphore(MOST_AT_A_TIME)

    def begin(self, call: Call, reader: RowReader) -> Export:
        """The rows that ``call`` asks for, in the format ``csv`` or ``ndjson``.

        Raises:
            Problem: a 429, because there are as many exports as there may be.
        """
        if not self._turns.acquire(blocking=False):
            raise Problem(
                429,
                f"{MOST_AT_A_TIME} exports are under way, and no more may be: try again in a "
                "moment, or fetch pages",
                parameter="rows_per_page",
                headers={"Retry-After": str(RETRY_AFTER)},
            )
        return Export(_chunks(call, reader), self._turns.release)


class Export:
    """The chunks of one export; :meth:`close` ends it, whether it has begun or not.

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


def _chunks(call: Call, reader: RowReader) -> Iterator[bytes]:
    names = call.values["select"] or list(reader.columns)
    write = partial(_csv, call) if call.format == "csv" else formats.ndjson
    if call.format == "csv":
        yield formats.csv_text(Table(names, ()), call).encode()
    if not reader.exists(call):
        return
    tidy = _tidier([reader.columns[name].type for name in names])
    until = time.monotonic() + LONGEST_SECONDS
    for portion in reader.portions(call, call.values["limit"]):
        if time.monotonic() > until:
            # The client sees that the end is missing.
            raise TimeoutError(f"an export took longer than {LONGEST_SECONDS:g} seconds")
        yield write(Table(names, tidy(portion)))


def _csv(call: Call, table: Table) -> bytes:
    return formats.csv_text(table, call, header=False).encode()


def _tidier(types: Sequence[Any]) -> Callable[[Sequence[Any]], Sequence[Sequence[Any]]]:
    """Makes values plain, where a type needs it."""
    if not any(isinstance(type_, DateTime | Float) for type_ in types):
        return lambda rows: rows
    return lambda rows: [[plain(value) for value in row] for row in rows]
