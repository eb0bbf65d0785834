"""``statscache db``: the schema of the database."""

from __future__ import annotations

import click

from statscache.cli.context import Context
from statscache.cli.terminal import echo
from statscache.database import migrations


@click.group()
def db() -> None:
    """The schema of the database."""


@db.command()
@click.pass_obj
def upgrade(context: Context) -> None:
    """Create the tables, or bring them to the schema of this version.

    A missing SQLite file is created.
    """
    database = context.database()
    is_new = database.file is not None and not database.file.exists()
    echo(f"The database is {database.name}{', a new file' if is_new else ''}.")
    with database.begin() as connection:
        before, after = migrations.upgrade(connection)
    database.dispose()
    if before == after:
        echo(f"The schema is {after} already.")
    else:
        echo(f"The schema is now {after} (it was {before or 'empty'}).")
