"""The schema of the framework and of the bundled plugins: its migrations and how to run them.

The scripts are in ``alembic/`` at the top of the source tree, and are installed as the package
``statscache_migrations``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import statscache_migrations
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table

from statscache import tables
from statscache.plugins import discovery

BUNDLED_DISTRIBUTION = "statscache"


def upgrade(connection: Connection) -> tuple[str | None, str | None]:
    """Bring the schema to the newest revision; gives the revisions before and after."""
    before = MigrationContext.configure(connection).get_current_revision()
    configuration = _configuration()
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, "head")
    return before, head()


@cache
def head() -> str | None:
    """The newest revision among the installed migrations."""
    return ScriptDirectory.from_config(_configuration()).get_current_head()


def is_known(revision: str) -> bool:
    """Whether an installed migration has this revision."""
    scripts = ScriptDirectory.from_config(_configuration()).walk_revisions()
    return any(script.revision == revision for script in scripts)


def target_metadata() -> MetaData:
    """The tables that the migrations must arrive at, for Alembic's comparison."""
    target = MetaData()
    for table in tables.metadata.sorted_tables:
        table.to_metadata(target)
    for table in bundled_tables():
        table.to_metadata(target)
    return target


def bundled_tables() -> list[Table]:
    """The tables of the plugins that come with statscache."""
    installed = discovery.discover({})
    return [
        dataset.model.__table__
        for dataset in installed.datasets.values()
        if dataset.source.distribution == BUNDLED_DISTRIBUTION
    ]


def is_ours(name: str | None, kind: str, parents: object) -> bool:
    """Whether Alembic is to compare a thing of the database: not the tables of others."""
    return kind != "table" or name in target_metadata().tables


def _configuration() -> Config:
    configuration = Config()
    folder = Path(statscache_migrations.__path__[0])
    configuration.set_main_option("script_location", str(folder).replace("%", "%%"))
    configuration.set_main_option("path_separator", "os")
    return configuration
