"""Fold windows of the archive elsewhere: in threads, processes, or on other machines.

Partial aggregates merge, so a worker needs the archive and the plugins, and no database. What it
sends back is small, and its parent counts it in one transaction.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from statscache import __version__, about
from statscache.archive.base import Archive, Window
from statscache.clock import SYSTEM
from statscache.counting.folding.folded import Folded
from statscache.counting.folding.lane_plugins import LanePlugins, Target
from statscache.counting.lanes.digests import claim_digest
from statscache.database.definitions import definition_of
from statscache.errors import WorkerUnsuitable
from statscache.isolation.lost_connections import LostConnections
from statscache.isolation.time_limit import TimeLimit
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Dataset, Installed

_MOST_REMEMBERED = 8
_REMEMBERED: dict[str, LanePlugins] = {}
"""The plugins of lanes that this process has made for tasks from elsewhere."""

_FOR_THE_PARENT = frozenset({"statscache.sqlalchemy.uri"})
"""Secret keys of the configuration, which no worker needs."""


@dataclass(frozen=True)
class _Ticket:
    """What a worker must have installed to fold for one ident."""

    ident: str
    since: float | None
    definition: str
    distribution: str
    version: str


class FoldTask:
    """Fetches a window and folds it for ``plugins``; can be sent to other processes.

    There it finds the plugins by their entry points. It checks that the same versions are installed
    there.

    Args:
        plugins: for whose aggregates; it has no classic plugins.
        installed: the plugins, of which those are some.
        config: fedmsg's configuration, that plugins are made with.
    """

    def __init__(
        self, plugins: LanePlugins, installed: Installed, config: Mapping[str, Any]
    ) -> None:
        self._plugins: LanePlugins | None = plugins
        self._version = __version__
        self._tickets = [
            _ticket(installed.datasets[ident], target.since)
            for ident, target in plugins.targets.items()
        ]
        self._config = {
            key: value
            for key, value in config.items()
            if key not in _FOR_THE_PARENT and _is_portable(value)
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_plugins": None}

    def __call__(self, archive: Archive, window: Window, topics: tuple[str, ...]) -> Folded:
        """Returns what the window adds to the tables.

        Raises:
            ArchiveUnavailable: the archive cannot be asked.
            WorkerUnsuitable: this process lacks a plugin, or has another release of it.
        """
        plugins = self._plugins or self._find_plugins()
        piece = archive.fetch(window, topics)
        rejections = list(piece.rejected)
        partials = plugins.fold(piece.messages, rejections, start=piece.window.start)
        return Folded(
            window=piece.window,
            idents=plugins.idents,
            digests=[(claim_digest(m.identity), m.timestamp, m.has_own_id) for m in piece.messages],
            partials=partials,
            rejections=rejections,
            missing=piece.missing,
        )

    def _find_plugins(self) -> LanePlugins:
        content = repr((self._version, self._tickets, sorted(self._config.items(), key=str)))
        key = hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()
        plugins = _REMEMBERED.get(key)
        if plugins is None:
            about.configure(self._config)
            installed = discovery.discover(self._config)
            if self._version != __version__:
                raise _unsuitable("statscache", self._version, __version__)
            plugins = LanePlugins(
                [_target(installed, ticket) for ticket in self._tickets],
                [],
                "sqlite",
                # That of this machine, wherever the hub is.
                time_limit=TimeLimit(None, SYSTEM),
                lost_connections=LostConnections(SYSTEM),
            )
            if len(_REMEMBERED) >= _MOST_REMEMBERED:
                _REMEMBERED.clear()
            _REMEMBERED[key] = plugins
        return plugins


def _ticket(dataset: Dataset, since: float | None) -> _Ticket:
    source = dataset.source
    return _Ticket(
        dataset.ident, since, definition_of(dataset), source.distribution, source.version
    )


def _target(installed: Installed, ticket: _Ticket) -> Target:
    dataset = installed.datasets.get(ticket.ident)
    if dataset is None:
        raise _unsuitable(ticket.distribution, ticket.version, "none that works")
    ours = _ticket(dataset, ticket.since)
    if ours.definition != ticket.definition:
        found = f"{ours.version}, which declares {ticket.ident} differently"
        raise _unsuitable(ticket.distribution, ticket.version, found)
    if ours != ticket:
        raise _unsuitable(ticket.distribution, ticket.version, ours.version)
    return Target(ticket.ident, dataset.declaration, dataset.plugin, since=ticket.since)


def _unsuitable(distribution: str, wanted: str, found: str) -> WorkerUnsuitable:
    return WorkerUnsuitable(
        f"the worker {os.getpid()} on {socket.gethostname()} needs {distribution} {wanted} and has "
        f"{found}: install the same release of it on all the workers, and restart them"
    )


def _is_portable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
