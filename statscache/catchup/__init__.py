"""Filling tables from the archive: at start, over and over, and for new plugins.

Begin with ``loop``, whose step moves each lane. It asks the others in this order:

- ``ready_lanes`` (which lanes are to be moved), ``lane_leases`` (which of them this process moves);
- ``archive_end`` (up to when), ``polling`` (how the archive is asked);
- ``fill_in`` (lanes far from there, a window at a time), with ``workers`` and ``executors``
  (windows that are fetched and folded elsewhere);
- ``reconcile`` (lanes that are near it, all at once);
- ``outage`` (what happens while the archive cannot be asked);
- ``progress`` and ``lane_log`` (what people are shown of it).
"""
