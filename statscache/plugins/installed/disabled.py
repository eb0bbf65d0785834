"""Which plugins the operator has turned off."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from statscache.errors import ConfigurationError
from statscache.plugins.installed.bundled import BUNDLED_DISTRIBUTION

log = logging.getLogger(__name__)

_KEY = "statscache.plugins.disabled"


def pattern_for(distribution: str, name: str) -> str:
    """Returns the pattern of ``statscache.plugins.disabled`` that turns off one plugin."""
    return name if _normal(distribution) == BUNDLED_DISTRIBUTION else f"{distribution}:{name}"


class Disabled:
    """What ``statscache.plugins.disabled`` says: patterns of names and idents of plugins.

    A pattern is for the plugins that come with statscache, and ``distribution:pattern`` for those
    of another distribution. ``*`` stands for any characters.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = {pattern: _split(pattern) for pattern in patterns}
        self._unused = set(patterns)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Disabled:
        """Read and check the key.

        Raises:
            ConfigurationError: it is not a list of texts.
        """
        value = config.get("statscache.plugins.disabled", ())
        is_list = isinstance(value, list | tuple | set | frozenset)
        if not is_list or not all(isinstance(pattern, str) and pattern for pattern in value):
            raise ConfigurationError(
                f"{_KEY} must be a list of names or idents of plugins, such as "
                f"['volume-by-*', 'volume'], not {value!r}"
            )
        return cls(list(value))

    def covers(self, distribution: str, name: str, idents: Sequence[str]) -> bool:
        """Whether a plugin is turned off.

        Raises:
            ConfigurationError: a pattern names some of its idents and not the others.
        """
        for pattern, (owner, body) in self._patterns.items():
            if not fnmatchcase(_normal(distribution), owner):
                continue
            named = [ident for ident in idents if fnmatchcase(ident, body)]
            if fnmatchcase(name.lower(), body) or (named and len(named) == len(idents)):
                self._unused.discard(pattern)
                return True
            if named:
                raise ConfigurationError(
                    f"{_KEY}: {pattern!r} names {', '.join(named)}, and a plugin is turned off "
                    f"in all its resolutions or not at all: write {name!r}"
                )
        return False

    def covers_all(self, distribution: str) -> bool:
        """Whether all plugins of a distribution are turned off."""
        found = [
            pattern
            for pattern, (owner, body) in self._patterns.items()
            if body == "*" and fnmatchcase(_normal(distribution), owner)
        ]
        self._unused.difference_update(found)
        return bool(found)

    def warn_of_unused(self) -> None:
        """Log the patterns that match no installed plugin."""
        for pattern in sorted(self._unused):
            log.warning("%s: no plugin that is installed is called %r", _KEY, pattern)


def _split(pattern: str) -> tuple[str, str]:
    owner, colon, body = pattern.rpartition(":")
    return _normal(owner) if colon else BUNDLED_DISTRIBUTION, body.lower()


def _normal(distribution: str) -> str:
    """Returns the name of a distribution as installers compare it."""
    return distribution.lower().replace("_", "-").replace(".", "-")
