"""``statscache config``: the files that a server is configured with."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

import click

from statscache.cli.terminal import echo
from statscache.errors import StatscacheError

FILES = ("fedmsg.d/base.py", "fedmsg.d/statscache.py", "statscache.wsgi")
"""What can be written, below the folder that is named."""


@click.command()
@click.argument(
    "folder", default=".", type=click.Path(file_okay=False, writable=True, path_type=Path)
)
@click.argument("names", nargs=-1, type=click.Choice(FILES), metavar="[FILE]...")
@click.option("--force", is_flag=True, help="Replace files that are there, and differ.")
def config(folder: Path, names: tuple[str, ...], force: bool) -> None:
    """Write the configuration, with every key and its default, into FOLDER (this one when absent).

    \b
    FILE is one of
      fedmsg.d/base.py        fedmsg's own keys, for a bus on this machine
      fedmsg.d/statscache.py  the keys of statscache, explained
      statscache.wsgi         the API, for mod_wsgi
    and all of them when absent. So `statscache config /etc fedmsg.d/statscache.py` adds our keys
    to a machine that has fedmsg. A file that is there and differs is left alone: status 1.
    """
    kept = 0
    for name in names or FILES:
        target = folder / name
        text = _source(name).read_text()
        if not target.exists() or (force and target.read_text() != text):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
            except OSError as error:
                raise StatscacheError(f"cannot write {target}: {error.strerror}") from error
            echo(f"wrote {target}")
        elif target.read_text() == text:
            echo(f"{target} is there already")
        else:
            kept += 1
            echo(f"{target} differs: left alone (--force replaces it)", err=True)
    if kept:
        sys.exit(1)


def _source(name: str) -> Path:
    """Where the file is: in the checkout that is run, or where it was installed."""
    checkout = Path(__file__).parents[3]
    if (checkout / name).is_file():
        return checkout / name
    for file in distribution("statscache").files or ():
        if file.as_posix().endswith(f"share/statscache/{name}"):
            return Path(str(file.locate()))
    raise StatscacheError(f"this installation has no {name}: install statscache anew")
