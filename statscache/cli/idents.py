"""Finding the idents that a command line names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from statscache.errors import StatscacheError
from statscache.plugins.base import make_ident
from statscache.plugins.installed.discovery import Installed


def resolve(installed: Installed, words: Iterable[str]) -> frozenset[str]:
    """The idents that ``words`` name: a word is an ident, or a plugin's name for all of its idents.

    Raises:
        StatscacheError: a word is neither; the text suggests similar ones.
    """
    found: set[str] = set()
    for word in words:
        idents = _matching(installed, word)
        if not idents:
            raise StatscacheError(_unknown(installed, word))
        found |= idents
    return frozenset(found)


def with_siblings(installed: Installed, idents: Iterable[str]) -> frozenset[str]:
    """``idents`` and the other resolutions of the same plugins."""
    plugins = {id(installed.datasets[ident].plugin) for ident in idents}
    return frozenset(
        ident for ident, dataset in installed.datasets.items() if id(dataset.plugin) in plugins
    )


def _matching(installed: Installed, word: str) -> set[str]:
    if word in installed.datasets:
        return {word}
    return {
        ident
        for ident, dataset in installed.datasets.items()
        if make_ident(str(dataset.plugin.name), None) == make_ident(word, None)
    }


def _unknown(installed: Installed, word: str) -> str:
    names = {make_ident(str(dataset.plugin.name), None) for dataset in installed.datasets.values()}
    similar = get_close_matches(make_ident(word, None), sorted({*installed.datasets, *names}), n=3)
    hint = f"did you mean {' or '.join(similar)}? " if similar else ""
    return f"no plugin has the ident {word!r}: {hint}'statscache plugins' lists all of them"
