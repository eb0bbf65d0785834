"""Distributions of other people: two that are here, and others made for one test."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import SUPPORT

DISTRIBUTION = SUPPORT / "distribution"
"""A folder with an installed distribution of other people's plugins."""

CHANGING = SUPPORT / "changing"
"""A folder with a distribution of which each release has another definition."""

RELEASE = "CHANGING_STATISTICS_RELEASE"
"""The environment variable that says which one is installed."""


def distribute(
    folder: Path, name: str, code: str, group: str = "statscache.plugin", **points: str
) -> Path:
    """Install a module as a distribution of its own; returns the folder, for ``PYTHONPATH``.

    ``points`` are the entry points of ``group``: name to the attribute of the module.
    """
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {name}:{attribute}\n" for point, attribute in points.items()]
    (metadata / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))
    return folder


def python_path(folders: Iterable[Path]) -> str:
    """``PYTHONPATH`` for a process that is to find these distributions first."""
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join([*map(str, folders), *given])


@contextmanager
def importing(folders: Iterable[Path]) -> Iterator[None]:
    """Let this process find these distributions, and say nothing of what is broken in them."""
    before = sys.path.copy()
    sys.path[:0] = map(str, folders)
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        sys.path[:] = before
        # Others may want another release of it.
        sys.modules.pop("changing_statistics", None)
