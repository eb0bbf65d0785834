"""The plugins of one lane, ready to count what the lane has claimed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, select

from statscache.counting.classic.runner import ClassicRunner
from statscache.counting.folding.fold import Folder, Partial
from statscache.database.definitions import shadow_table
from statscache.database.upsert import Upsert, aggregate_upsert
from statscache.errors import is_interrupt
from statscache.isolation.blame import blames_plugin
from statscache.isolation.lost_connections import LostConnections
from statscache.isolation.time_limit import TimeLimit, Turn
from statscache.message import Message
from statscache.plugins.aggregate import Aggregate, AggregateTable, fits
from statscache.rejection import Rejection
from statscache.topics import EVERYTHING

_MOST_TOPICS_REMEMBERED = 10_000


@dataclass(frozen=True)
class Target:
    """One ident in a lane: what is written for it, and where.

    Attributes:
        shadow: the table that is filled instead of the served one; None: the served one.
        since: where its history begins, UNIX seconds; None: anywhere.
        pruned_until: older rows have been deleted and are not written again.
    """

    ident: str
    table: AggregateTable | None
    plugin: Any
    shadow: str | None = None
    since: float | None = None
    pruned_until: float | None = None


@dataclass
class WriteResult:
    """What became of the messages that the plugins of a lane got.

    Attributes:
        changed: the idents whose tables were written.
        failed: the idents of each plugin whose rows could not be written, and the error.
        rejections: what plugins could not take.
    """

    changed: list[str] = field(default_factory=list)
    failed: list[tuple[tuple[str, ...], BaseException]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


class LanePlugins:
    """Folds messages for the plugins of a lane, and writes their rows.

    Args:
        targets: of the aggregates.
        runners: of the classic plugins, each with the time from which it gets messages.
        backend: the name of the database's dialect.
        floor: where the history of their lanes begins, UNIX seconds; None without an archive.
            What is older comes from the bus alone, and all plugins get it. Of what is newer, none
            gets what is older than its own history: the archive does not return that to it either.
        time_limit: under which the aggregates work.
        lost_connections: notes in which turns the connection was lost.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        runners: Sequence[tuple[ClassicRunner, float | None]],
        backend: str,
        floor: float | None = None,
        *,
        time_limit: TimeLimit,
        lost_connections: LostConnections,
    ) -> None:
        self._backend = backend
        self._time_limit = time_limit
        self._lost_connections = lost_connections
        self.targets = {target.ident: target for target in targets}
        self.runners = [runner for runner, _ in runners]
        self.history_starts = [since for _, since in runners]
        self._floor = math.inf if floor is None else floor
        self.folders = folders(targets)
        self.idents = (*self.targets, *(runner.ident for runner in self.runners))
        self._since = [self.targets[folder.idents[0]].since for folder in self.folders]
        self._upserts = {
            target.ident: _upsert(target.plugin, target.table, target.shadow, backend)
            for target in targets
            if target.table is not None
        }
        self._subscribers: dict[str, tuple[int, ...]] = {}

    @property
    def plugins(self) -> int:
        """How many plugins it has."""
        return len(self.folders) + len(self.runners)

    @property
    def served(self) -> list[str]:
        """The idents whose served tables are written, and not shadows of them."""
        filled = {ident for ident, target in self.targets.items() if target.shadow is not None}
        filled |= {runner.ident for runner in self.runners if runner.is_redirected}
        return [ident for ident in self.idents if ident not in filled]

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that at least one of them subscribes to."""
        if self.runners:
            return EVERYTHING
        topics = {topic for folder in self.folders for topic in folder.plugin.topics}
        return EVERYTHING if "#" in topics else tuple(sorted(topics))

    def only(self, idents: Iterable[str]) -> LanePlugins:
        """Those of some idents, for messages that were theirs from the beginning, however old."""
        chosen = frozenset(idents)
        return LanePlugins(
            [target for ident, target in self.targets.items() if ident in chosen],
            [(runner, None) for runner in self.runners if runner.ident in chosen],
            self._backend,
            time_limit=self._time_limit.lifted(),
            lost_connections=self._lost_connections,
        )

    def count(
        self, connection: Connection, messages: Sequence[Message], start: float | None = None
    ) -> WriteResult:
        """Let all of them count ``messages``; ``start`` is that of :meth:`fold`.

        Raises:
            PluginFault: one of them spoilt the transaction.
        """
        result = WriteResult()
        turn = self._turn()
        partials = self._fold_within(turn, messages, result.rejections, start)
        slowest = turn.slowest()
        if slowest is not None:
            # While it folded, the server may have ended the session as idle.
            idents, seconds = slowest
            with self._lost_connections.turn(connection, idents, len(messages), seconds):
                connection.execute(select(1))
        self._write(connection, partials, len(messages), result)
        self._run_classics(connection, messages, result, start)
        return result

    def write(self, connection: Connection, partials: Iterable[Partial], size: int) -> WriteResult:
        """Upsert the rows of ``partials``, which were made of ``size`` messages."""
        result = WriteResult()
        self._write(connection, partials, size, result)
        return result

    def fold(
        self, messages: Sequence[Message], rejections: list[Rejection], start: float | None = None
    ) -> list[Partial]:
        """One partial for each of :attr:`folders`.

        ``start``, for messages of the archive, is the time from which on they are: a plugin whose
        own history begins later does not get the older ones.

        Raises:
            PluginTooSlow: one of them does not come to an end.
        """
        return self._fold_within(self._turn(), messages, rejections, start)

    def _turn(self) -> Turn:
        return Turn([folder.idents for folder in self.folders])

    def _fold_within(
        self,
        turn: Turn,
        messages: Sequence[Message],
        rejections: list[Rejection],
        start: float | None,
    ) -> list[Partial]:
        partials: list[Partial] = [{} for _ in self.folders]
        if self.folders:
            self._time_limit.run_within(
                turn, lambda: self._fold(messages, partials, rejections, start, turn)
            )
        return partials

    def _fold(
        self,
        messages: Sequence[Message],
        partials: Sequence[Partial],
        rejections: list[Rejection],
        start: float | None,
        turn: Turn,
    ) -> None:
        calls = [
            (folder.fold, partial) for folder, partial in zip(self.folders, partials, strict=True)
        ]
        bounds = None
        first = self._first(start)
        if any(since is not None and since > first for since in self._since):
            bounds = [since or 0.0 for since in self._since]
        subscribers = self._subscribers
        for message in messages:
            turn.message = message
            numbers = subscribers.get(message.topic)
            if numbers is None:
                numbers = self._subscribe(message.topic)
            for number in numbers:
                if bounds is not None and first <= message.timestamp < bounds[number]:
                    continue
                turn.number = number
                fold, partial = calls[number]
                try:
                    fold(message, partial)
                except BaseException as error:
                    if is_interrupt(error):
                        raise
                    plugin = written_by(self.folders[number].idents)
                    rejections.append(Rejection.by_plugin(message, plugin, error))

    def _write(
        self, connection: Connection, partials: Iterable[Partial], size: int, result: WriteResult
    ) -> None:
        # Each plugin in a savepoint of its own, so that one that fails takes nothing with it.
        for folder, partial in zip(self.folders, partials, strict=True):
            if not partial:
                continue
            changed = []
            try:
                with (
                    self._lost_connections.turn(connection, folder.idents, size),
                    connection.begin_nested(),
                ):
                    for table, rows in folder.tables(partial):
                        kept = self._unpruned(table, rows)
                        if self._upserts[table.ident].write(connection, kept):
                            changed.append(table.ident)
            except BaseException as error:
                _blame(result, folder.idents, error)
            else:
                result.changed += changed

    def _run_classics(
        self,
        connection: Connection,
        messages: Sequence[Message],
        result: WriteResult,
        start: float | None,
    ) -> None:
        """Let the classic plugins process ``messages``, by time, and write."""
        if not self.runners:
            return
        in_order = sorted(messages, key=lambda message: message.timestamp)
        first = self._first(start)
        for runner, since in zip(self.runners, self.history_starts, strict=True):
            theirs = in_order
            if since is not None and since > first:
                theirs = [m for m in in_order if not first <= m.timestamp < since]
            with self._lost_connections.turn(connection, (runner.ident,), len(theirs)):
                runner.launch(connection)
                try:
                    with connection.begin_nested():
                        result.rejections += runner.process(theirs)
                        if runner.update(connection):
                            result.changed.append(runner.ident)
                except BaseException as error:
                    # The error that SQLAlchemy raises on an invalidated connection hides the cause.
                    _blame(result, (runner.ident,), runner.fault or error)
                    runner.renew()

    def _first(self, start: float | None) -> float:
        """From when on plugins get nothing that is older than their history."""
        return self._floor if start is None else min(start, self._floor)

    def _unpruned(self, table: AggregateTable, rows: list[Any]) -> list[Any]:
        until = self.targets[table.ident].pruned_until
        if until is None or not rows or rows[0][0] >= until:
            return rows
        return rows[bisect_left(rows, until, key=lambda row: row[0]) :]

    def _subscribe(self, topic: str) -> tuple[int, ...]:
        """Which folders subscribe to ``topic``; cached, because a bus has few topics."""
        if len(self._subscribers) >= _MOST_TOPICS_REMEMBERED:
            self._subscribers.clear()
        numbers = tuple(i for i, folder in enumerate(self.folders) if folder.subscribes(topic))
        self._subscribers[topic] = numbers
        return numbers


def written_by(idents: Iterable[str]) -> str:
    """Idents joined by spaces, as stored in ``rejected.plugin``."""
    return " ".join(idents)


def folders(targets: Iterable[Target]) -> list[Folder]:
    """Folders for the tables of ``targets``: those of one plugin together, where they fit."""
    groups: dict[tuple[int, float | None], tuple[Aggregate, list[AggregateTable]]] = {}
    for target in targets:
        if target.table is not None:
            key = (id(target.plugin), target.since)
            groups.setdefault(key, (target.plugin, []))[1].append(target.table)
    found = []
    for plugin, tables in groups.values():
        rest = sorted(tables, key=lambda table: table.width or 0)
        while rest:
            finest, *others = rest
            together = [finest, *(table for table in others if fits(finest, table))]
            found.append(Folder(plugin, together))
            rest = [table for table in others if table not in together]
    return found


@lru_cache(maxsize=1_000)
def _upsert(plugin: Aggregate, table: AggregateTable, shadow: str | None, backend: str) -> Upsert:
    # Plugins are loaded again whenever lanes change, and compiling takes milliseconds.
    target = shadow_table(table.table, shadow) if shadow else table.table
    return aggregate_upsert(plugin, target, backend, is_latest=table.width is None)


def _blame(result: WriteResult, idents: tuple[str, ...], error: BaseException) -> None:
    if not blames_plugin(error):
        raise error
    result.failed.append((idents, error))
