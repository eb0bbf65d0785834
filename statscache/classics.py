"""Run classic plugins inside the engine's transaction, each isolated from the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from statscache.database import is_unavailable
from statscache.message import Message
from statscache.plugins.base import BasePlugin
from statscache.rejections import Rejection

log = logging.getLogger(__name__)


class ClassicRunner:
    """One classic plugin, and the means to replace it by a new instance.

    What a plugin keeps in memory is not under the control of a transaction. So after anything
    that rolled back, its memory no longer says the same as its table, and it is made anew.
    """

    def __init__(self, make: Callable[[], BasePlugin]) -> None:
        self._make = make
        self.plugin = make()
        self.ident = self.plugin.ident
        self._is_launched = False

    def launch(self, connection: Connection) -> None:
        """Let the plugin prepare itself, before its first message; once for each instance.

        Raises:
            Exception: the database's; what the plugin's own code raises is logged.
        """
        if self._is_launched:
            return
        try:
            with connection.begin_nested(), _session(connection) as session:
                self.plugin.launch(session)
                session.commit()
        except Exception as error:
            if not blames_plugin(error):
                raise
            log.exception("%s could not be launched", self.ident)
        self._is_launched = True

    def process(self, messages: Sequence[Message]) -> list[Rejection]:
        """Give it ``messages``, which are in the order of their timestamps."""
        rejections = []
        process = self.plugin.process
        for message in messages:
            try:
                process(message.raw)
            except Exception as error:
                rejections.append(Rejection.by_plugin(message, self.ident, error))
        return rejections

    def update(self, connection: Connection) -> bool:
        """Let it write its rows; gives whether it wrote any.

        Raises:
            Exception: whatever the plugin's code raises; the caller rolls back its savepoint.
        """
        wrote = False

        def notice(*arguments: Any) -> None:
            nonlocal wrote
            context = arguments[4]
            wrote = wrote or context.isinsert or context.isupdate or context.isdelete

        event.listen(connection, "before_cursor_execute", notice)
        try:
            with _session(connection) as session:
                self.plugin.update(session)
                session.commit()
        finally:
            event.remove(connection, "before_cursor_execute", notice)
        return wrote

    def renew(self) -> None:
        """Forget all that the plugin holds in memory."""
        self.stop()
        self.plugin = self._make()
        self._is_launched = False

    def stop(self) -> None:
        """Let the plugin end its threads; called after its last batch."""
        try:
            self.plugin.stop()
        except Exception:
            log.exception("%s could not be stopped", self.ident)


def _session(connection: Connection) -> Session:
    # The plugin's own commit() and rollback() end a savepoint, never the engine's transaction.
    return Session(connection, join_transaction_mode="create_savepoint", expire_on_commit=False)


def blames_plugin(error: Exception) -> bool:
    """Whether an exception in a plugin's writes is its own, and not the database's."""
    return not (isinstance(error, DBAPIError) and is_unavailable(error))
