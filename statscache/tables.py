"""The framework's own tables: who has counted what, what was rejected, what has changed."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, Table

from statscache.plugins.models import PLAIN_TEXT

metadata = MetaData()

lane = Table(
    "statscache_lane",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", PLAIN_TEXT, nullable=False, unique=True),
    # Everything older has been reconciled with the archive; UNIX seconds.
    Column("watermark", Double),
    # The largest timestamp of a message that was counted; UNIX seconds.
    Column("newest", Double),
    Column("messages", BigInteger, nullable=False, default=0),
    Column("batches", BigInteger, nullable=False, default=0),
    Column("committed_at", Double),
    comment="One row per set of plugins that share a checkpoint.",
)

claim = Table(
    "statscache_claim",
    metadata,
    Column("lane", Integer, primary_key=True, autoincrement=False),
    # A 16-byte digest of the identity of the message: half the size of the text, and these rows
    # are the largest part of what a batch writes.
    Column("identity", LargeBinary(16), primary_key=True),
    Column("timestamp", Double, nullable=False),
    # A random number per transaction.
    Column("batch", BigInteger, nullable=False),
    comment="The messages that a lane has counted.",
    sqlite_with_rowid=False,
)

plugin = Table(
    "statscache_plugin",
    metadata,
    Column("ident", PLAIN_TEXT, primary_key=True),
    Column("lane", Integer, nullable=False),
    # "active", or "failing": its last write did not succeed.
    Column("state", PLAIN_TEXT, nullable=False),
    Column("error", PLAIN_TEXT),
    Column("failed_at", Double),
    # Messages that others counted while its writes failed.
    Column("missed", BigInteger, nullable=False, default=0),
    comment="What the hub knows of each plugin, for the API and the command line.",
)

revision = Table(
    "statscache_revision",
    metadata,
    Column("ident", PLAIN_TEXT, primary_key=True),
    # Grows by one with each batch that wrote to the table of the ident.
    Column("revision", BigInteger, nullable=False),
    Column("changed_at", Double, nullable=False),
    comment="How often the rows behind an ident have changed.",
)

rejected = Table(
    "statscache_rejected",
    metadata,
    # Of the plugin, the reason's first word and the content: the same refusal is one row.
    Column("digest", PLAIN_TEXT, primary_key=True),
    # The plugin that could not take the message; empty when it was no message at all.
    Column("plugin", PLAIN_TEXT, nullable=False),
    Column("reason", PLAIN_TEXT, nullable=False),
    Column("content", PLAIN_TEXT, nullable=False),
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("times", BigInteger, nullable=False),
    Index("ix_statscache_rejected_last_seen", "last_seen"),
    comment="What came in and could not be counted, with the reason.",
)
