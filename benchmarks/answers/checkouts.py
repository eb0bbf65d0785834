"""A checkout of statscache, and what its programs do at a present that stands still."""

from __future__ import annotations

import os
import pprint
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.answers.messages import NOW

_HERE = Path(__file__).parent
_ASKING = _HERE / "asking.py"

_PACKAGES = {
    "statscache": "statscache",
    "statscache_plugins": "statscache_plugins",
    "statscache_migrations": "alembic",
}
"""Package to its folder in a checkout, as ``setup.py`` installs them."""

_PLUGINS = {
    "answers-shapes": {
        "shapes": "answers_shapes:plugins",
        "slash": "answers_shapes:Slash",
        "missing": "answers_is_not_there:Plugin",
    },
    "answers-gone": {"gone": "answers_gone:Gone"},
    "answers-later": {"later": "answers_later:Later"},
}
"""Distribution to its entry points."""


class CommandFailed(Exception):
    """A program of a checkout ended with an error."""


class Checkout:
    """What is in a folder, installed for the processes that are started here and no others.

    Args:
        root: of the checkout.
        folder: to install it in, which is made.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root.resolve()
        self._folder = folder
        project = tomllib.loads((self.root / "pyproject.toml").read_text())["project"]
        site = folder / "statscache"
        _distribute(site, "statscache", project["entry-points"])
        for package, place in _PACKAGES.items():
            (site / package).symlink_to(self.root / place)
        for name, points in _PLUGINS.items():
            _distribute(folder / name, name, {"statscache.plugin": points})

    def run(self, cwd: Path, uri: str, plugins: Iterable[str], *command: str) -> int:
        """Run ``statscache`` with these distributions of plugins; returns its status, 0 or 1.

        Raises:
            CommandFailed: it was another one, or there was an exception that it did not expect.
        """
        done = self._run(cwd, uri, plugins, "-m", "statscache", *command)
        if done.returncode not in (0, 1) or done.stderr.startswith("Traceback"):
            raise CommandFailed(f"{self.root}: statscache {' '.join(command)}:\n{done.stderr}")
        return done.returncode

    def ask(self, cwd: Path, uri: str, apps: Path, requests: Path, answers: Path) -> None:
        """Answer the ``requests`` of a file into another one, see :mod:`~.asking`.

        Raises:
            CommandFailed: a request ended in an exception.
        """
        plugins = ("answers-shapes", "answers-later")
        files = map(str, (apps, requests, answers))
        done = self._run(cwd, uri, plugins, str(_ASKING), *files)
        if done.returncode:
            raise CommandFailed(f"{self.root}: {done.stderr}")

    def _run(
        self, cwd: Path, uri: str, plugins: Iterable[str], *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        places = [self._folder / name for name in ("statscache", *plugins)]
        path = [_HERE / "clock", *places, _HERE / "plugins"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            # The order of sets is no promise, and would hide that something depends on it.
            "PYTHONHASHSEED": "0",
            "STATSCACHE_ANSWERS_NOW": repr(NOW),
            "STATSCACHE_SQLALCHEMY_URI": uri,
            "HOME": str(cwd),
            "TZ": "UTC",
        }
        # -P: neither the folder of the script nor the present one is on the path.
        return subprocess.run(
            [sys.executable, "-P", "-W", "ignore", *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


def configure(folder: Path, config: Mapping[str, Any]) -> None:
    """Let programs that run in ``folder`` find ``config``."""
    (folder / "fedmsg.d").mkdir(parents=True)
    text = f"import datetime\nconfig = {pprint.pformat(dict(config))}\n"
    (folder / "fedmsg.d" / "answers.py").write_text(text)


def _distribute(site: Path, name: str, groups: Mapping[str, Mapping[str, str]]) -> None:
    metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{point} = {target}" for point, target in points.items()), ""]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
