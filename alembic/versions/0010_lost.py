"""How many of the messages that were counted the audit found the archive to lack."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COLUMNS = ("lost", "lost_last_sweep")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column(
            "statscache_audit",
            sa.Column(name, sa.BigInteger, nullable=False, server_default="0"),
        )


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("statscache_audit", name)
