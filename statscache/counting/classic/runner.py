"""Run classic plugins inside the engine's transaction, each isolated from the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Table, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from statscache.database.definitions import redirect
from statscache.database.failures import is_unavailable
from statscache.database.fence import Fence
from statscache.errors import PluginFault, Trespass, described, is_interrupt
from statscache.isolation.blame import blames_plugin
from statscache.isolation.time_limit import TimeLimit, Turn
from statscache.message import Message
from statscache.plugins.base import BasePlugin
from statscache.rejection import Rejection
from statscache.times import naive, unix_seconds

log = logging.getLogger(__name__)

_MOMENT = timedelta(microseconds=1)


class ClassicRunner:
    """One classic plugin, and the means to replace it by a new instance.

    What a plugin keeps in memory is not under the control of a transaction. After a rollback its
    memory no longer matches its table, so a new instance is made.

    Args:
        make: makes an instance.
        time_limit: under which it works.

    Attributes:
        fault: how it spoilt a transaction.
    """

    def __init__(self, make: Callable[[], BasePlugin], time_limit: TimeLimit) -> None:
        self._make = make
        self._time_limit = time_limit
        self._foreign: frozenset[str] = frozenset()
        self._plugin: BasePlugin | None = make()
        self.ident = self._plugin.ident
        self.fault: PluginFault | None = None
        self._is_launched = False
        self._is_touched = False
        self._table: Table | None = None
        self._shadow: str | None = None

    @property
    def plugin(self) -> BasePlugin:
        """The present instance, made when it is first needed.

        Raises:
            Exception: whatever the plugin's code raises.
        """
        if self._plugin is None:
            self._plugin = self._make()
        return self._plugin

    def keep_away_from(self, foreign: frozenset[str]) -> None:
        """Refuse whatever it would do to tables of these names, which are in lower case."""
        self._foreign = foreign

    def redirect(self, table: Table, shadow: str | None) -> None:
        """Redirect its statements from ``table`` to the table ``shadow``; None: no longer."""
        if shadow != self._shadow:
            self.renew()
        self._table, self._shadow = table, shadow

    @property
    def is_redirected(self) -> bool:
        """Whether it fills a shadow of its table."""
        return self._shadow is not None

    def begin(self, connection: Connection, since: float) -> float:
        """Ask it for the time of its last row, and revert what may be incomplete.

        Returns the time (UNIX seconds) from which it needs messages: ``since`` or later.

        Raises:
            Exception: whatever the plugin's code raises.
        """
        start = since

        def begin(session: Session) -> None:
            nonlocal start
            start = self._revert_incomplete(session, since)

        self._call(connection, begin)
        return start

    def _revert_incomplete(self, session: Session, since: float) -> float:
        plugin = self.plugin
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
        if unix_seconds(start) <= since:
            start, when = naive(since), naive(since) + _MOMENT
        plugin.revert(when, session)
        return max(since, unix_seconds(start))

    def window_start(self, moment: float) -> float:
        """The start of the window of the plugin in which a time (UNIX seconds) lies."""
        if self.plugin.schedule is None:
            return moment
        return unix_seconds(self.plugin.schedule.last(naive(moment)))

    def revert(self, connection: Connection, start: float) -> None:
        """Let it take back all rows of messages from ``start`` (UNIX seconds) on.

        Raises:
            Exception: whatever the plugin's code raises.
        """
        when = naive(start) if self.plugin.schedule is None else naive(start) + _MOMENT
        self._call(connection, lambda session: self.plugin.revert(when, session))
        self.renew()

    def launch(self, connection: Connection) -> None:
        """Let the plugin prepare itself, before its first message; once for each instance.

        Raises:
            Exception: the database's; what the plugin's own code raises is logged.
        """
        if self._is_launched:
            return
        try:
            with connection.begin_nested():
                self._call(connection, self.plugin.launch)
        except BaseException as error:
            if not blames_plugin(error):
                raise
            log.exception("%s could not be launched", self.ident)
        self._is_launched = True

    def process(self, messages: Sequence[Message]) -> list[Rejection]:
        """Let it process ``messages``, which are in the order of their timestamps.

        Raises:
            PluginTooSlow: it does not come to an end.
        """
        rejections: list[Rejection] = []
        self._is_touched = True
        turn = Turn([(self.ident,)])

        def work() -> None:
            process = self.plugin.process
            for message in messages:
                turn.message = message
                try:
                    process(message.raw)
                except BaseException as error:
                    if is_interrupt(error):
                        raise
                    rejections.append(Rejection.by_plugin(message, self.ident, error))

        self._time_limit.run_within(turn, work)
        return rejections

    def update(self, connection: Connection) -> bool:
        """Let it write its rows; returns whether it wrote any.

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
            self._call(connection, self.plugin.update)
        finally:
            event.remove(connection, "before_cursor_execute", notice)
        return wrote

    def _call(self, connection: Connection, work: Callable[[Session], None]) -> None:
        """Let it work with the database, fenced in and watched.

        Raises:
            PluginFault: the transaction must be rolled back.
            Exception: whatever else is wrong with what the plugin's code does.
        """
        self._is_touched = True
        fence = Fence(self._foreign)
        problem: BaseException | None = None

        def in_session() -> None:
            with self._session(connection) as session:
                work(session)
                session.commit()

        fence.put_around(connection)
        try:
            self._time_limit.run_within(Turn([(self.ident,)], fence), in_session)
        except BaseException as error:
            problem = error
        finally:
            fence.take_away()
        fault = self._fault_of(problem, fence, connection)
        if fault is not None:
            self.fault = fault
            fence.close(connection)
            raise fault from problem
        if fence.trespass is not None:
            # The plugin may have caught the refusal and continued.
            raise Trespass(fence.trespass) from problem
        if isinstance(problem, DBAPIError) and fence.is_elsewhere(problem):
            raise RuntimeError(f"on a connection of its own: {problem}") from problem
        if problem is not None:
            raise problem

    def _fault_of(
        self, problem: BaseException | None, fence: Fence, connection: Connection
    ) -> PluginFault | None:
        if isinstance(problem, PluginFault):
            return problem  # it was stopped at any line, perhaps inside SQLAlchemy
        if fence.is_intact(connection):
            return None
        if problem is not None and not isinstance(problem, Exception):
            # SQLAlchemy invalidates a connection through which such an exception went.
            text = described(problem)
            return None if is_interrupt(problem) else PluginFault(text, (self.ident,))
        if fence.trespass is None or _is_of_database(problem):
            return None
        return PluginFault(fence.trespass, (self.ident,))

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
        """The transaction is committed: its memory matches its table."""
        self._is_touched = False

    def roll_back(self) -> None:
        """The transaction was rolled back: discard its memory, if it was used since."""
        if self._is_touched:
            self.renew()

    def renew(self) -> None:
        """Forget all that the plugin holds in memory."""
        self.stop()
        self._plugin = None
        self._is_launched = self._is_touched = False
        self.fault = None

    def stop(self) -> None:
        """Let the plugin end its threads; called after its last batch."""
        if self._plugin is None:
            return
        try:
            self._plugin.stop()
        except BaseException as error:
            if is_interrupt(error):
                raise
            log.exception("%s could not be stopped", self.ident)


def _is_of_database(problem: BaseException | None) -> bool:
    return isinstance(problem, OperationalError) and is_unavailable(problem)
