"""Counts each message exactly once: a batch is claimed, folded, written, and the lane advances.

Begin with :mod:`~statscache.counting.batch`, what is counted; then
:mod:`~statscache.counting.commit`, the steps that it goes through in each lane, and
:mod:`~statscache.counting.engine`, which opens the transactions and is what others call.

Its folders:

- ``lanes``: what a lane remembers: claims, checksums, its checkpoint, gaps, its lease.
- ``folding``: what messages add to tables, and how that is written.
- ``membership``: which plugin is in which lane: new, failing, being rebuilt.
- ``classic``: what exists for classic plugins alone.
"""
