"""Run classic plugins inside the engine's transaction, each isolated from the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, event
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import Session

from statscache.database import is_unavailable
from statscache.definitions import redirect
from statscache.errors import is_interrupt
from statscache.message import Message
from statscache.plugins.base import BasePlugin
from statscache.rejections import Rejection

log = logging.getLogger(__name__)

_MOMENT = timedelta(microseconds=1)


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
        self._is_touched = False
        self._table: Table | None = None
        self._shadow: str | None = None

    def redirect(self, table: Table, shadow: str | None) -> None:
        """From now on let it work on the table ``shadow`` instead of ``table``, if given."""
        if shadow != self._shadow:
            self.renew()
        self._table, self._shadow = table, shadow

    @property
    def is_redirected(self) -> bool:
        """Whether it fills a shadow of its table."""
        return self._shadow is not None

    def begin(self, connection: Connection, since: float) -> float:
        """Ask it up to when its rows are there, and revert what may be incomplete.

        Gives the time, UNIX seconds, from which it is to get messages: ``since`` or later.

        Raises:
            Exception: whatever the plugin's code raises.
        """
        plugin = self.plugin
        self._is_touched = True
        with self._session(connection) as session:
            latest = plugin.latest(session)
            if latest is None:
                return since
            if plugin.schedule is not None:
                # A row is stamped with the end of its window: the last one may be incomplete, and
                # the row that is stamped with its start belongs to the window before.
                start = plugin.schedule.last(latest - _MOMENT)
                when = start + _MOMENT
            else:
                start = when = latest
            if _seconds(start) <= since:
                start, when = _naive(since), _naive(since) + _MOMENT
            plugin.revert(when, session)
            session.commit()
        return max(since, _seconds(start))

    def window_start(self, moment: float) -> float:
        """The start of the window of the plugin in which a time (UNIX seconds) lies."""
        if self.plugin.schedule is None:
            return moment
        return _seconds(self.plugin.schedule.last(_naive(moment)))

    def revert(self, connection: Connection, start: float) -> None:
        """Let it take back all rows of messages from ``start`` (UNIX seconds) on.

        Raises:
            Exception: whatever the plugin's code raises.
        """
        when = _naive(start) if self.plugin.schedule is None else _naive(start) + _MOMENT
        with self._session(connection) as session:
            self.plugin.revert(when, session)
            session.commit()
        self.renew()

    def launch(self, connection: Connection) -> None:
        """Let the plugin prepare itself, before its first message; once for each instance.

        Raises:
            Exception: the database's; what the plugin's own code raises is logged.
        """
        if self._is_launched:
            return
        self._is_touched = True
        try:
            with connection.begin_nested(), self._session(connection) as session:
                self.plugin.launch(session)
                session.commit()
        except BaseException as error:
            if not blames_plugin(error):
                raise
            log.exception("%s could not be launched", self.ident)
        self._is_launched = True

    def process(self, messages: Sequence[Message]) -> list[Rejection]:
        """Give it ``messages``, which are in the order of their timestamps."""
        rejections = []
        self._is_touched = True
        process = self.plugin.process
        for message in messages:
            try:
                process(message.raw)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                rejections.append(Rejection.by_plugin(message, self.ident, error))
        return rejections

    def update(self, connection: Connection) -> bool:
        """Let it write its rows; gives whether it wrote any.

        Raises:
            Exception: whatever the plugin's code raises; the caller rolls back its savepoint.
        """
        wrote = False
        self._is_touched = True

        def notice(*arguments: Any) -> None:
            nonlocal wrote
            context = arguments[4]
            wrote = wrote or context.isinsert or context.isupdate or context.isdelete

        event.listen(connection, "before_cursor_execute", notice)
        try:
            with self._session(connection) as session:
                self.plugin.update(session)
                session.commit()
        finally:
            event.remove(connection, "before_cursor_execute", notice)
        return wrote

    @contextmanager
    def _session(self, connection: Connection) -> Iterator[Session]:
        """A session whose commit() and rollback() end a savepoint, never our transaction."""
        table, shadow = self._table, self._shadow

        def replace(*arguments: Any) -> tuple[str, Any]:
            assert table is not None
            assert shadow is not None
            return redirect(arguments[2], table, shadow), arguments[3]

        if shadow is not None:
            event.listen(connection, "before_cursor_execute", replace, retval=True)
        try:
            with Session(
                connection, join_transaction_mode="create_savepoint", expire_on_commit=False
            ) as session:
                yield session
        finally:
            if shadow is not None:
                event.remove(connection, "before_cursor_execute", replace)

    def commit(self) -> None:
        """What it was given is in the database now."""
        self._is_touched = False

    def roll_back(self) -> None:
        """What it was given since the last commit was not."""
        if self._is_touched:
            self.renew()

    def renew(self) -> None:
        """Forget all that the plugin holds in memory."""
        self.stop()
        self.plugin = self._make()
        self._is_launched = self._is_touched = False

    def stop(self) -> None:
        """Let the plugin end its threads; called after its last batch."""
        try:
            self.plugin.stop()
        except BaseException as error:
            if is_interrupt(error):
                raise
            log.exception("%s could not be stopped", self.ident)


_CONNECTION_LOST = "8s2b"
"""SQLAlchemy's code for whoever goes on with a connection that is lost."""


def blames_plugin(error: BaseException) -> bool:
    """Whether an exception in a plugin's writes is its own, not the database's or the user's.

    A plugin's ``sys.exit()`` is its own as well: it ends nothing but the plugin's turn.
    """
    if is_interrupt(error):
        return False
    if isinstance(error, PendingRollbackError) and error.code == _CONNECTION_LOST:
        return False  # which the plugin may have passed over
    return not (isinstance(error, DBAPIError) and is_unavailable(error))


def _seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


def _naive(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
