"""Why the hub had to end, for whoever asks the API how it is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "statscache_hub_failure",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("failed_at", sa.Double(), nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        comment="Why a hub had to end, until one listens again: one row at most.",
    )


def downgrade() -> None:
    op.drop_table("statscache_hub_failure")
