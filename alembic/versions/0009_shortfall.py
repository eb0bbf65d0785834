"""What the archive lacked of what was counted, when plugins had been counted anew."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("statscache_plugin", sa.Column("shortfall", TEXT))


def downgrade() -> None:
    op.drop_column("statscache_plugin", "shortfall")
