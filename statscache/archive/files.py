"""An archive that is files of messages, in any order."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from statscache.archive.base import Archive, Slice, Window, distinct
from statscache.archive.lines import files_in, lines, opened
from statscache.archive.rows import message_of
from statscache.clock import SYSTEM
from statscache.errors import ArchiveUnavailable, InvalidMessage
from statscache.message import Message
from statscache.rejection import LONGEST_CONTENT, Rejection
from statscache.topics import EVERYTHING, matcher

log = logging.getLogger(__name__)

MOST_REJECTED = 1000
"""Lines of one file that are kept as rejected; the others are counted."""

_PREFIX, _SUFFIX = "statscache-archive-", ".db"
_YOUNG = 60.0
_AT_ONCE = 10_000
_UNTIMED = -1.0
_LARGE_FILES = Path("/var/tmp")  # noqa: S108
"""What the hierarchy of file systems has for them: ``/tmp`` may be memory."""


class FileArchive(Archive):
    """Files, and folders of files, of JSON lines: plain, gzipped, or compressed with zstandard.

    Before the first answer everything is copied once into a scratch file that is ordered by time,
    so the lines may be in any order and memory stays bounded. Processes on one machine share it.
    It is in the folder that the environment variable TMPDIR names, or in /var/tmp.

    A line that is not a message has the time of the message before it in its file, and is rejected
    with the window of that time.
    """

    slice_size = 5_000

    def __init__(self, paths: tuple[str, ...] | list[str]) -> None:
        self._files = files_in(paths)
        self._begin_unopened()

    def _begin_unopened(self) -> None:
        self._scratch: str | None = None
        self._origin: str | None = None
        self._discard: Callable[[], Any] = _nothing
        self._filling = threading.Lock()
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        # Other processes of this machine use the same scratch file.
        return {"files": self._files, "scratch": self._index()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._files = state["files"]
        self._begin_unopened()
        self._origin = self._scratch = state["scratch"]

    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        """Returns all that the files have of ``window``: see :meth:`Archive.fetch`."""
        wanted = matcher(topics)
        found: list[Message] = []
        rejected: list[Rejection] = []
        window = self._bounded(window)
        for line, problem in self._connection().execute(
            "SELECT line, problem FROM message WHERE timestamp >= ? AND timestamp < ?",
            (window.start, window.stop),
        ):
            if problem is not None:
                rejected.append(Rejection.of_archive(line, problem))
                continue
            message = message_of(orjson.loads(line))
            if wanted(message.topic):
                found.append(message)
        return Slice(window, distinct(found), rejected)

    def _bounded(self, window: Window) -> Window:
        """Returns the beginning of ``window`` that holds about two targets of messages at most."""
        row = self._connection().execute(
            "SELECT timestamp FROM message WHERE timestamp >= ? AND timestamp < ?"
            " ORDER BY timestamp LIMIT 1 OFFSET ?",
            (window.start, window.stop, 2 * self.slice_size),
        )
        found = row.fetchone()
        if found is None:
            return window
        # Whole seconds: copies of a message that differ by fractions stay together.
        return Window(window.start, min(window.stop, float(int(found[0])) + 1))

    def newest(self, start: float, stop: float) -> float | None:
        """Returns the time of the newest message from ``start`` to before ``stop``, or None."""
        row = self._connection().execute(
            "SELECT max(timestamp) FROM message"
            " WHERE timestamp >= ? AND timestamp < ? AND problem IS NULL",
            (start, stop),
        )
        found: float | None = row.fetchone()[0]
        return found

    def bounds(self) -> tuple[float, float] | None:
        """Returns the times of the oldest and the newest message, or None."""
        row = self._connection().execute(
            "SELECT min(timestamp), max(timestamp) FROM message WHERE timestamp >= 0"
        )
        oldest, newest = row.fetchone()
        return None if oldest is None else (oldest, newest)

    def describe(self) -> str:
        """Returns how many files there are, and the first."""
        count = len(self._files)
        return f"{count} file{'' if count == 1 else 's'}" + (
            f" ({self._files[0]}, ...)" if count > 1 else f" ({', '.join(self._files)})"
        )

    def close(self) -> None:
        """Delete the scratch file, if this process made it; so does the end of the process."""
        # Without a thread to refer to it, a connection closes itself.
        self._local = threading.local()
        self._discard()
        self._discard = _nothing
        self._scratch = None

    def _connection(self) -> sqlite3.Connection:
        """One for each thread."""
        index = self._index()
        if getattr(self._local, "index", None) != index:
            self._local.connection = sqlite3.connect(f"{Path(index).as_uri()}?mode=ro", uri=True)
            self._local.index = index
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _index(self) -> str:
        with self._filling:
            # Folders for temporary files are tidied up, and other machines have their own.
            if self._scratch is None or not Path(self._scratch).exists():
                if self._origin is not None:
                    self._scratch = _sorted_here(self._origin, self._files)
                    return self._scratch
                self._discard()
                _tidy_up()
                descriptor, path = _make()
                # While this process lives, others see that the file is not abandoned.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                self._discard = weakref.finalize(self, _discard, path, descriptor, os.getpid())
                self._fill(path)
                self._scratch = path
            return self._scratch

    def _fill(self, path: str) -> None:
        try:
            with contextlib.closing(sqlite3.connect(path)) as scratch:
                scratch.execute("PRAGMA journal_mode = OFF")
                scratch.execute("PRAGMA synchronous = OFF")
                scratch.execute("CREATE TABLE message (timestamp REAL, line BLOB, problem TEXT)")
                for name in self._files:
                    rows = _rows(name)
                    while some := list(islice(rows, _AT_ONCE)):
                        scratch.executemany("INSERT INTO message VALUES (?, ?, ?)", some)
                scratch.execute("CREATE INDEX by_time ON message (timestamp)")
                # What came before any message is told with the first of all.
                scratch.execute(
                    "UPDATE message SET timestamp = coalesce("
                    "(SELECT min(timestamp) FROM message WHERE timestamp >= 0), timestamp)"
                    " WHERE timestamp < 0"
                )
                scratch.commit()
        except sqlite3.Error as error:
            self._discard()
            raise ArchiveUnavailable(f"cannot sort the archive into {path}: {error}") from error
        except BaseException:
            self._discard()
            raise


_SORTED_HERE: dict[str, FileArchive] = {}
"""The newest archive that came from another machine, by the name of its scratch file there."""

_SORTING_HERE = threading.Lock()


def _sorted_here(origin: str, files: list[str]) -> str:
    """The scratch file of this process for an archive that comes with each task, made once."""
    with _SORTING_HERE:
        if origin not in _SORTED_HERE:
            _SORTED_HERE.clear()
            _SORTED_HERE[origin] = FileArchive(files)
        return _SORTED_HERE[origin]._index()


def _nothing() -> None:
    """There is no scratch file to discard."""


def _make() -> tuple[int, str]:
    try:
        return tempfile.mkstemp(_SUFFIX, _PREFIX, _folder())
    except OSError as error:
        raise ArchiveUnavailable(
            f"cannot make a scratch file in {_folder()}: {error.strerror}; TMPDIR names another one"
        ) from error


def _discard(path: str, descriptor: int, owner: int) -> None:
    """Delete a scratch file, unless this is a fork of the process that made it."""
    if os.getpid() == owner:
        Path(path).unlink(missing_ok=True)
        os.close(descriptor)


def _folder() -> str:
    """Where scratch files go."""
    is_usable = "TMPDIR" not in os.environ and os.access(_LARGE_FILES, os.W_OK)
    return str(_LARGE_FILES) if is_usable else tempfile.gettempdir()


def _tidy_up() -> None:
    """Delete the scratch files of processes that were killed."""
    for path in Path(_folder()).glob(f"{_PREFIX}*{_SUFFIX}"):
        # It may belong to another user, or be gone, or locked by a process that runs.
        with contextlib.suppress(OSError), path.open("rb") as binary:
            # One that has just been made is about to be locked.
            # The time of a file is by the clock of the machine, also under a test's clock.
            if SYSTEM.time() - path.stat().st_mtime > _YOUNG:
                fcntl.flock(binary, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _rows(name: str) -> Iterator[tuple[float, bytes, str | None]]:
    """The time of each line of a file, the line, and what is wrong with it."""
    timestamp = _UNTIMED
    rejected = 0
    with opened(name) as binary:
        for line in lines(binary, name):
            try:
                timestamp = message_of(orjson.loads(line)).timestamp
            except (orjson.JSONDecodeError, InvalidMessage) as error:
                rejected += 1
                if rejected <= MOST_REJECTED:
                    yield timestamp, line.strip()[:LONGEST_CONTENT], f"{name}: {error}"
            else:
                yield timestamp, line, None
    if rejected:
        log.error("%d lines of %s are no messages", rejected, name)
    if rejected > MOST_REJECTED:
        more = f"{name}: and {rejected - MOST_REJECTED} more lines that are no messages"
        yield timestamp, more.encode(), more
