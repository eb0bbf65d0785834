"""How far long work is: on a terminal in one line that changes, elsewhere in one now and then."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Self

from statscache.cli.terminal import echo, redraw

_LINE_EVERY = 5.0
_DRAWN_EVERY = 0.2


class Display:
    """Writes to standard error; a context manager, at whose end the line is complete."""

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
            self._due = now + (_DRAWN_EVERY if self._is_terminal else _LINE_EVERY)

    def end(self, text: str) -> None:
        """Show ``text`` whatever was shown before."""
        self._draw(text)
        self._finish_line()

    def say(self, text: str) -> None:
        """Show something else, in a line of its own."""
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
