"""Columns that say what they hold: of lanes, of claims and of the sums of pruned claims.

The claims are the largest table. The number of the transaction that made a claim matters only
inside that transaction, so that of older claims only the sign is kept: whether the archive has the
message. On PostgreSQL one statement rewrites the table, without dead rows that a vacuum would have
to find; on SQLite one changes the rows in place.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

RENAMED = {
    "statscache_lane": {"since": "history_start", "horizon": "claims_pruned_until"},
    "statscache_claim_checksum": {"digest": "checksum"},
}


def is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def upgrade() -> None:
    rename_table("statscache_counted", "statscache_claim_checksum")
    for table, names in RENAMED.items():
        for old, new in names.items():
            rename_column(table, old, new)
    op.create_table(
        "statscache_membership",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        comment="Grows whenever lanes, or which plugins are in them, change: one row.",
    )
    op.execute(
        "INSERT INTO statscache_membership SELECT id, generation FROM statscache_lane WHERE id = 1"
    )
    op.drop_column("statscache_lane", "generation")
    if is_postgresql():
        op.execute(
            "ALTER TABLE statscache_claim "
            "ALTER batch TYPE integer USING (batch < 0)::integer, ALTER batch SET DEFAULT 0"
        )
        rename_column("statscache_claim", "batch", "archived")
        add_counter("statscache_claim", sa.Column("batch", sa.BigInteger()))
    else:
        add_counter("statscache_claim", sa.Column("archived", sa.Integer()))
        op.execute("UPDATE statscache_claim SET archived = 1, batch = 0 WHERE batch < 0")


def downgrade() -> None:
    if is_postgresql():
        op.drop_column("statscache_claim", "batch")
        rename_column("statscache_claim", "archived", "batch")
        op.execute(
            "ALTER TABLE statscache_claim ALTER batch DROP DEFAULT, "
            "ALTER batch TYPE bigint USING CASE batch WHEN 1 THEN -1 ELSE 2 END"
        )
    else:
        op.execute("UPDATE statscache_claim SET batch = -1 WHERE archived = 1")
        op.drop_column("statscache_claim", "archived")
    add_counter("statscache_lane", sa.Column("generation", sa.BigInteger()))
    op.execute(
        "UPDATE statscache_lane SET generation = (SELECT version FROM statscache_membership) "
        "WHERE id = 1 AND EXISTS (SELECT 1 FROM statscache_membership)"
    )
    op.drop_table("statscache_membership")
    for table, names in RENAMED.items():
        for old, new in names.items():
            rename_column(table, new, old)
    rename_table("statscache_claim_checksum", "statscache_counted")


def add_counter(table: str, column: sa.Column) -> None:
    column.nullable = False
    column.server_default = sa.DefaultClause("0")
    op.add_column(table, column)


def rename_column(table: str, old: str, new: str) -> None:
    op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")


def rename_table(old: str, new: str) -> None:
    op.rename_table(old, new)
    if is_postgresql():
        op.execute(f"ALTER INDEX {old}_pkey RENAME TO {new}_pkey")
