"""Clients that wait for a change: events, and long polls (``wait=``).

Begin with :mod:`~statscache.app.live.listeners`: one thread of a process watches the revisions, and
wakes the listeners of the idents that have changed. :mod:`~statscache.app.live.event_stream` writes
the events of one listener, with the rows of :mod:`~statscache.app.live.event_rows`;
:mod:`~statscache.app.live.long_poll` delays one answer. With :mod:`~statscache.app.live.asgi`
clients that wait take no threads.
"""
