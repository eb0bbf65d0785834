"""Run the migrations on the connection that `statscache db upgrade` passes, or on the configured
database when the `alembic` command is used during development."""

from __future__ import annotations

from alembic import context

from statscache import config as configuration
from statscache.database import migrations
from statscache.database.connection import Database


def run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        migrate(connection)
        return
    settings = configuration.Settings.from_config(configuration.load())
    with Database(settings.uri).begin() as connection:
        migrate(connection)


def migrate(connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=migrations.target_metadata(),
        compare_type=True,
        transaction_per_migration=False,
        include_name=migrations.is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
