"""An archive that is files of messages, in any order."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from statscache.archive.base import Archive, Slice, Window, distinct
from statscache.archive.lines import files_in, lines, opened
from statscache.archive.rows import message_of
from statscache.errors import InvalidMessage
from statscache.rejections import Rejection
from statscache.topics import EVERYTHING, matcher

_AT_ONCE = 10_000


class FileArchive(Archive):
    """Files, and folders of files, of JSON lines: plain, gzipped, or compressed with zstandard.

    Before the first answer everything is copied once into a scratch file that is ordered by time,
    so the lines may be in any order and memory stays bounded. Processes on one machine share it.

    A line that is no message is given as ``rejected`` of whichever slice is fetched first.
    """

    target = 5_000

    def __init__(self, paths: tuple[str, ...] | list[str]) -> None:
        self._files = files_in(paths)
        self._begin()

    def _begin(self) -> None:
        self._scratch: str | None = None
        self._owner = os.getpid()
        self._filling = threading.Lock()
        self._local = threading.local()
        self._rejected: list[Rejection] = []

    def __getstate__(self) -> dict[str, Any]:
        # Whoever takes it up on this machine uses the same scratch file.
        return {"files": self._files, "scratch": self._index()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._files = state["files"]
        self._begin()
        self._owner = -1
        if Path(state["scratch"]).exists():
            self._scratch = state["scratch"]
        else:
            self._owner = os.getpid()

    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        """All that the files have of ``window``."""
        wanted = matcher(topics)
        found = []
        window = self._bounded(window)
        for (line,) in self._connection().execute(
            "SELECT line FROM message WHERE timestamp >= ? AND timestamp < ?",
            (window.start, window.stop),
        ):
            message = message_of(orjson.loads(line))
            if wanted(message.topic):
                found.append(message)
        rejected, self._rejected = self._rejected, []
        return Slice(window, distinct(found), rejected)

    def _bounded(self, window: Window) -> Window:
        """The beginning of ``window`` that holds about two targets of messages at most."""
        row = self._connection().execute(
            "SELECT timestamp FROM message WHERE timestamp >= ? AND timestamp < ?"
            " ORDER BY timestamp LIMIT 1 OFFSET ?",
            (window.start, window.stop, 2 * self.target),
        )
        found = row.fetchone()
        if found is None:
            return window
        # Whole seconds: copies of a message that differ by fractions stay together.
        return Window(window.start, min(window.stop, float(int(found[0])) + 1))

    def bounds(self) -> tuple[float, float] | None:
        """The times of the oldest and the newest message; None when there is none."""
        row = self._connection().execute("SELECT min(timestamp), max(timestamp) FROM message")
        oldest, newest = row.fetchone()
        return None if oldest is None else (oldest, newest)

    def describe(self) -> str:
        """How many files, and the first."""
        count = len(self._files)
        return f"{count} file{'' if count == 1 else 's'}" + (
            f" ({self._files[0]}, ...)" if count > 1 else f" ({', '.join(self._files)})"
        )

    def close(self) -> None:
        """Delete the scratch file, if it is ours."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local = threading.local()
        if self._scratch is not None and self._owner == os.getpid():
            with contextlib.suppress(FileNotFoundError):
                Path(self._scratch).unlink()
        self._scratch = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _connection(self) -> sqlite3.Connection:
        """One for each thread."""
        index = self._index()
        if getattr(self._local, "index", None) != index:
            self._local.connection = sqlite3.connect(f"file:{index}?mode=ro", uri=True)
            self._local.index = index
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _index(self) -> str:
        with self._filling:
            if self._scratch is None:
                self._scratch = self._fill()
            return self._scratch

    def _fill(self) -> str:
        descriptor, path = tempfile.mkstemp(prefix="statscache-archive-", suffix=".db")
        os.close(descriptor)
        with contextlib.closing(sqlite3.connect(path)) as scratch:
            scratch.execute("PRAGMA journal_mode = OFF")
            scratch.execute("PRAGMA synchronous = OFF")
            scratch.execute("CREATE TABLE message (timestamp REAL, line BLOB)")
            rows = self._rows()
            while some := list(islice(rows, _AT_ONCE)):
                scratch.executemany("INSERT INTO message VALUES (?, ?)", some)
            scratch.execute("CREATE INDEX by_time ON message (timestamp)")
            scratch.commit()
        return path

    def _rows(self) -> Iterator[tuple[float, bytes]]:
        for name in self._files:
            with opened(name) as binary:
                for line in lines(binary, name):
                    try:
                        yield message_of(orjson.loads(line)).timestamp, line
                    except (orjson.JSONDecodeError, InvalidMessage) as error:
                        self._rejected.append(Rejection.of_frame(line, f"{name}: {error}"))
