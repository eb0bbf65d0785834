"""Decides whether a plugin or the database caused an exception."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, PendingRollbackError

from statscache.database.failures import is_unavailable
from statscache.errors import PluginFault, is_interrupt

_CONNECTION_LOST = "8s2b"
"""SQLAlchemy's code for using a lost connection."""


def blames_plugin(error: BaseException) -> bool:
    """Whether an exception in a plugin's writes is its own, not the database's or the user's.

    A plugin's ``sys.exit()`` is its own as well: it ends nothing but the plugin's turn.
    """
    if is_interrupt(error) or isinstance(error, PluginFault):
        return False
    if isinstance(error, PendingRollbackError) and error.code == _CONNECTION_LOST:
        return False  # the plugin may have caught the error that lost it
    return not (isinstance(error, DBAPIError) and is_unavailable(error))
