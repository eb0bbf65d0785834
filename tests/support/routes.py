"""The routes of the API, whose declarations do not depend on what is installed."""

from __future__ import annotations

from statscache.app.application import build_app
from statscache.config import Settings
from statscache.plugins.installed.discovery import Installed

ROUTES = tuple(
    build_app(Settings.from_config({"statscache.sqlalchemy.uri": "sqlite:///none.db"}), Installed())
    .extensions["statscache"]
    .routes
)
