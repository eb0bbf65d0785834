"""The engine: it counts one batch of messages in one transaction.

Claim the messages that were not counted before, fold them, upsert the rows, advance the
checkpoint; all of it is committed, or none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Connection, delete, select

from statscache import tables
from statscache.classics import ClassicRunner, blames_plugin
from statscache.config import Settings
from statscache.database import Database
from statscache.fold import Folder, Partial
from statscache.lanes import MAIN, Lane, Lanes
from statscache.message import Message
from statscache.migrations import BUNDLED_DISTRIBUTION
from statscache.plugins.discovery import Installed
from statscache.rejections import Rejection, RejectionLog
from statscache.upsert import Upsert, aggregate_upsert

log = logging.getLogger(__name__)

_MOST_TOPICS_REMEMBERED = 10_000


@dataclass
class Outcome:
    """What became of a batch."""

    counted: int = 0
    duplicates: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)
    """Ident to error of the plugins whose rows of this batch could not be written."""


class Engine:
    """Counts messages for all the installed plugins.

    One thread at a time may use it.

    Args:
        database: to write to.
        installed: the plugins.
        retention: schedule to the age at which rows of that resolution are deleted; it overrides
            what the plugins declare.
    """

    def __init__(
        self,
        database: Database,
        installed: Installed,
        retention: Mapping[str, timedelta] | None = None,
    ) -> None:
        self._database = database
        self._installed = installed
        self._retention = retention or {}
        backend = database.backend
        self._lanes = Lanes(backend)
        self._rejections = RejectionLog(backend)
        self._revisions = Upsert(
            tables.revision,
            backend,
            {
                "revision": lambda old, new: old["revision"] + new["revision"],
                "changed_at": lambda old, new: new["changed_at"],
            },
        )
        self._folders = [Folder(plugin) for plugin in installed.aggregates]
        self._upserts = {
            table.ident: aggregate_upsert(plugin, table, backend)
            for plugin in installed.aggregates
            for table in plugin.tables
        }
        self._classics = [ClassicRunner(make) for make in installed.classics]
        self._subscribers: dict[str, tuple[int, ...]] = {}
        self._failing: set[str] = set()
        self._lane: Lane | None = None

    @classmethod
    def from_settings(cls, settings: Settings, installed: Installed) -> Engine:
        """An engine on the configured database."""
        return cls(Database(settings.uri), installed, settings.retention)

    def open(self) -> None:
        """Check the schema, create what third-party plugins lack, and launch classic plugins.

        Raises:
            SchemaError: the schema is not the one of this version.
            DatabaseUnavailable: nothing has been done yet; call it again later.
        """
        self._database.check_schema()
        others = [
            dataset.model.__table__
            for dataset in self._installed.datasets.values()
            if dataset.source.distribution != BUNDLED_DISTRIBUTION
        ]
        for name in self._database.create_missing(others):
            log.info("created the table %s", name)
        with self._database.begin() as connection:
            self._lane = self._lanes.open(connection, MAIN)
            self._register(connection, self._lane)
        with self._database.begin() as connection:
            for runner in self._classics:
                runner.launch(connection)

    def close(self) -> None:
        """Stop the plugins and close the connections."""
        for runner in self._classics:
            runner.stop()
        self._database.dispose()

    def count(self, messages: Sequence[Message], rejections: Iterable[Rejection] = ()) -> Outcome:
        """Count those of ``messages`` that were not counted before, and keep the rejections.

        Raises:
            DatabaseUnavailable: nothing of this was committed; the same call may be made again.
        """
        assert self._lane is not None, "open() comes first"
        outcome = Outcome(rejections=list(rejections))
        try:
            with self._database.begin() as connection:
                new = self._lanes.claim(connection, self._lane, messages)
                outcome.counted = len(new)
                outcome.duplicates = len(messages) - len(new)
                changed = self._write_aggregates(connection, new, outcome)
                changed += self._write_classics(connection, new, outcome)
                self._rejections.record(connection, outcome.rejections)
                self._note_failures(connection, outcome)
                now = time.time()
                self._revisions.run(connection, [(ident, 1, now) for ident in sorted(changed)])
                self._lanes.advance(connection, self._lane, new)
        except BaseException:
            for runner in self._classics:
                runner.renew()
            raise
        return outcome

    def prune(self) -> None:
        """Delete the rows that are older than their retention, and the oldest rejections."""
        now = time.time()
        with self._database.begin() as connection:
            for plugin in self._installed.aggregates:
                for table in plugin.tables:
                    if table.width is None:
                        continue
                    age = self._retention.get(str(table.schedule), table.retention)
                    if age is not None:
                        old = table.table.c.timestamp < int(now - age.total_seconds())
                        connection.execute(delete(table.table).where(old))
            self._rejections.prune(connection)

    def _register(self, connection: Connection, lane: Lane) -> None:
        known = set(connection.scalars(select(tables.plugin.c.ident)))
        rows = [
            {"ident": ident, "lane": lane.id, "state": "active", "missed": 0}
            for ident in self._installed.datasets
            if ident not in known
        ]
        if rows:
            connection.execute(tables.plugin.insert(), rows)

    def _write_aggregates(
        self, connection: Connection, messages: Sequence[Message], outcome: Outcome
    ) -> list[str]:
        partials = self._fold(messages, outcome)
        changed: list[str] = []
        for folder, partial in zip(self._folders, partials, strict=True):
            if not partial:
                continue
            written = []
            try:
                with connection.begin_nested():
                    for table, rows in folder.tables(partial):
                        self._upserts[table.ident].run(connection, rows)
                        written.append(table.ident)
            except Exception as error:
                self._blame(outcome, [table.ident for table in folder.plugin.tables], error)
            else:
                changed += written
        return changed

    def _fold(self, messages: Sequence[Message], outcome: Outcome) -> list[Partial]:
        partials: list[Partial] = [{} for _ in self._folders]
        calls = [
            (folder.fold, partial) for folder, partial in zip(self._folders, partials, strict=True)
        ]
        subscribers = self._subscribers
        for message in messages:
            numbers = subscribers.get(message.topic)
            if numbers is None:
                numbers = self._subscribe(message.topic)
            for number in numbers:
                fold, partial = calls[number]
                try:
                    fold(message, partial)
                except Exception as error:
                    name = self._folders[number].plugin.name
                    outcome.rejections.append(Rejection.by_plugin(message, name, error))
        return partials

    def _subscribe(self, topic: str) -> tuple[int, ...]:
        """Which folders want ``topic``; remembered, because a bus has few topics."""
        if len(self._subscribers) >= _MOST_TOPICS_REMEMBERED:
            self._subscribers.clear()
        numbers = tuple(i for i, folder in enumerate(self._folders) if folder.subscribes(topic))
        self._subscribers[topic] = numbers
        return numbers

    def _write_classics(
        self, connection: Connection, messages: Sequence[Message], outcome: Outcome
    ) -> list[str]:
        if not self._classics:
            return []
        in_order = sorted(messages, key=lambda message: message.timestamp)
        changed = []
        for runner in self._classics:
            runner.launch(connection)
            outcome.rejections += runner.process(in_order)
            try:
                with connection.begin_nested():
                    if runner.update(connection):
                        changed.append(runner.ident)
            except Exception as error:
                self._blame(outcome, [runner.ident], error)
                runner.renew()
        return changed

    def _blame(self, outcome: Outcome, idents: list[str], error: Exception) -> None:
        if not blames_plugin(error):
            raise error
        text = f"{type(error).__name__}: {error}"
        log.error("the rows of %s cannot be written: %s", ", ".join(idents), text, exc_info=error)
        outcome.failing.update(dict.fromkeys(idents, text))

    def _note_failures(self, connection: Connection, outcome: Outcome) -> None:
        plugin = tables.plugin
        for ident, error in outcome.failing.items():
            connection.execute(
                plugin.update()
                .where(plugin.c.ident == ident)
                .values(
                    state="failing",
                    error=error[:10_000],
                    failed_at=time.time(),
                    missed=plugin.c.missed + outcome.counted,
                )
            )
