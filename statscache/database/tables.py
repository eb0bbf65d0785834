"""The framework's own tables: who has counted what, what was rejected, what has changed."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    text,
)

from statscache.plugins.collation import PLAIN_TEXT

metadata = MetaData()

lane = Table(
    "statscache_lane",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", PLAIN_TEXT, nullable=False, unique=True),
    # The name of the lane that this one joins when it has caught up.
    Column("joins", PLAIN_TEXT),
    # 1: its plugins want history before live messages, in the order of time.
    Column("ordered", Integer, nullable=False, default=0, server_default="0"),
    # The times below are UNIX seconds. History is filled in from here on; NULL without an archive.
    Column("history_start", Double),
    # Everything from `history_start` to here has been reconciled with the archive.
    Column("watermark", Double),
    # Claims of messages from `history_start` to here have been pruned.
    Column("claims_pruned_until", Double),
    # After a failure nothing is counted before this time.
    Column("retry_at", Double),
    Column("failures", Integer, nullable=False, default=0, server_default="0"),
    # Which process fills in its history, and until when others leave that to it.
    Column("leased_by", PLAIN_TEXT),
    Column("leased_until", Double),
    # The largest timestamp of a message that was counted; UNIX seconds.
    Column("newest", Double),
    Column("messages", BigInteger, nullable=False, default=0),
    Column("batches", BigInteger, nullable=False, default=0),
    Column("committed_at", Double),
    # Live messages have been counted without a pause from `live_since` to `beat_at`, even if there
    # were none.
    Column("live_since", Double),
    Column("beat_at", Double),
    comment="One row per set of plugins that share a checkpoint.",
)

membership = Table(
    "statscache_membership",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    comment="Grows whenever lanes, or which plugins are in them, change: one row.",
)

claim = Table(
    "statscache_claim",
    metadata,
    Column("lane", Integer, primary_key=True, autoincrement=False),
    # A 16-byte digest of the identity of the message: half the size of the text, and these rows
    # are the largest part of what a batch writes.
    Column("identity", LargeBinary(16), primary_key=True),
    Column("timestamp", Double, nullable=False),
    # A random number per transaction: it tells those that it claimed from those that were claimed
    # before. 0 where that is long ago.
    Column("batch", BigInteger, nullable=False, default=0, server_default="0"),
    # 1: the message had no id, so this is the digest of its content.
    Column("anonymous", Integer, nullable=False, default=0, server_default="0"),
    # 1: the archive has the message; 0: as far as is known, only the bus has brought it.
    Column("archived", Integer, nullable=False, default=0, server_default="0"),
    Index(
        "ix_statscache_claim_anonymous",
        "lane",
        "timestamp",
        sqlite_where=text("anonymous = 1"),
        postgresql_where=text("anonymous = 1"),
    ),
    comment="The messages that a lane has counted.",
    sqlite_with_rowid=False,
)

plugin = Table(
    "statscache_plugin",
    metadata,
    Column("ident", PLAIN_TEXT, primary_key=True),
    Column("lane", Integer, nullable=False),
    # One of statscache.database.plugin_state.
    Column("state", PLAIN_TEXT, nullable=False),
    Column("error", PLAIN_TEXT),
    Column("failed_at", Double),
    # Messages that others counted while its writes failed, and that no archive has.
    Column("missed", BigInteger, nullable=False, default=0),
    # From when on it has counted everything; UNIX seconds.
    Column("since", Double),
    # What the table behind the ident holds, as JSON; another definition needs another table.
    Column("definition", PLAIN_TEXT),
    # The table that is filled beside the served one, to take its place.
    Column("shadow", PLAIN_TEXT),
    # Rows of earlier times have been deleted, because of their age.
    Column("pruned_until", Double),
    # The audit has compared everything from `since` to here with the archive.
    Column("audited_until", Double),
    Column("mismatches", BigInteger, nullable=False, default=0, server_default="0"),
    # When it first got live messages; NULL while it does not get any.
    Column("live_since", Double),
    # With a shadow: the served table has counted nothing that is newer.
    Column("served_until", Double),
    # With a shadow: the newest message that the served table may have counted, and the claims'
    # digests of the messages that the plugin had rejected by then, one behind the other.
    Column("counted_until", Double),
    Column("rejected_before", LargeBinary),
    # With a shadow: what the archive lacks of what was counted, where that is too much.
    Column("shortfall", PLAIN_TEXT),
    comment="What the hub knows of each plugin, for the API and the command line.",
)

replayed = Table(
    "statscache_replayed",
    metadata,
    Column("ident", PLAIN_TEXT, primary_key=True),
    Column("start", Double, primary_key=True),
    Column("stop", Double, nullable=False),
    comment="Times of which an ident has counted all that a file has; UNIX seconds.",
)

claim_checksum = Table(
    "statscache_claim_checksum",
    metadata,
    Column("lane", Integer, primary_key=True, autoincrement=False),
    # The start of a quarter of an hour.
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    # How many claims.
    Column("messages", BigInteger, nullable=False),
    # The exclusive or of their identities.
    Column("checksum", LargeBinary(16), nullable=False),
    comment="What is left of claims that were pruned: enough to tell whether one was among them.",
    sqlite_with_rowid=False,
)

late = Table(
    "statscache_late",
    metadata,
    Column("lane", Integer, primary_key=True, autoincrement=False),
    Column("identity", LargeBinary(16), primary_key=True),
    Column("timestamp", Double, nullable=False),
    Column("content", PLAIN_TEXT, nullable=False),
    Column("received_at", Double, nullable=False),
    comment="Messages that wait until the archive tells whether they were counted before.",
)

gap = Table(
    "statscache_gap",
    metadata,
    Column("lane", Integer, primary_key=True, autoincrement=False),
    Column("start", Double, primary_key=True),
    Column("stop", Double, nullable=False),
    # How many messages; 0: unknown, because no hub was running and there was no archive.
    Column("missing", BigInteger, nullable=False),
    Column("noticed_at", Double, nullable=False),
    comment="Times of which the archive did not give all that it says it has.",
)

audit = Table(
    "statscache_audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # How many times the whole history has been compared with the archive.
    Column("sweeps", Integer, nullable=False),
    # Where the present sweep goes on; UNIX seconds.
    Column("position", Double),
    Column("checked_at", Double),
    Column("messages", BigInteger, nullable=False),
    Column("mismatches", BigInteger, nullable=False),
    Column("repaired", BigInteger, nullable=False),
    # The newest difference, as a person reads it.
    Column("last_mismatch", PLAIN_TEXT),
    # Messages that were counted and that the archive lacks, where that makes rows differ: in the
    # present sweep, and in the one before.
    Column("lost", BigInteger, nullable=False, default=0, server_default="0"),
    Column("lost_last_sweep", BigInteger, nullable=False, default=0, server_default="0"),
    comment="How far the background audit is: one row.",
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

hub_failure = Table(
    "statscache_hub_failure",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("failed_at", Double, nullable=False),
    Column("reason", PLAIN_TEXT, nullable=False),
    comment="Why a hub had to end, until one listens again: one row at most.",
)

rejected = Table(
    "statscache_rejected",
    metadata,
    # Of the plugin and the content: the same refusal is one row.
    Column("digest", PLAIN_TEXT, primary_key=True),
    # The plugin that could not take the message; empty when it was no message at all.
    Column("plugin", PLAIN_TEXT, nullable=False),
    Column("reason", PLAIN_TEXT, nullable=False),
    Column("content", PLAIN_TEXT, nullable=False),
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    # How many messages these were; one that is retried is the same one.
    Column("times", BigInteger, nullable=False),
    # The digest of the row of `statscache_rejected_total` that counts it.
    Column("kind", PLAIN_TEXT, nullable=False, default="", server_default=""),
    # Bytes.
    Column("size", BigInteger, nullable=False, default=0, server_default="0"),
    Index("ix_statscache_rejected_last_seen", "last_seen"),
    # The size as well: what is kept is added up without reading the contents.
    Index("ix_statscache_rejected_kind", "kind", "last_seen", "size"),
    comment="What came in and could not be counted, with the reason.",
)

rejected_total = Table(
    "statscache_rejected_total",
    metadata,
    # Of the plugin and the cause.
    Column("digest", PLAIN_TEXT, primary_key=True),
    Column("plugin", PLAIN_TEXT, nullable=False),
    # The beginning of the reasons: there are few.
    Column("cause", PLAIN_TEXT, nullable=False),
    Column("messages", BigInteger, nullable=False),
    comment="How many messages could not be counted, whether they are kept or not.",
)
