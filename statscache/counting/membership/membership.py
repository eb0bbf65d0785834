"""Membership: which plugin is in which lane, and how it gets there.

A system that starts empty has all its plugins in the main lane (classic ones in the ordered lane).
Later ones start in a lane of their own, fill in their history, and join. So do plugins whose
definition changed, whose writes failed, and which were away for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from statscache.clock import Clock
from statscache.counting.classic.runner import ClassicRunner
from statscache.counting.folding.lane_plugins import LanePlugins, Target
from statscache.counting.lanes.checksums import checksum_window
from statscache.counting.lanes.lane import MAIN, ORDERED, Lane
from statscache.counting.lanes.lanes import Lanes
from statscache.counting.membership.history import History
from statscache.counting.membership.plugin_rows import PluginRows, home_name
from statscache.counting.membership.quarantine import Quarantine
from statscache.counting.membership.shadows import Shadows
from statscache.database import tables
from statscache.database.definitions import definition_of, shadow_name
from statscache.database.plugin_state import ACTIVE, FAILING, FILLING, GONE
from statscache.isolation.lost_connections import LostConnections
from statscache.isolation.time_limit import TimeLimit
from statscache.plugins.installed.discovery import Dataset, Installed
from statscache.times import to_the_minute

log = logging.getLogger(__name__)


class Membership:
    """Puts each installed plugin into a lane, inside the engine's transaction.

    Args:
        installed: the plugins.
        lanes: how lanes are kept.
        rows: of the plugins.
        shadows: into which plugins are rebuilt.
        quarantine: of the plugins whose rows cannot be written.
        epoch: how far back history goes; None: as far as the archive does.
        has_history: whether there is an archive from which history can be filled in.
        time_limit: under which the plugins work.
        lost_connections: notes in which turns the connection was lost.
        clock: by which it is noted when plugins failed, and how far back history goes.

    Attributes:
        runners: of the classic plugins, by ident.
    """

    def __init__(
        self,
        installed: Installed,
        lanes: Lanes,
        rows: PluginRows,
        shadows: Shadows,
        quarantine: Quarantine,
        epoch: datetime | None,
        *,
        has_history: bool,
        time_limit: TimeLimit,
        lost_connections: LostConnections,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self.installed = installed
        self.has_history = has_history
        self._lanes = lanes
        self._rows = rows
        self._shadows = shadows
        self._quarantine = quarantine
        self._time_limit = time_limit
        self._lost_connections = lost_connections
        made = (ClassicRunner(make, time_limit) for make in installed.classics)
        self.runners = {runner.ident: runner for runner in made}
        for ident, runner in self.runners.items():
            runner.keep_away_from(_foreign(installed, ident))
        self._history = History(epoch, self.runners, self._lost_connections, clock)

    def history_start(self, dataset: Dataset) -> float:
        """Where the history of a plugin begins, UNIX seconds."""
        return self._history.start(dataset)

    def assume_no_rows(self, idents: Iterable[str]) -> None:
        """Assume that these classic plugins have no rows: asking them spoils the transaction."""
        self._history.assume_no_rows(idents)

    # When the hub, or a command, starts.

    def assign_lanes(self, connection: Connection) -> None:
        """Assign a lane to each installed plugin; note which are not installed any more."""
        self._open_lanes(connection)
        known = {row.ident: row for row in self._rows.all(connection)}
        self._note_gone(connection, known)
        lacking: list[Dataset] = []
        back: list[Any] = []
        for ident, dataset in self.installed.datasets.items():
            row = known.get(ident)
            if row is None:
                if self._is_beginning(connection, dataset):
                    self._place_at_home(connection, dataset)
                else:
                    lacking.append(dataset)
                continue
            self._shadows.tell_blocked(row)
            if self._must_be_rebuilt(connection, dataset, row):
                lacking.append(dataset)
            elif row.state == GONE and not _has_changed(dataset, row):
                self._note_back(connection, dataset)
                back.append(row)
        for home, datasets in _by_home(lacking).items():
            if self.has_history:
                self._place_to_fill_in(connection, home, datasets)
            else:
                self._place_beside(connection, home, datasets)
        if self.has_history:
            self._separate(connection, back)

    def _open_lanes(self, connection: Connection) -> None:
        datasets = self.installed.datasets.values()
        for name in (MAIN, ORDERED):
            ours = [dataset for dataset in datasets if home_name(dataset) == name]
            if not ours and name == ORDERED:
                continue
            start = None
            if self.has_history:
                start = self._history.earliest(ours)
            is_ordered = name == ORDERED
            lane = self._lanes.open(
                connection, name, ordered=is_ordered, history_start=start, watermark=start
            )
            if lane.history_start is None and start is not None:
                # The archive was configured later. Claims of all that was counted are still there.
                for each in self._lanes.all(connection):
                    if each.id == lane.id or (each.joins == name and each.history_start is None):
                        self._begin_history(connection, each, start)

    def _begin_history(self, connection: Connection, lane: Lane, start: float) -> None:
        row = tables.lane
        connection.execute(
            update(row).where(row.c.id == lane.id).values(history_start=start, watermark=start)
        )
        connection.execute(
            update(tables.plugin)
            .where(tables.plugin.c.lane == lane.id, tables.plugin.c.since.is_(None))
            .values(since=start)
        )
        self._lanes.touch(connection)

    def _is_beginning(self, connection: Connection, dataset: Dataset) -> bool:
        """Whether a new plugin has missed nothing that others have counted."""
        lane = self._home(connection, dataset)
        batches = connection.scalar(
            select(tables.lane.c.batches).where(tables.lane.c.id == lane.id)
        )
        if not self.has_history:
            return batches == 0
        if lane.history_start is not None and self._history.start(dataset) < lane.history_start:
            return False
        return batches == 0 and lane.watermark == lane.history_start

    def _place_at_home(self, connection: Connection, dataset: Dataset) -> None:
        since = None
        if self.has_history and home_name(dataset) == ORDERED:
            since = self._history.start_after_rows(connection, dataset)
        self._add(connection, dataset, self._home(connection, dataset), ACTIVE, since)

    def _home(self, connection: Connection, dataset: Dataset) -> Lane:
        return self._lanes.open(connection, home_name(dataset))

    def _add(
        self,
        connection: Connection,
        dataset: Dataset,
        lane: Lane,
        state: str,
        since: float | None = None,
    ) -> None:
        if self.has_history and since is None:
            since = self._history.start(dataset)
        self._rows.add(
            connection,
            dataset.ident,
            lane=lane.id,
            state=state,
            since=since,
            definition=definition_of(dataset),
        )

    def _must_be_rebuilt(self, connection: Connection, dataset: Dataset, row: Any) -> bool:
        """Whether the table of a known plugin must be filled again from the archive.

        If it must, and there is no archive, the plugin is failing.
        """
        ident = dataset.ident
        if row.definition is None:
            self._rows.update(connection, ident, definition=definition_of(dataset))
        elif _has_changed(dataset, row):
            if not self.has_history:
                self._refuse_change(connection, ident)
                return False
            log.info("the definition of %s changed: its table is rebuilt, beside", ident)
            self._shadows.give_up(connection, dataset, row)
            return True
        self._compare_history(dataset, row)
        if self.has_history and self._has_missed(connection, dataset, row):
            log.info("%s missed messages while there was no archive: it is rebuilt", ident)
            return True
        return False

    def _refuse_change(self, connection: Connection, ident: str) -> None:
        text = (
            "its definition changed, and without an archive its table cannot be rebuilt: "
            "set statscache.datagrepper.endpoint or statscache.archive.files, or install the "
            "release of the plugin that made the table"
        )
        log.error("%s: %s", ident, text)
        now = self._clock.time()
        self._rows.update(
            connection, ident, state=FAILING, error=text, failed_at=now, live_since=None
        )

    def _note_back(self, connection: Connection, dataset: Dataset) -> None:
        """Note that a plugin is installed again."""
        ident = dataset.ident
        if self.has_history:
            log.info("%s is back: what it missed is filled in", ident)
            self._rows.update(connection, ident, state=FILLING)
        else:
            log.warning("%s is back; without an archive it lacks what it missed", ident)
            home = self._home(connection, dataset)
            self._rows.update(connection, ident, state=ACTIVE, lane=home.id, live_since=None)

    def _has_missed(self, connection: Connection, dataset: Dataset, row: Any) -> bool:
        """Whether its lane counted messages that it missed while there was no archive."""
        return row.lane == self._home(connection, dataset).id and (
            row.state in (GONE, FAILING) or row.missed > 0
        )

    def _separate(self, connection: Connection, back: Iterable[Any]) -> None:
        """Split the plugins that are back from those of their lane that are not."""
        for number in sorted({row.lane for row in back}):
            idents = [row.ident for row in back if row.lane == number]
            lane = next(lane for lane in self._lanes.all(connection) if lane.id == number)
            if self._rows.has_others(connection, lane, idents):
                name = self._lanes.vacant_name(connection, f"back {idents[0]}")
                lane = self._lanes.split(connection, lane, name)
                for ident in idents:
                    self._rows.update(connection, ident, lane=lane.id)

    def _compare_history(self, dataset: Dataset, row: Any) -> None:
        """Warn if the configured history begins before the counted one."""
        if not self.has_history or row.since is None or dataset.declaration is None:
            return
        since = self._history.start(dataset)
        if since < row.since:
            log.warning(
                "the history of %s begins %s, and is configured now to begin %s: "
                "'statscache rebuild %s' counts all of it",
                dataset.ident,
                to_the_minute(row.since),
                to_the_minute(since),
                dataset.ident,
            )

    def _note_gone(self, connection: Connection, known: Mapping[str, Any]) -> None:
        gone = [
            row
            for ident, row in known.items()
            if ident not in self.installed.datasets and row.state != GONE
        ]
        for number in sorted({row.lane for row in gone}):
            idents = [row.ident for row in gone if row.lane == number]
            log.warning("not installed any more: %s", ", ".join(idents))
            lane = next(lane for lane in self._lanes.all(connection) if lane.id == number)
            if self.has_history and self._rows.has_others(connection, lane, idents):
                # Split the lane as it is now: the plugin continues from here when it is back.
                name = self._lanes.vacant_name(connection, f"gone {idents[0]}")
                lane = self._lanes.split(connection, lane, name)
            for ident in idents:
                self._rows.update(connection, ident, state=GONE, lane=lane.id, live_since=None)

    # Lanes of their own.

    def _place_to_fill_in(self, connection: Connection, home: str, datasets: list[Dataset]) -> None:
        """Put new and changed plugins into one lane, since they need the same history."""
        known = {row.ident for row in self._rows.all(connection)}
        sinces = {
            dataset.ident: self._history.start_after_rows(connection, dataset)
            if home == ORDERED and dataset.ident not in known
            else self._history.start(dataset)
            for dataset in datasets
        }
        # Checksums are of whole windows, so the history begins with one.
        start = float(checksum_window(min(sinces.values())))
        lane = self._lanes.open(
            connection,
            self._lanes.vacant_name(connection, f"new {datasets[0].ident}"),
            joins=home,
            ordered=home == ORDERED,
            history_start=start,
            watermark=start,
        )
        for dataset in datasets:
            if dataset.ident in known:
                left = self._shadows.begin(connection, dataset, lane, sinces[dataset.ident])
                self._rows.remove_lane_if_empty(connection, left)
            else:
                self._add(connection, dataset, lane, FILLING, sinces[dataset.ident])
        log.info(
            "filling in the history of %s since %s",
            ", ".join(dataset.ident for dataset in datasets),
            to_the_minute(start),
        )

    def _place_beside(self, connection: Connection, home: str, datasets: list[Dataset]) -> None:
        """Put new plugins into a lane of their own, since there is no archive.

        The others have counted messages that a replayed file may still have. In their lane those
        would count as duplicates for the new plugins too.
        """
        idents = ", ".join(dataset.ident for dataset in datasets)
        lane = self._lanes.open(
            connection,
            self._lanes.vacant_name(connection, f"new {datasets[0].ident}"),
            joins=home,
            ordered=home == ORDERED,
        )
        for dataset in datasets:
            self._add(connection, dataset, lane, ACTIVE)
        log.warning(
            "%s: the other plugins have counted messages before, and no archive is configured "
            "that has them: 'statscache replay FILE...' of those messages fills it in",
            idents,
        )

    def rebuild(self, connection: Connection, idents: Iterable[str]) -> list[str]:
        """Begin to rebuild plugins, each in a shadow of its table; returns those that begin.

        The others are being rebuilt already, and continue.
        """
        groups = self.to_rebuild(connection, idents)
        begun = [dataset.ident for datasets in groups.values() for dataset in datasets]
        row = tables.plugin.c
        going_on = self._shadows.forced & set(idents) - set(begun)
        for number in connection.scalars(select(row.lane).where(row.ident.in_(going_on))).all():
            self._lanes.wake(connection, number)
        for home, datasets in groups.items():
            self._place_to_fill_in(connection, home, datasets)
        return begun

    def to_rebuild(self, connection: Connection, idents: Iterable[str]) -> dict[str, list[Dataset]]:
        """Those that :meth:`rebuild` would begin to rebuild, by the name of their home."""
        rows = {row.ident: row for row in self._rows.all(connection)}
        datasets = (self.installed.datasets[ident] for ident in sorted(idents))
        return _by_home(
            dataset
            for dataset in datasets
            if not self._shadows.is_under_way(connection, dataset, rows[dataset.ident])
        )

    def join(self, connection: Connection, lane: Lane, home: Lane) -> list[str]:
        """Move the plugins of ``lane`` to ``home``, and let shadows take their places."""
        members = self._rows.in_lane(connection, lane.id)
        if self._rows.has_members(connection, home):
            self._lanes.extend_history(connection, home, lane)
            self._lanes.remove(connection, lane)
        else:
            home = self._lanes.replace_memory(connection, home, lane)
        for member in members:
            dataset = self.installed.datasets[member.ident]
            self._shadows.swap_in(connection, dataset, member, home)
        return [member.ident for member in members]

    # What lanes write to.

    def lane_plugins(self, connection: Connection, backend: str) -> dict[int, LanePlugins]:
        """The plugins of each lane, ready to count; a lane without plugins is not among them."""
        lanes = {lane.id: lane for lane in self._lanes.all(connection)}
        homes = {lane.name: lane for lane in lanes.values()}
        targets: dict[int, list[Target]] = {}
        runners: dict[int, list[tuple[ClassicRunner, float | None]]] = {}
        rows = self._rows.all(connection)
        self._shadows.note_blocked(rows)
        countable = [row for row in rows if self._can_count(row)]
        self._quarantine.note_failing(countable)
        for row in countable:
            dataset = self.installed.datasets[row.ident]
            table = dataset.declaration
            if table is not None:
                target = Target(
                    row.ident, table, table.plugin, row.shadow, row.since, row.pruned_until
                )
                targets.setdefault(row.lane, []).append(target)
            else:
                runner = self.runners[row.ident]
                runner.redirect(dataset.model.__table__, row.shadow)
                runners.setdefault(row.lane, []).append((runner, row.since))
        found = {}
        for number in {*targets, *runners}:
            both = (lanes[number], homes.get(lanes[number].joins or ""))
            floor = min(
                (x.history_start for x in both if x and x.history_start is not None), default=None
            )
            found[number] = LanePlugins(
                targets.get(number, []),
                runners.get(number, []),
                backend,
                floor,
                time_limit=self._time_limit,
                lost_connections=self._lost_connections,
            )
        return found

    def _can_count(self, row: Any) -> bool:
        """Whether a plugin is installed, and fits its table."""
        dataset = self.installed.datasets.get(row.ident)
        if dataset is None or row.state == GONE:
            return False
        # Without an archive a plugin whose definition has changed cannot be rebuilt.
        has_table = bool(row.shadow) or row.definition == definition_of(dataset)
        return has_table or row.state != FAILING


def _has_changed(dataset: Dataset, row: Any) -> bool:
    """Whether neither the table nor the shadow of a plugin has its present definition."""
    if row.definition is None:
        return False
    if row.definition != definition_of(dataset):
        return bool(row.shadow != shadow_name(dataset))
    # Changed, and changed back before the shadow was complete; the served table is old.
    return bool(row.shadow) and row.shadow != shadow_name(dataset)


def _by_home(datasets: Iterable[Dataset]) -> dict[str, list[Dataset]]:
    """Datasets by the name of their home."""
    groups: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        groups.setdefault(home_name(dataset), []).append(dataset)
    return groups


def _foreign(installed: Installed, ident: str) -> frozenset[str]:
    """The names of the tables that a classic plugin must not write to, in lower case."""
    names = {*tables.metadata.tables, "alembic_version"}
    for other in installed.datasets.values():
        if other.ident != ident:
            names |= {other.model.__table__.name.lower(), shadow_name(other).lower()}
    return frozenset(names)
