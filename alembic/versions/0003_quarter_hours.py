"""Quarters of an hour, of which the days of all time zones are made; and indexes by key."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
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
    "number_of_contribution_to_pagure_io": None,
    "number_of_contribution_per_user_to_pagure_io": "user",
    "number_of_contribution_per_project_to_pagure_io": "project",
}
RELENG = "release_engineering_event_logs"
RELENG_INDEX = f"ix_{RELENG}_category_constraint_key"


def tables_by_key() -> list[tuple[str, str]]:
    """The tables that were there before, and the keys of those that have one."""
    tables = [(f"{name}_{s}", key) for name, key in VOLUMES.items() for s in VOLUME_SCHEDULES]
    tables += [(f"{name}_1d", key) for name, key in PAGURE.items()]
    return [(name, key) for name, key in tables if key]


def upgrade() -> None:
    for name, key in tables_by_key():
        create_index(name, key)
    for name, key in (VOLUMES | PAGURE).items():
        create_counter(f"{name}_15m", key)
    op.create_index(RELENG_INDEX, RELENG, ["category_constraint"])


def create_counter(name: str, key: str | None) -> None:
    keys = [sa.Column(key, TEXT, primary_key=True)] if key else []
    op.create_table(
        name,
        sa.Column("timestamp", sa.BigInteger(), primary_key=True, autoincrement=False),
        *keys,
        sa.Column("volume", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    if key:
        create_index(name, key)


def create_index(name: str, key: str) -> None:
    op.create_index(f"ix_{name}_{key}", name, [key, "timestamp"])


def downgrade() -> None:
    op.drop_index(RELENG_INDEX, RELENG)
    for name in VOLUMES | PAGURE:
        op.drop_table(f"{name}_15m")
    for name, key in tables_by_key():
        op.drop_index(f"ix_{name}_{key}", name)
