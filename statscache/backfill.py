"""Fold windows of the archive elsewhere: in threads, processes, or on other machines.

Partial aggregates merge, so a worker needs the archive and the plugins, and no database. What it
sends back is small, and its parent counts it in one transaction.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from statscache import about
from statscache.archive.base import Archive, Window
from statscache.crew import Crew, Seat
from statscache.fold import Partial
from statscache.lanes import claim_digest
from statscache.plugins import discovery
from statscache.plugins.aggregate import Aggregate
from statscache.plugins.discovery import Installed
from statscache.rejections import Rejection


@dataclass
class Folded:
    """What a window adds to the tables of some aggregates.

    Attributes:
        idents: of the tables, in the order of the crew that counts them.
        digests: of the messages, with their times, under which they are claimed.
        partials: one for each folder of the crew.
        missing: how many messages the archive has and did not give.
    """

    window: Window
    idents: tuple[str, ...]
    digests: list[tuple[bytes, float]]
    partials: list[Partial]
    rejections: list[Rejection] = field(default_factory=list)
    missing: int = 0

    @property
    def size(self) -> int:
        """How many messages were folded."""
        return len(self.digests)


_CREWS: dict[str, Crew] = {}
"""The crews that this process has made for tasks from elsewhere."""


class FoldTask:
    """Fetches a window and folds it for ``crew``; can be sent to other processes.

    There it finds the plugins anew, by their entry points, so that they must be installed there in
    the same versions.

    Args:
        crew: for whose aggregates; it has no classic plugins.
        config: fedmsg's configuration, that plugins are made with.
    """

    def __init__(self, crew: Crew, config: Mapping[str, Any]) -> None:
        self._crew: Crew | None = crew
        self._seats = [(seat.ident, seat.since) for seat in crew.seats.values()]
        self._config = {key: value for key, value in config.items() if _is_portable(value)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_crew": None}

    def __call__(self, archive: Archive, window: Window, topics: tuple[str, ...]) -> Folded:
        """What the window adds."""
        crew = self._crew or self._find_crew()
        piece = archive.fetch(window, topics)
        rejections = list(piece.rejected)
        partials = crew.fold(piece.messages, rejections, start=piece.window.start)
        return Folded(
            window=piece.window,
            idents=crew.idents,
            digests=[(claim_digest(m.identity), m.timestamp) for m in piece.messages],
            partials=partials,
            rejections=rejections,
            missing=piece.missing,
        )

    def _find_crew(self) -> Crew:
        content = repr((self._seats, sorted(self._config.items(), key=str)))
        key = hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()
        if key not in _CREWS:
            about.configure(self._config)
            installed = discovery.discover(self._config)
            _CREWS[key] = Crew([_seat(installed, *seat) for seat in self._seats], [], "sqlite")
        return _CREWS[key]


def _seat(installed: Installed, ident: str, since: float | None) -> Seat:
    plugin = installed.datasets[ident].plugin
    assert isinstance(plugin, Aggregate)
    table = next(table for table in plugin.tables if table.ident == ident)
    return Seat(ident, table, plugin, since=since)


def _is_portable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
