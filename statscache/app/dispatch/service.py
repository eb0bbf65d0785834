"""What an application holds: settings, plugins, revisions, and the way to the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import Connection

import statscache
from statscache.app.dispatch import canonical
from statscache.app.live.listeners import Listeners
from statscache.app.routes.downloads import Exports
from statscache.app.state.datasets import Served, Stored
from statscache.app.state.revisions import Revisions
from statscache.config import Settings
from statscache.database import migrations, privileges, schema, tables
from statscache.database.connection import Database
from statscache.errors import AccessDenied, StatscacheError
from statscache.plugins.discovery import Installed

if TYPE_CHECKING:
    from statscache.app.dispatch.dispatcher import Dispatcher
    from statscache.app.live.event_rows import NewestRows
    from statscache.app.routes.metrics import Measured


class Service:
    """Made once per application; all its threads share it.

    Attributes:
        installed: the plugins, as they are installed.
        stored: the datasets as their tables are.
        listeners: who waits for changes.
        newest: the rows that events carry; set with the routes that tell them.
        dispatcher: answers requests; set with the routes.
        measured: counts what was answered; set with the routes.
        fingerprint: of what answers depend on besides the database: the version, the configuration
            and the plugins. All the workers of one deployment have the same.
    """

    newest: NewestRows
    dispatcher: Dispatcher
    measured: Measured

    def __init__(self, settings: Settings, installed: Installed) -> None:
        self.settings = settings
        self.installed = installed
        self.stored = Stored(installed)
        self.exports = Exports()
        self._database = Database(
            settings.uri, read_only=True, statement_timeout=settings.statement_timeout
        )
        self._has_our_schema = False
        self.revisions = Revisions(self.reading, self._database)
        self.listeners = Listeners(self.revisions, settings.maximum_listeners)
        self.fingerprint = canonical.digest(
            statscache.__version__,
            repr(sorted(asdict(settings).items())),
            tuple((d.ident, d.source) for d in installed.datasets.values()),
            tuple(installed.broken),
        )

    @property
    def patience(self) -> float:
        """Seconds in which a client must have read what is sent of an answer without end."""
        settings = self.settings
        # A client that listens is sent nothing for as long as a heart takes to beat.
        longest = max(settings.request_timeout, 2 * settings.heartbeat)
        return longest.total_seconds()

    def runs_in(self, threads: int | None) -> None:
        """Let listeners and downloads leave some of the ``threads`` of the server to others.

        Args:
            threads: how many there are; None where neither of them takes one.
        """
        if threads is None:
            self.listeners.take_no_threads()
        else:
            self.listeners.leave_threads(threads)
        self.exports.leave_threads(threads)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads: all that is read in it is of one moment.

        Raises:
            DatabaseUnavailable: the database does not answer.
            SchemaError: it has not been upgraded; asked anew until it has.
            StatementTimeout: a statement ran longer than it may.
            AccessDenied: a table may not be read.
        """
        try:
            if not self._has_our_schema:
                schema.check(self._database)
                self._has_our_schema = True
            with self._database.begin() as connection:
                yield connection
        except AccessDenied as error:
            with self._database.begin() as connection:
                self.check_access(connection)
            # Nothing of what is served, or it has just been granted.
            raise error

    def check_access(self, connection: Connection) -> None:
        """See that all the tables that are there may be read.

        Raises:
            AccessDenied: one may not; the message has the GRANT.
        """
        ours = [table.name for table in tables.metadata.sorted_tables]
        served = [each.model.__table__.name for each in self.installed.datasets.values()]
        grant = privileges.missing(connection, [migrations.REVISIONS, *ours, *served])
        if grant is not None:
            raise AccessDenied(f"tables may not be read; their owner has to say: {grant};")

    def served(self) -> Served:
        """What there is to serve now; what there was last, while the database does not answer."""
        try:
            return self.stored.at(self.revisions.all())
        except StatscacheError:
            return self.stored.last
