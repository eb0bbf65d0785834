"""``statscache config``: write the configuration files of a server."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

import click

from statscache.cli.terminal import echo
from statscache.errors import StatscacheError

FILES = ("fedmsg.d/base.py", "fedmsg.d/statscache.py", "statscache.wsgi")
"""The files that can be written, relative to the folder."""


@click.command()
@click.argument(
    "folder", default=".", type=click.Path(file_okay=False, writable=True, path_type=Path)
)
@click.argument("names", nargs=-1, type=click.Choice(FILES), metavar="[FILE]...")
@click.option("--force", is_flag=True, help="Overwrite files that exist and differ.")
def config(folder: Path, names: tuple[str, ...], force: bool) -> None:
    """Write the configuration, with every key and its default, into FOLDER (default: this one).

    \b
    FILE is one of
      fedmsg.d/base.py        fedmsg's own keys, for a bus on this machine
      fedmsg.d/statscache.py  the keys of statscache, explained
      statscache.wsgi         the API, for mod_wsgi
    (default: all of them). For example, `statscache config /etc fedmsg.d/statscache.py` adds our
    keys to a machine that has fedmsg. A file that exists and differs is not changed, and the exit
    status is 1.
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
            echo(f"{target} exists already")
        else:
            kept += 1
            echo(f"{target} differs: not changed (--force overwrites it)", err=True)
    if kept:
        sys.exit(1)


def _source(name: str) -> Path:
    """The file in the checkout that is run, or where it was installed."""
    checkout = Path(__file__).parents[3]
    if (checkout / name).is_file():
        return checkout / name
    for file in distribution("statscache").files or ():
        if file.as_posix().endswith(f"share/statscache/{name}"):
            return Path(str(file.locate()))
    raise StatscacheError(f"this installation has no {name}: reinstall statscache")
