"""What plugins had rejected, and counted, when they began to be counted anew."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("statscache_plugin", sa.Column("rejected_before", sa.LargeBinary()))
    op.add_column("statscache_plugin", sa.Column("counted_until", sa.Double()))


def downgrade() -> None:
    op.drop_column("statscache_plugin", "counted_until")
    op.drop_column("statscache_plugin", "rejected_before")
