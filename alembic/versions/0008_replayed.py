"""Of which times files have been replayed, by ident."""

import sqlalchemy as sa
from alembic import op

from statscache.plugins.models import PLAIN_TEXT

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "statscache_replayed",
        sa.Column("ident", PLAIN_TEXT, primary_key=True),
        sa.Column("start", sa.Double(), primary_key=True),
        sa.Column("stop", sa.Double(), nullable=False),
        comment="Times of which an ident has counted all that a file has; UNIX seconds.",
    )


def downgrade() -> None:
    op.drop_table("statscache_replayed")
