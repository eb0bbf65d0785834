"""Lanes: sets of plugins that share a checkpoint, and which messages each has counted.

A lane remembers the messages that it has counted by *claims*. Behind its watermark everything has
been reconciled with the archive, so that claims of what the archive has are pruned when they are
older than what it is asked for again. A checksum of each quarter of an hour is kept: with it,
:mod:`statscache.counting.late` decides whether a message that arrives later still was counted.
Claims of what the archive does not have stay, since no other record says that it was counted. So
the table is bounded by what arrives while the archive lags and overlaps, and by what the archive
has lost.

Without an archive claims are never pruned (about 100 bytes each), so a replay never counts a
message twice, a year later and in any order.

An id that comes again with another time is the same message for as long as it is claimed.
"""
