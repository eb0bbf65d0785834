"""The schema of the framework and of the bundled plugins: its migrations and how to run them.

The scripts are in ``alembic/`` at the top of the source tree, and are installed as the package
``statscache_migrations``.

Alembic is imported by what needs it: the hub, the API and most commands only compare revisions when
they start.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import statscache_migrations
from sqlalchemy import Connection, MetaData, Table, inspect, text

from statscache.database import tables
from statscache.plugins.installed import discovery
from statscache.plugins.installed.bundled import BUNDLED_DISTRIBUTION

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

HEAD = "0011"
"""The newest revision among the migrations."""

REVISIONS = "alembic_version"
"""The table that says which one a database has."""


def upgrade(connection: Connection) -> tuple[str | None, str]:
    """Bring the schema to the newest revision; returns the revisions before and after."""
    from alembic import command  # costly: every process checks the schema, few upgrade

    before = revision_of(connection)
    settings = configuration()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
    return before, HEAD


def revision_of(connection: Connection) -> str | None:
    """The revision of the schema of a database; None where there is none yet."""
    if not inspect(connection).has_table(REVISIONS):
        return None
    found: str | None = connection.scalar(text(f"SELECT version_num FROM {REVISIONS}"))  # noqa: S608
    return found


def scripts() -> ScriptDirectory:
    """The installed migrations."""
    from alembic.script import ScriptDirectory  # costly, see upgrade()

    return ScriptDirectory.from_config(configuration())


def is_known(revision: str) -> bool:
    """Whether an installed migration has this revision."""
    return any(script.revision == revision for script in scripts().walk_revisions())


@cache
def target_metadata() -> MetaData:
    """The tables that the migrations must arrive at, for Alembic's comparison.

    Made once: Alembic asks for each table of a database whether it is ours.
    """
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


def configuration() -> Config:
    """How Alembic finds the installed migrations."""
    from alembic.config import Config  # costly, see upgrade()

    made = Config()
    folder = Path(statscache_migrations.__path__[0])
    made.set_main_option("script_location", str(folder).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made
