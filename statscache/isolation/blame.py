"""Whose fault an exception is that a plugin's writes have ended with."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, PendingRollbackError

from statscache.database.failures import is_unavailable
from statscache.errors import PluginFault, is_interrupt

_CONNECTION_LOST = "8s2b"
"""SQLAlchemy's code for whoever goes on with a connection that is lost."""


def blames_plugin(error: BaseException) -> bool:
    """Whether an exception in a plugin's writes is its own, not the database's or the user's.

    A plugin's ``sys.exit()`` is its own as well: it ends nothing but the plugin's turn.
    """
    if is_interrupt(error) or isinstance(error, PluginFault):
        return False
    if isinstance(error, PendingRollbackError) and error.code == _CONNECTION_LOST:
        return False  # which the plugin may have passed over
    return not (isinstance(error, DBAPIError) and is_unavailable(error))
