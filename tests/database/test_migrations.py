"""The schema: the migrations arrive at the models, and another schema is named as such."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from statscache.database import migrations
from statscache.database.connection import Database
from statscache.errors import SchemaError
from statscache.plugins import discovery
from statscache.plugins.bundled import BUNDLED_DISTRIBUTION


def test_the_migrations_arrive_at_the_models(migrated_uri: str) -> None:
    with Database(migrated_uri).begin() as connection:
        options = {"include_name": migrations.is_ours, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, migrations.target_metadata()) == []


def test_primary_keys_are_those_of_the_models(migrated_uri: str) -> None:
    # Alembic does not compare them, and upserts depend on them.
    with Database(migrated_uri).begin() as connection:
        inspector = inspect(connection)
        for table in migrations.target_metadata().sorted_tables:
            found = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert found == [column.name for column in table.primary_key], table.name


def test_text_is_ordered_by_code_point(migrated_uri: str) -> None:
    words = ["a", "B", "ä", "b", "A", "🎩", "_"]
    with Database(migrated_uri).begin() as connection:
        for word in words:
            connection.execute(
                text("INSERT INTO volume_by_user_1d VALUES (0, :word, 1)"), {"word": word}
            )
        found = connection.scalars(text('SELECT "user" FROM volume_by_user_1d ORDER BY "user"'))
        assert list(found) == sorted(words)


def test_an_upgrade_of_a_current_schema_changes_nothing(migrated_uri: str) -> None:
    with Database(migrated_uri).begin() as connection:
        assert migrations.upgrade(connection) == (migrations.HEAD, migrations.HEAD)


def test_the_newest_revision_is_that_of_the_scripts() -> None:
    assert migrations.scripts().get_current_head() == migrations.HEAD


def test_only_an_upgrade_needs_alembic() -> None:
    program = "import sys, statscache.hub.consumer, statscache.app; print('alembic' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_an_empty_database_is_named_as_such(database_uri: str) -> None:
    with pytest.raises(SchemaError, match="has no statscache tables yet"):
        Database(database_uri).check_schema()


def test_an_unknown_schema_is_named_as_newer(migrated_uri: str) -> None:
    database = Database(migrated_uri)
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="it is newer; upgrade statscache"):
        database.check_schema()


def test_a_failed_migration_leaves_nothing_behind(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    create_index = op.create_index

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("interrupted")

    monkeypatch.setattr(op, "create_index", fail)
    database = Database(database_uri)
    with pytest.raises(RuntimeError, match="interrupted"), database.begin() as connection:
        migrations.upgrade(connection)
    with database.begin() as connection:
        assert inspect(connection).get_table_names() == []
    monkeypatch.setattr(op, "create_index", create_index)
    with database.begin() as connection:
        migrations.upgrade(connection)
    database.check_schema()


def test_every_bundled_plugin_is_loaded() -> None:
    installed = discovery.discover({})
    assert installed.broken == []
    assert {dataset.source.distribution for dataset in installed.datasets.values()} == {
        BUNDLED_DISTRIBUTION
    }
