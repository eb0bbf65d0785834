"""What the commands write: printable text only, and a line that shows the progress of long work.

Text of the bus and of the archive is written too, and may contain control characters.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Self

import click

from statscache.logs.printable import printable

_PRINTED_EVERY = 5.0
_DRAWN_EVERY = 0.2


def echo(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Write ``text`` and a line break; only its line breaks are more than printable characters."""
    click.echo(printable(text, keep="\n"), nl=nl, err=err)


def warn(text: str) -> None:
    """Write ``text`` in red to standard error."""
    click.secho(printable(text, keep="\n"), fg="red", err=True)


def redraw(line: str) -> None:
    """Write ``line`` over the last one of standard error, which is a terminal."""
    click.echo("\r" + printable(line), nl=False, err=True)


class ProgressLine:
    """Shows progress on standard error: in one line of a terminal, else in a new line now and then.

    A context manager; on exit the line is ended.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._due = 0.0
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish_line()

    def show(self, text: Callable[[], str]) -> None:
        """Show ``text``, unless something was shown a moment ago."""
        now = time.monotonic()
        if now >= self._due:
            self._draw(text())
            self._due = now + (_DRAWN_EVERY if self._is_terminal else _PRINTED_EVERY)

    def end(self, text: str) -> None:
        """Show ``text`` at once, as the last one."""
        self._draw(text)
        self._finish_line()

    def interrupt(self, text: str) -> None:
        """Write something else, in a line of its own."""
        self._finish_line()
        echo(text, err=True)

    def _draw(self, line: str) -> None:
        if not self._is_terminal:
            echo(line, err=True)
            return
        line = line[: shutil.get_terminal_size().columns - 1]
        redraw(line.ljust(self._width))
        self._width = len(line)

    def _finish_line(self) -> None:
        if self._width:
            echo("", err=True)
        self._width = 0
