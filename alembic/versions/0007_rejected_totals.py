"""Totals of what was rejected, and the size of what is kept of it."""

import hashlib
from collections import Counter

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

REJECTED = "statscache_rejected"
TOTAL = "statscache_rejected_total"
INDEX = "ix_statscache_rejected_kind"

ROW_BYTES = 500


def upgrade() -> None:
    op.add_column(REJECTED, sa.Column("kind", TEXT, nullable=False, server_default=""))
    op.add_column(REJECTED, sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        TOTAL,
        sa.Column("digest", TEXT, primary_key=True),
        sa.Column("plugin", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        comment="How many messages could not be counted, whether they are kept or not.",
    )
    fill()
    op.create_index(INDEX, REJECTED, ["kind", "last_seen", "size"])


def fill() -> None:
    connection = op.get_bind()
    length = "octet_length(content)"
    if connection.dialect.name == "sqlite":
        length = "length(CAST(content AS BLOB))"
    connection.execute(sa.text(f"UPDATE {REJECTED} SET size = {length} + {ROW_BYTES}"))  # noqa: S608
    rows = connection.execute(
        sa.text(f"SELECT digest, plugin, reason, times FROM {REJECTED}")  # noqa: S608
    )
    totals = Counter()
    kinds = []
    for digest, plugin, reason, times in rows:
        cause = cause_of(reason)
        totals[plugin, cause] += times
        kinds.append({"row": digest, "kind": digest_of(plugin, cause)})
    if kinds:
        connection.execute(
            sa.text(f"UPDATE {REJECTED} SET kind = :kind WHERE digest = :row"),  # noqa: S608
            kinds,
        )
    for (plugin, cause), messages in totals.items():
        connection.execute(
            sa.text(f"INSERT INTO {TOTAL} VALUES (:digest, :plugin, :cause, :messages)"),  # noqa: S608
            {
                "digest": digest_of(plugin, cause),
                "plugin": plugin,
                "cause": cause,
                "messages": messages,
            },
        )


def cause_of(reason: str) -> str:
    cause = reason.partition(": ")[0]
    # Archives begin with their address, or with the name of a file.
    return "archive" if "/" in cause else cause[:100]


def digest_of(plugin: str, cause: str) -> str:
    return hashlib.sha256(f"{plugin}\n{cause}".encode()).hexdigest()


def downgrade() -> None:
    op.drop_index(INDEX, REJECTED)
    op.drop_table(TOTAL)
    op.drop_column(REJECTED, "size")
    op.drop_column(REJECTED, "kind")
