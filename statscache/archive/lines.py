"""Files of messages: JSON lines, plain or compressed with gzip or zstandard."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from statscache.errors import ArchiveUnavailable

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
"""Follows a byte from 0x50 to 0x5f; parallel compressors begin their files with it."""

_AT_ONCE = 1 << 14
_BUFFER = 1 << 17
_LARGEST_ZSTD_WINDOW = 1 << 31


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """A file for reading, ``-`` for standard input.

    Raises:
        ArchiveUnavailable: it cannot be opened.
    """
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        binary = Path(name).open("rb")  # noqa: SIM115
    except OSError as error:
        raise ArchiveUnavailable(f"cannot open {name}: {error.strerror}") from error
    with binary:
        yield binary


def lines(binary: IO[bytes], name: str) -> Iterator[bytes]:
    """The lines of an open file that are not empty, decompressed where it is compressed.

    Raises:
        ArchiveUnavailable: the file is damaged, or cannot be read; the lines before that have been
            yielded.
    """
    try:
        for line in _decompressed(binary):
            if not line.isspace():
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise ArchiveUnavailable(f"{name} is damaged or cut short: {error}") from error
    except OSError as error:
        raise ArchiveUnavailable(f"cannot read {name}: {error.strerror}") from error


def _decompressed(binary: IO[bytes]) -> Iterable[bytes]:
    beginning = cast(Any, binary).peek(4)[:4]
    if beginning.startswith(GZIP_MAGIC):
        return gzip.GzipFile(fileobj=binary)
    if beginning == ZSTD_MAGIC or beginning[1:] == ZSTD_SKIPPABLE:
        return io.BufferedReader(_Zstandard(binary), _BUFFER)
    return binary


class _Zstandard(io.RawIOBase):
    """Frames of zstandard, decompressed; unlike the library's own it notices when one is cut."""

    def __init__(self, binary: IO[bytes]) -> None:
        self._binary = binary
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_ZSTD_WINDOW)
        self._frame = self._decompressor.decompressobj()
        self._is_within_frame = False
        self._compressed = b""
        self._content = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with what comes next, as far as it is there; 0 is the end."""
        while not self._content:
            if not self._compressed:
                self._compressed = self._binary.read(_AT_ONCE)
            if not self._compressed:
                if self._is_within_frame:
                    raise EOFError("it ends within a frame")
                return 0
            self._is_within_frame = True
            self._content = memoryview(self._frame.decompress(self._compressed))
            self._compressed = b""
            if self._frame.eof:
                self._compressed = self._frame.unused_data
                self._frame = self._decompressor.decompressobj()
                self._is_within_frame = False
        some = self._content[: len(buffer)]
        buffer[: len(some)] = some
        self._content = self._content[len(some) :]
        return len(some)


def files_in(paths: Iterable[str]) -> list[str]:
    """Returns the files among ``paths``, and those in the folders among them, at any depth.

    Hidden files and folders are left out.

    Raises:
        ArchiveUnavailable: a path is neither, or cannot be looked into.
    """
    found: list[str] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            found += sorted(_files_below(path))
        elif path.is_file():
            found.append(name)
        else:
            raise ArchiveUnavailable(f"there is no file or folder {name!r}")
    return found


def _files_below(top: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise ArchiveUnavailable(f"cannot look into {error.filename}: {error.strerror}")

    for folder, folders, files in os.walk(top, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            # A link that leads nowhere is an error, a socket or a pipe is not.
            if not name.startswith(".") and (path.is_file() or not path.exists()):
                yield str(path)
