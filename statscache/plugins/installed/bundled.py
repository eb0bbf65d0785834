"""The plugins that come with statscache, and whether another package has replaced them."""

from __future__ import annotations

import hashlib
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

from statscache.errors import InvalidPlugin, described

BUNDLED_DISTRIBUTION = "statscache"
"""The distribution of the bundled plugins."""

_PACKAGE = "statscache_plugins"
"""The package of the bundled plugins; in 2015 a distribution of that name had one as well."""

_OURS = Path(__file__).resolve().parents[3] / _PACKAGE
_REINSTALL = "'pip install --force-reinstall --no-deps statscache' puts ours back"


def overwritten(distribution: str, error: BaseException) -> InvalidPlugin | None:
    """Returns the error for a plugin that cannot be loaded because another package replaced it."""
    other, place = _other(), _elsewhere(_PACKAGE)
    text = described(error)
    if other is not None and distribution == other.name:
        return _taken(text, other, place)
    if distribution != BUNDLED_DISTRIBUTION:
        return None
    if other is not None or place is not None:
        return _taken(text, other, place)
    return InvalidPlugin(
        f"the package {_PACKAGE} is not as it came with statscache ({text}): {_REINSTALL}"
    )


def replaced(distribution: str, modules: Iterable[str]) -> InvalidPlugin | None:
    """Returns the error for an entry point of statscache that loads another package."""
    if distribution != BUNDLED_DISTRIBUTION:
        return None
    other = _other()
    for module in modules:
        place = _elsewhere(module)
        if place is not None:
            return _taken(f"{module} is {place}", other, place)
        # Without such a package, an operator may have corrected a file.
        if other is not None and _is_changed(module):
            return _taken(f"{module} is not the one of statscache", other, None)
    return None


def _taken(text: str, other: Distribution | None, place: Path | None) -> InvalidPlugin:
    if other is None:
        has = f"another package {_PACKAGE} is installed beside that of statscache"
    else:
        has = (
            f"the distribution {other.name} {other.version} has a package {_PACKAGE}, and so has "
            "statscache"
        )
    if place is None:
        how, cure = "the one that was installed last has overwritten files of the other", _REINSTALL
    else:
        how = "the other one comes before ours on the path"
        cure = f"Ours comes back when {place} is no more on the path"
    return InvalidPlugin(
        f"{has}: {how} ({text}). What is there is used. {cure}, and "
        "statscache.plugins.disabled = ['*'] turns ours off"
    )


def _other() -> Distribution | None:
    try:
        return Distribution.from_name(_PACKAGE)
    except PackageNotFoundError:
        return None


def _file(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).resolve() if file else None


def _elsewhere(module: str) -> Path | None:
    """Returns the file of a loaded module, if it is not in our package; else None."""
    file = _file(module)
    return None if file is None or file.is_relative_to(_OURS) else file


def _is_changed(module: str) -> bool:
    """Whether the file of a module is not the one that was installed with statscache."""
    file = _file(module)
    if file is None:
        return False
    for recorded in Distribution.from_name(BUNDLED_DISTRIBUTION).files or ():
        if recorded.hash and file == Path(str(recorded.locate())).resolve():
            digest = hashlib.new(recorded.hash.mode, file.read_bytes()).digest()
            return urlsafe_b64encode(digest).rstrip(b"=").decode() != recorded.hash.value
    return False
