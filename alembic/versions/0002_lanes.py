"""Lanes of their own for new, changed and failing plugins; what replaces claims that are pruned."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def counter(name: str, type_: sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, type_, nullable=False, server_default="0")


COLUMNS = {
    "statscache_lane": lambda: [
        sa.Column("joins", TEXT),
        counter("ordered", sa.Integer()),
        sa.Column("since", sa.Double()),
        sa.Column("horizon", sa.Double()),
        sa.Column("retry_at", sa.Double()),
        counter("failures", sa.Integer()),
        sa.Column("leased_by", TEXT),
        sa.Column("leased_until", sa.Double()),
        counter("generation", sa.BigInteger()),
    ],
    "statscache_claim": lambda: [counter("anonymous", sa.Integer())],
    "statscache_plugin": lambda: [
        sa.Column("since", sa.Double()),
        sa.Column("definition", TEXT),
        sa.Column("shadow", TEXT),
        sa.Column("pruned_until", sa.Double()),
        sa.Column("audited_until", sa.Double()),
        counter("mismatches", sa.BigInteger()),
    ],
}
ANONYMOUS_CLAIMS = "ix_statscache_claim_anonymous"
TABLES = ("counted", "late", "gap", "audit")


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns():
            op.add_column(table, column)
    # Which claims of earlier versions were of messages without id is not known: any may be.
    op.execute("UPDATE statscache_claim SET anonymous = 1")
    op.create_index(
        ANONYMOUS_CLAIMS,
        "statscache_claim",
        ["lane", "timestamp"],
        sqlite_where=sa.text("anonymous = 1"),
        postgresql_where=sa.text("anonymous = 1"),
    )
    op.create_table(
        "statscache_counted",
        sa.Column("lane", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("start", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(16), nullable=False),
        comment="What is left of claims that were pruned: enough to tell whether one was among "
        "them.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "statscache_late",
        sa.Column("lane", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("identity", sa.LargeBinary(16), primary_key=True),
        sa.Column("timestamp", sa.Double(), nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        comment="Messages that wait until the archive tells whether they were counted before.",
    )
    op.create_table(
        "statscache_gap",
        sa.Column("lane", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("start", sa.Double(), primary_key=True),
        sa.Column("stop", sa.Double(), nullable=False),
        sa.Column("missing", sa.BigInteger(), nullable=False),
        sa.Column("noticed_at", sa.Double(), nullable=False),
        comment="Times of which the archive did not give all that it says it has.",
    )
    op.create_table(
        "statscache_audit",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("sweeps", sa.Integer(), nullable=False),
        sa.Column("position", sa.Double()),
        sa.Column("checked_at", sa.Double()),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("mismatches", sa.BigInteger(), nullable=False),
        sa.Column("repaired", sa.BigInteger(), nullable=False),
        sa.Column("last_mismatch", TEXT),
        comment="How far the background audit is: one row.",
    )


def downgrade() -> None:
    for name in TABLES:
        op.drop_table(f"statscache_{name}")
    op.drop_index(ANONYMOUS_CLAIMS, "statscache_claim")
    for table, columns in COLUMNS.items():
        for column in columns():
            op.drop_column(table, column.name)
