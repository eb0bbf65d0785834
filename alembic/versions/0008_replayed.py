"""Of which times files have been replayed, by ident."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "statscache_replayed",
        sa.Column("ident", TEXT, primary_key=True),
        sa.Column("start", sa.Double(), primary_key=True),
        sa.Column("stop", sa.Double(), nullable=False),
        comment="Times of which an ident has counted all that a file has; UNIX seconds.",
    )


def downgrade() -> None:
    op.drop_table("statscache_replayed")
