"""Lanes: sets of plugins that share a checkpoint, and which messages each has counted.

A lane remembers the messages that it has counted by *claims*. Behind its watermark everything has
been reconciled with the archive, so that claims of what the archive has are pruned when they are
older than what it is asked for again; a checksum of each quarter of an hour is kept, with which a
message that arrives later still can be told from one that was counted (see
:mod:`statscache.counting.late`). Claims of what the archive does not have stay: nothing else could
tell that it was counted. So the table is bounded by what comes in while the archive lags and
overlaps, and by what the archive has lost.

Without an archive all claims stay for ever, some hundred bytes for each message: whatever is
replayed, a year later and in any order, is still counted once. A claim that was pruned without an
archive that knows the message would be a message that counts twice.

An id that comes again with another time is the same message for as long as it is claimed.
"""
