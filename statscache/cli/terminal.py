"""What the commands write: text of the bus and of the archive among it."""

from __future__ import annotations

import click

from statscache.logs.printable import printable


def echo(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Write ``text`` and a line break; only its line breaks are more than printable characters."""
    click.echo(printable(text, keep="\n"), nl=nl, err=err)


def redraw(line: str) -> None:
    """Write ``line`` over the last one of standard error, which is a terminal."""
    click.echo("\r" + printable(line), nl=False, err=True)
