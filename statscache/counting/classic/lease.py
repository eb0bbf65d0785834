"""How long one process keeps the lanes of classic plugins, which remember things."""

LENGTH = 600.0
"""Seconds: longer than the archive may be away between two tries, so that no other process begins
to run them without what they remember."""
