"""Log what a hub works with when it starts: its version, database, plugins, bus and archive."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from statscache import __version__
from statscache.archive import Archive
from statscache.config import Settings
from statscache.database.connection import Database
from statscache.plugins.installed.discovery import Installed
from statscache.times import iso

log = logging.getLogger(__name__)


def report_startup(
    database: Database, installed: Installed, archive: Archive | None, config: Mapping[str, Any]
) -> None:
    """Log the version, the database, the plugins, the bus and the archive."""
    log.info("statscache %s with the database %s", __version__, database.name)
    log.info("%d plugins: %s", len(installed.datasets), _listed(installed.datasets))
    if installed.disabled:
        # Names have commas.
        log.info("turned off: %s", "; ".join(installed.disabled))
    for broken in installed.broken:
        log.warning("cannot be used: %s: %s", broken.source.entry_point, broken.error)
    _report_bus(config)
    _report_archive(archive, Settings.from_config(config))


def _report_bus(config: Mapping[str, Any]) -> None:
    endpoints = [address for some in config.get("endpoints", {}).values() for address in some]
    checked = "are checked" if config.get("validate_signatures") else "are not checked"
    log.info("the bus: %s; signatures %s", _listed(endpoints), checked)


def _report_archive(archive: Archive | None, settings: Settings) -> None:
    if archive is None:
        log.warning("no archive is configured: what the bus loses is lost")
        return
    since = "as far back as it goes"
    if settings.epoch is not None:
        since = f"since {iso(settings.epoch.timestamp())}"
    log.info(
        "what the bus loses, and history %s, comes from %s, asked every %.0f s",
        since,
        archive.describe(),
        settings.archive_interval.total_seconds(),
    )


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"
