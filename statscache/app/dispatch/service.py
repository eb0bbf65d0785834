"""What every call can use: settings, plugins, and what the hub has committed."""

from __future__ import annotations

from dataclasses import asdict

import statscache
from statscache.app.state.datasets import ServedDatasets, StoredDatasets
from statscache.app.state.digest import digest
from statscache.app.state.read_only import ReadOnlyDatabase
from statscache.app.state.revisions import Revisions
from statscache.config import Settings
from statscache.errors import StatscacheError
from statscache.plugins.installed.discovery import Installed


class Service:
    """Made once per application; all its threads share it.

    Attributes:
        settings: of the operator.
        installed: the plugins, as they are installed.
        datasets: the datasets, as their tables are.
        database: where they are read.
        revisions: how often each has changed.
        fingerprint: of what answers depend on besides the database: the version, the configuration
            and the plugins. All the workers of one deployment have the same.
    """

    def __init__(self, settings: Settings, installed: Installed) -> None:
        self.settings = settings
        self.installed = installed
        self.datasets = StoredDatasets(installed)
        self.database = ReadOnlyDatabase(
            settings.uri, settings.statement_timeout, installed.datasets.values()
        )
        self.revisions = Revisions(self.database.begin, self.database.database)
        self.fingerprint = digest(
            statscache.__version__,
            repr(sorted(asdict(settings).items())),
            tuple((d.ident, d.source) for d in installed.datasets.values()),
            tuple(installed.broken),
        )

    @property
    def patience(self) -> float:
        """Seconds in which a client must have read what is sent of an answer without end."""
        settings = self.settings
        # Between two heartbeats a client that listens is sent nothing.
        longest = max(settings.request_timeout, 2 * settings.heartbeat)
        return longest.total_seconds()

    def served(self) -> ServedDatasets:
        """What there is to serve now; the last known while the database does not answer."""
        try:
            return self.datasets.at(self.revisions.all())
        except StatscacheError:
            return self.datasets.last
