"""The framework's tables and those of the first bundled plugins.

A migration is history: it names every table itself and imports nothing that may change later.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

VOLUMES = {
    "volume": None,
    "volume_by_category": "category",
    "volume_by_package": "package",
    "volume_by_topic": "topic",
    "volume_by_user": "user",
}
VOLUME_SCHEDULES = ("15s", "1m", "1h", "1d")

PAGURE = {
    "number_of_contribution_to_pagure_io_1d": None,
    "number_of_contribution_per_user_to_pagure_io_1d": "user",
    "number_of_contribution_per_project_to_pagure_io_1d": "project",
}

RELENG = "release_engineering_event_logs"


def upgrade() -> None:
    op.create_table(
        "statscache_lane",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", TEXT, nullable=False, unique=True),
        sa.Column("watermark", sa.Double()),
        sa.Column("newest", sa.Double()),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("batches", sa.BigInteger(), nullable=False),
        sa.Column("committed_at", sa.Double()),
        comment="One row per set of plugins that share a checkpoint.",
    )
    op.create_table(
        "statscache_claim",
        sa.Column("lane", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("identity", sa.LargeBinary(16), primary_key=True),
        sa.Column("timestamp", sa.Double(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        comment="The messages that a lane has counted.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "statscache_plugin",
        sa.Column("ident", TEXT, primary_key=True),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("error", TEXT),
        sa.Column("failed_at", sa.Double()),
        sa.Column("missed", sa.BigInteger(), nullable=False),
        comment="What the hub knows of each plugin, for the API and the command line.",
    )
    op.create_table(
        "statscache_revision",
        sa.Column("ident", TEXT, primary_key=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        comment="How often the rows behind an ident have changed.",
    )
    op.create_table(
        "statscache_rejected",
        sa.Column("digest", TEXT, primary_key=True),
        sa.Column("plugin", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.Column("last_seen", sa.Double(), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        comment="What came in and could not be counted, with the reason.",
    )
    op.create_index("ix_statscache_rejected_last_seen", "statscache_rejected", ["last_seen"])

    for name, key in VOLUMES.items():
        for schedule in VOLUME_SCHEDULES:
            create_counter(f"{name}_{schedule}", key)
    for name, key in PAGURE.items():
        create_counter(name, key)

    op.create_table(
        RELENG,
        sa.Column("timestamp", sa.Double(), nullable=False),
        sa.Column("category", TEXT, primary_key=True),
        sa.Column("category_constraint", TEXT, primary_key=True),
        sa.Column("message", TEXT, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index(f"ix_{RELENG}_time", RELENG, ["timestamp"])


def create_counter(name: str, key: str | None) -> None:
    keys = [sa.Column(key, TEXT, primary_key=True)] if key else []
    op.create_table(
        name,
        sa.Column("timestamp", sa.BigInteger(), primary_key=True, autoincrement=False),
        *keys,
        sa.Column("volume", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for name in VOLUMES:
        for schedule in VOLUME_SCHEDULES:
            op.drop_table(f"{name}_{schedule}")
    for name in (*PAGURE, RELENG):
        op.drop_table(name)
    for name in ("rejected", "revision", "plugin", "claim", "lane"):
        op.drop_table(f"statscache_{name}")
