"""The connection, the tables of the framework, and what is written to them how.

Begin with ``tables``, which has all of the framework's tables, and ``connection``, by which
everything is read and written.

- The schema: ``migrations`` (what changes it), ``schema`` (whether it is that of this version),
  ``definitions`` (what the tables of a plugin were made for), ``plugin_state`` (the states of a
  plugin, in words).
- Connections: ``engines`` (how SQLAlchemy's are made), ``failures`` (which errors mean that the
  database is away), ``forks`` (no connection is shared by two processes), ``privileges`` (whether
  this user may write).
- What statements may do: ``fence`` (a plugin cannot end a transaction), ``deadline`` (a reader
  cannot wait for ever).
- What is written and read: ``upsert`` (merged with what is there), ``announcements`` (other
  processes are told of new revisions), ``export`` (rows as files).
"""
