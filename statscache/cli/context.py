"""What the commands share: the configuration, read when a command first needs it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from statscache import about, config
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.hub.supervision import daemon
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed


class Context:
    """The configuration, and the objects that are made from it."""

    def __init__(self, config_filename: str | None) -> None:
        self.config_filename = config_filename

    @cached_property
    def config(self) -> dict[str, Any]:
        """fedmsg's configuration."""
        return config.load(self.config_filename)

    @cached_property
    def bus_config(self) -> dict[str, Any]:
        """The same with fedmsg's defaults, as the hub reads it."""
        return config.load(self.config_filename, for_the_bus=True)

    @cached_property
    def settings(self) -> Settings:
        """The ``statscache.*`` keys of the configuration."""
        return Settings.from_config(self.config)

    @cached_property
    def installed(self) -> Installed:
        """The installed plugins."""
        return discovery.discover(self.config)

    def database(self, *, read_only: bool = False) -> Database:
        """The configured database."""
        return Database(self.settings.uri, read_only=read_only)

    def engine(self) -> Engine:
        """An engine that is ready to count."""
        about.configure(self.config)
        engine = Engine.from_settings(self.settings, self.installed)
        # A slow plugin is logged, not ended: the user of the command decides when to stop it.
        engine.allow_slow_plugins()
        daemon("statscache-time-limit", engine.enforce_time_limit)
        engine.open()
        return engine
