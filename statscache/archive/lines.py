"""Files of messages: JSON lines, plain or compressed with gzip or zstandard."""

from __future__ import annotations

import gzip
import io
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


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """A file for reading, ``-`` for standard input."""
    if name == "-":
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as binary:
            yield binary


def lines(binary: IO[bytes], name: str) -> Iterator[bytes]:
    """The lines of an open file that are not empty, decompressed where it is compressed.

    Raises:
        ArchiveUnavailable: the file is damaged; the lines before the damage have been given.
    """
    beginning = cast(Any, binary).peek(4)[:4]
    readable: Any = binary
    if beginning.startswith(GZIP_MAGIC):
        readable = gzip.GzipFile(fileobj=binary)
    elif beginning == ZSTD_MAGIC:
        reader = zstandard.ZstdDecompressor().stream_reader(binary, read_across_frames=True)
        readable = io.BufferedReader(cast(Any, reader))
    try:
        for line in readable:
            if not line.isspace():
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise ArchiveUnavailable(f"{name} is damaged or cut short: {error}") from error


def files_in(paths: Iterable[str]) -> list[str]:
    """The files that ``paths`` are, or that the folders among them hold, at any depth.

    Raises:
        ArchiveUnavailable: a path is neither.
    """
    found: list[str] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            found += sorted(
                str(inner)
                for inner in path.rglob("*")
                if inner.is_file() and not inner.name.startswith(".")
            )
        elif path.is_file():
            found.append(name)
        else:
            raise ArchiveUnavailable(f"there is no file or folder {name!r}")
    return found
