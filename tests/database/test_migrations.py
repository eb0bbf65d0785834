"""The schema: the migrations arrive at the models, and another schema is named as such."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from alembic import command, op
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import LargeBinary, bindparam, inspect, text

from statscache.database import migrations, schema
from statscache.database.connection import Database
from statscache.errors import SchemaError
from statscache.plugins.installed import discovery
from statscache.plugins.installed.bundled import BUNDLED_DISTRIBUTION


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


def rows(uri: str, query: str) -> list[tuple[Any, ...]]:
    with Database(uri).begin() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def migrate(uri: str, direction: Any, revision: str) -> None:
    with Database(uri).begin() as connection:
        settings = migrations.configuration()
        settings.attributes["connection"] = connection
        direction(settings, revision)


LANES = "SELECT id, {}, {} FROM statscache_lane ORDER BY id"
CLAIMS = "SELECT timestamp, {} FROM statscache_claim ORDER BY timestamp"


def test_lanes_and_claims_survive_the_new_names_of_their_columns(database_uri: str) -> None:
    migrate(database_uri, command.upgrade, "0010")
    sums, digest = LargeBinary(), b"0123456789abcdef"
    with Database(database_uri).begin() as connection:
        for number, name in ((1, "main"), (2, "new")):
            connection.execute(
                text(
                    "INSERT INTO statscache_lane (id, name, since, watermark, horizon, generation,"
                    " messages, batches) VALUES (:id, :name, 10, 30, 20, :generation, 5, 1)"
                ),
                {"id": number, "name": name, "generation": 7 if number == 1 else 0},
            )
        for moment, batch in ((21, 4711), (22, -4711), (23, -1)):
            statement = text(
                "INSERT INTO statscache_claim (lane, identity, timestamp, batch, anonymous)"
                " VALUES (1, :identity, :moment, :batch, 0)"
            ).bindparams(bindparam("identity", type_=sums))
            connection.execute(
                statement, {"identity": bytes([moment]) * 16, "moment": moment, "batch": batch}
            )
        connection.execute(
            text("INSERT INTO statscache_counted VALUES (1, 900, 3, :digest)").bindparams(
                bindparam("digest", type_=sums)
            ),
            {"digest": digest},
        )
    migrate(database_uri, command.upgrade, "head")
    assert rows(database_uri, LANES.format("history_start", "claims_pruned_until")) == [
        (1, 10.0, 20.0),
        (2, 10.0, 20.0),
    ]
    assert rows(database_uri, "SELECT version FROM statscache_membership") == [(7,)]
    assert rows(database_uri, CLAIMS.format("archived")) == [(21, 0), (22, 1), (23, 1)]
    ((lane, start, messages, checksum),) = rows(
        database_uri, "SELECT lane, start, messages, checksum FROM statscache_claim_checksum"
    )
    assert (lane, start, messages, bytes(checksum)) == (1, 900, 3, digest)
    migrate(database_uri, command.downgrade, "0010")
    assert rows(database_uri, LANES.format("horizon", "generation")) == [(1, 20.0, 7), (2, 20.0, 0)]
    claims = rows(database_uri, CLAIMS.format("batch"))
    assert [batch < 0 for _, batch in claims] == [False, True, True]
    migrate(database_uri, command.downgrade, "base")


def test_every_older_schema_can_be_upgraded(database_uri: str) -> None:
    revisions = sorted(script.revision for script in migrations.scripts().walk_revisions())
    for older in revisions[:-1]:
        migrate(database_uri, command.upgrade, older)
        migrate(database_uri, command.upgrade, "head")
        schema.check(Database(database_uri))
        migrate(database_uri, command.downgrade, "base")


def test_an_empty_database_is_named_as_such(database_uri: str) -> None:
    with pytest.raises(SchemaError, match="has no statscache tables yet"):
        schema.check(Database(database_uri))


def test_an_unknown_schema_is_named_as_newer(migrated_uri: str) -> None:
    database = Database(migrated_uri)
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="it is newer; upgrade statscache"):
        schema.check(database)


def test_a_failed_migration_leaves_nothing_behind(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    schema.check(database)


def test_every_bundled_plugin_is_loaded() -> None:
    installed = discovery.discover({})
    assert installed.broken == []
    assert {dataset.source.distribution for dataset in installed.datasets.values()} == {
        BUNDLED_DISTRIBUTION
    }
