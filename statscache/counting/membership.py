"""Membership: which plugin is in which lane, and how it gets there.

A system that starts empty has all its plugins in the main lane (classic ones in the ordered lane).
Later ones start in a lane of their own, fill in their history, and join. So do plugins whose
definition changed, whose writes failed, and which were away for a while.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from statscache.clock import SYSTEM, Clock
from statscache.counting import guards, replayed
from statscache.counting.classic.runner import ClassicRunner
from statscache.counting.lane_plugins import Crew, Seat
from statscache.counting.lanes.checksums import checksum_window
from statscache.counting.lanes.lane import MAIN, ORDERED, Lane
from statscache.counting.lanes.lanes import Lanes
from statscache.counting.rejections import forget
from statscache.database import tables
from statscache.database.definitions import (
    create_shadow,
    definition_of,
    drop_shadow,
    shadow_name,
    shadow_table,
    swap,
)
from statscache.isolation.blame import blames_plugin
from statscache.isolation.lost_connections import LostConnections
from statscache.isolation.time_limit import TimeLimit
from statscache.plugins.discovery import Dataset, Installed
from statscache.times import to_the_minute

log = logging.getLogger(__name__)

ACTIVE = "active"
FILLING = "filling"
FAILING = "failing"
GONE = "gone"

STAYS = "it was counted anew, and the old rows stay"
"""How the error of a plugin begins whose shadow must not take the place of its table."""

_DAY = 86_400
_ROWS_AT_ONCE = 50_000


class Membership:
    """Keeps the lanes of the installed plugins in the database.

    Args:
        installed: the plugins.
        lanes: how lanes are kept.
        epoch: how far back history goes; None: as far as the archive does.
        has_history: whether there is an archive from which history can be filled in.
        time_limit: under which the plugins work.
        lost_connections: in whose turns the connection was lost.
        clock: by which it is noted when plugins failed, and how far back history goes.

    Attributes:
        runners: of the classic plugins, by ident.
        held: the idents whose shadows must not take their places, as far as it is known.
        forced: the idents whose shadows take their places whatever the guards object to.
    """

    def __init__(
        self,
        installed: Installed,
        lanes: Lanes,
        epoch: datetime | None,
        *,
        has_history: bool,
        time_limit: TimeLimit | None = None,
        lost_connections: LostConnections | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self.installed = installed
        self.has_history = has_history
        self._lanes = lanes
        self._epoch = epoch
        self._failing: set[str] = set()
        self._told: set[str] = set()
        self.held: frozenset[str] = frozenset()
        self.forced: frozenset[str] = frozenset()
        self._time_limit = time_limit
        self._lost_connections = lost_connections or LostConnections()
        # Classic plugins that cannot be asked which rows they have.
        self._unasked: set[str] = set()
        made = (ClassicRunner(make, time_limit) for make in installed.classics)
        self.runners = {runner.ident: runner for runner in made}
        for ident, runner in self.runners.items():
            runner.keep_away_from(_foreign(installed, ident))

    # When the hub, or a command, starts.

    def settle(self, connection: Connection) -> None:
        """Give each installed plugin its lane, and note which are not installed any more."""
        self._open_lanes(connection)
        known = {row.ident: row for row in connection.execute(select(tables.plugin))}
        self._note_gone(connection, known)
        for each in known.values():
            if _is_held(each) and each.ident in self.installed.datasets:
                self._tell_held(each.ident, each.error)
        newcomers: dict[str, list[Dataset]] = {}
        back: list[Any] = []
        for ident, dataset in self.installed.datasets.items():
            row = known.get(ident)
            if row is None:
                if self._is_beginning(connection, dataset):
                    self._seat_at_home(connection, dataset)
                else:
                    newcomers.setdefault(_home_name(dataset), []).append(dataset)
            else:
                self._welcome(connection, dataset, row, newcomers, back)
        for home, datasets in newcomers.items():
            if self.has_history:
                self._seat_apart(connection, home, datasets)
            else:
                self._seat_beside(connection, home, datasets)
        self._divide(connection, back)

    def _open_lanes(self, connection: Connection) -> None:
        datasets = self.installed.datasets.values()
        for name in (MAIN, ORDERED):
            ours = [dataset for dataset in datasets if _home_name(dataset) == name]
            if not ours and name == ORDERED:
                continue
            start = None
            if self.has_history:
                start = min((self.since(dataset) for dataset in ours), default=self._floor(None))
            is_ordered = name == ORDERED
            lane = self._lanes.open(
                connection, name, ordered=is_ordered, history_start=start, watermark=start
            )
            if lane.history_start is None and start is not None:
                # The archive was configured later: what was counted until now is claimed.
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
        if lane.history_start is not None and self.since(dataset) < lane.history_start:
            return False
        return batches == 0 and lane.watermark == lane.history_start

    def _seat_at_home(self, connection: Connection, dataset: Dataset) -> None:
        since = None
        if self.has_history and _home_name(dataset) == ORDERED:
            since = self._begin(connection, dataset)
        self._seat(connection, dataset, self._home(connection, dataset), ACTIVE, since)

    def _home(self, connection: Connection, dataset: Dataset) -> Lane:
        return self._lanes.open(connection, _home_name(dataset))

    def _seat(
        self,
        connection: Connection,
        dataset: Dataset,
        lane: Lane,
        state: str,
        since: float | None = None,
    ) -> None:
        if self.has_history and since is None:
            since = self.since(dataset)
        connection.execute(
            tables.plugin.insert().values(
                ident=dataset.ident,
                lane=lane.id,
                state=state,
                missed=0,
                since=since,
                definition=definition_of(dataset),
            )
        )
        self._lanes.touch(connection)

    def _welcome(
        self,
        connection: Connection,
        dataset: Dataset,
        row: Any,
        newcomers: dict[str, list[Dataset]],
        back: list[Any],
    ) -> None:
        """See whether a plugin that is known already can go on as it did."""
        definition = definition_of(dataset)
        ident = dataset.ident
        if row.definition is None:
            self._update(connection, ident, definition=definition)
        elif row.definition != definition and row.shadow != shadow_name(dataset):
            self._change(connection, dataset, row, newcomers)
            return
        elif row.definition == definition and row.shadow and row.shadow != shadow_name(dataset):
            # Changed, and changed back before the shadow was complete; the served table is old.
            self._change(connection, dataset, row, newcomers)
            return
        self._compare_history(dataset, row)
        if self.has_history and self._has_missed(connection, dataset, row):
            log.info("%s missed messages while there was no archive: it is counted anew", ident)
            newcomers.setdefault(_home_name(dataset), []).append(dataset)
        elif row.state == GONE:
            if self.has_history:
                log.info("%s is back: what it missed is filled in", ident)
                self._update(connection, ident, state=FILLING)
                back.append(row)
            else:
                log.warning("%s is back; without an archive it lacks what it missed", ident)
                home = self._home(connection, dataset)
                self._update(connection, ident, state=ACTIVE, lane=home.id, live_since=None)

    def _has_missed(self, connection: Connection, dataset: Dataset, row: Any) -> bool:
        """Whether others in its lane have counted what it has not: there was no archive then."""
        return row.lane == self._home(connection, dataset).id and (
            row.state in (GONE, FAILING) or row.missed > 0
        )

    def _divide(self, connection: Connection, back: Iterable[Any]) -> None:
        """Let those that are back go on without those that they left with."""
        for number in sorted({row.lane for row in back}):
            idents = [row.ident for row in back if row.lane == number]
            lane = next(lane for lane in self._lanes.all(connection) if lane.id == number)
            if self._has_others(connection, lane, idents):
                name = self._vacant_name(connection, f"back {idents[0]}")
                lane = self._lanes.split(connection, lane, name)
                for ident in idents:
                    self._update(connection, ident, lane=lane.id)

    def _compare_history(self, dataset: Dataset, row: Any) -> None:
        """Say so where more history is wanted now than was counted."""
        if not self.has_history or row.since is None or dataset.declaration is None:
            return
        since = self.since(dataset)
        if since < row.since:
            log.warning(
                "the history of %s begins %s, and is configured now to begin %s: "
                "'statscache rebuild %s' counts all of it anew",
                dataset.ident,
                to_the_minute(row.since),
                to_the_minute(since),
                dataset.ident,
            )

    def _change(
        self,
        connection: Connection,
        dataset: Dataset,
        row: Any,
        newcomers: dict[str, list[Dataset]],
    ) -> None:
        ident = dataset.ident
        if not self.has_history:
            text = (
                "its definition changed, and without an archive its table cannot be counted anew: "
                "set statscache.datagrepper.endpoint or statscache.archive.files, or install the "
                "release of the plugin that made the table"
            )
            log.error("%s: %s", ident, text)
            now = self._clock.time()
            self._update(
                connection, ident, state=FAILING, error=text, failed_at=now, live_since=None
            )
            return
        log.info("the definition of %s changed: its table is counted anew, beside", ident)
        if row.shadow:
            drop_shadow(connection, dataset.model.__table__, row.shadow)
            self._update(connection, ident, shadow=None)
        newcomers.setdefault(_home_name(dataset), []).append(dataset)

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
            if self.has_history and self._has_others(connection, lane, idents):
                # As it was left, so that it can go on from there.
                name = self._vacant_name(connection, f"gone {idents[0]}")
                lane = self._lanes.split(connection, lane, name)
            for ident in idents:
                self._update(connection, ident, state=GONE, lane=lane.id, live_since=None)

    def _has_others(self, connection: Connection, lane: Lane, idents: Iterable[str]) -> bool:
        if lane.name in (MAIN, ORDERED):
            return True
        members = connection.scalars(
            select(tables.plugin.c.ident).where(tables.plugin.c.lane == lane.id)
        )
        return bool(set(members) - set(idents))

    # Lanes of their own.

    def _seat_apart(self, connection: Connection, home: str, datasets: list[Dataset]) -> Lane:
        """Put new and changed plugins into one lane, since they need the same history."""
        sinces = {
            dataset.ident: self._begin(connection, dataset)
            if home == ORDERED
            else self.since(dataset)
            for dataset in datasets
        }
        # What is remembered by sums begins with a whole one.
        start = float(checksum_window(min(sinces.values())))
        lane = self._lanes.open(
            connection,
            self._vacant_name(connection, f"new {datasets[0].ident}"),
            joins=home,
            ordered=home == ORDERED,
            history_start=start,
            watermark=start,
        )
        known = set(connection.scalars(select(tables.plugin.c.ident)))
        for dataset in datasets:
            if dataset.ident in known:
                self._shadow(connection, dataset, lane, sinces[dataset.ident])
            else:
                self._seat(connection, dataset, lane, FILLING, sinces[dataset.ident])
        log.info(
            "filling in the history of %s since %s",
            ", ".join(dataset.ident for dataset in datasets),
            to_the_minute(start),
        )
        return lane

    def _seat_beside(self, connection: Connection, home: str, datasets: list[Dataset]) -> None:
        """Put new plugins, for which there is no archive, where it is remembered what they count.

        The others have counted messages before, which a file may have still: in the lane of the
        others they would be taken for counted.
        """
        idents = ", ".join(dataset.ident for dataset in datasets)
        lane = self._lanes.open(
            connection,
            self._vacant_name(connection, f"new {datasets[0].ident}"),
            joins=home,
            ordered=home == ORDERED,
        )
        for dataset in datasets:
            self._seat(connection, dataset, lane, ACTIVE)
        log.warning(
            "%s: the other plugins have counted messages before, and no archive is configured "
            "that has them: 'statscache replay FILE...' of those messages fills it in",
            idents,
        )

    def rebuild(self, connection: Connection, idents: Iterable[str]) -> list[str]:
        """Let plugins be counted anew, each into a shadow of its table; gives those that begin.

        The others are being counted anew already, and go on.
        """
        groups = self.to_rebuild(connection, idents)
        begun = [dataset.ident for datasets in groups.values() for dataset in datasets]
        row = tables.plugin.c
        going_on = self.forced & set(idents) - set(begun)
        for number in connection.scalars(select(row.lane).where(row.ident.in_(going_on))).all():
            self._lanes.wake(connection, number)
        for home, datasets in groups.items():
            self._seat_apart(connection, home, datasets)
        return begun

    def to_rebuild(self, connection: Connection, idents: Iterable[str]) -> dict[str, list[Dataset]]:
        """Those that :meth:`rebuild` would begin to count anew, by the name of their home."""
        rows = {row.ident: row for row in connection.execute(select(tables.plugin))}
        groups: dict[str, list[Dataset]] = {}
        for ident in sorted(idents):
            dataset = self.installed.datasets[ident]
            is_under_way = rows[ident].shadow == shadow_name(dataset)
            if not is_under_way or self._objection(connection, rows[ident]):
                groups.setdefault(_home_name(dataset), []).append(dataset)
        return groups

    def is_rebuilding(self, connection: Connection, lane: Lane) -> bool:
        """Whether a plugin of a lane is being counted anew."""
        row = tables.plugin.c
        query = select(row.ident).where(row.lane == lane.id, row.shadow.is_not(None)).limit(1)
        return connection.execute(query).first() is not None

    def is_forced(self, connection: Connection, lane: Lane) -> bool:
        """Whether all the plugins of a lane are to take their places whatever they lack."""
        members = connection.scalars(
            select(tables.plugin.c.ident).where(tables.plugin.c.lane == lane.id)
        )
        return self.forced.issuperset(members)

    def note_shortfall(self, connection: Connection, lane: Lane, text: str) -> None:
        """Note why the shadows of a lane must not take their places: the archive lacks so much."""
        row = tables.plugin.c
        mine = (row.lane == lane.id, row.shadow.is_not(None))
        connection.execute(update(tables.plugin).where(*mine).values(shortfall=text))

    def _vacant_name(self, connection: Connection, name: str) -> str:
        """``name``, or one that begins so: a lane of that name may have come far already."""
        taken = {lane.name for lane in self._lanes.all(connection)}
        names = itertools.chain([name], (f"{name} {number}" for number in itertools.count(2)))
        return next(each for each in names if each not in taken)

    def _shadow(self, connection: Connection, dataset: Dataset, lane: Lane, since: float) -> None:
        name = shadow_name(dataset)
        create_shadow(connection, dataset.model.__table__, name)
        row = tables.plugin.c
        previous = connection.execute(
            select(
                *(row.lane, row.served_until, row.counted_until, row.rejected_before),
                *(tables.lane.c.watermark, tables.lane.c.newest),
            )
            .outerjoin(tables.lane, tables.lane.c.id == row.lane)
            .where(row.ident == dataset.ident)
        ).one()
        served_until = previous.served_until
        counted_until, rejected_before = previous.counted_until, previous.rejected_before
        if rejected_before is None:
            counted_until = max(previous.watermark or 0.0, previous.newest or 0.0)
            rejected_before = guards.rejected_so_far(connection, dataset.ident)
        self._update(
            connection,
            dataset.ident,
            lane=lane.id,
            state=FILLING,
            shadow=name,
            since=since,
            missed=0,
            pruned_until=None,
            served_until=previous.watermark if served_until is None else served_until,
            counted_until=counted_until,
            rejected_before=rejected_before,
            shortfall=None,
            error=None,
            failed_at=None,
        )
        self._told.discard(dataset.ident)
        # What it could not take comes again.
        forget(connection, dataset.ident)
        self._drop_if_empty(connection, previous.lane)

    def quarantine(
        self,
        connection: Connection,
        lane: Lane,
        idents: tuple[str, ...],
        error: str,
        batches: Sequence[int],
        rest: float = 0.0,
    ) -> None:
        """Move a plugin whose writes failed to a lane that has not counted ``batches``.

        There it rests for so many seconds at least.
        """
        name = self._vacant_name(connection, f"apart {idents[0]}")
        apart = self._lanes.split(connection, lane, name, batches)
        for ident in idents:
            self._update(
                connection,
                ident,
                lane=apart.id,
                state=FAILING,
                error=error[:10_000],
                failed_at=self._clock.time(),
            )
        pause = self._lanes.back_off(connection, apart, rest)
        log.error("%s in a lane of its own, next try in %.0f s", ", ".join(idents), pause)

    def hold(self, connection: Connection, lane: Lane) -> Lane | None:
        """Keep back the shadows of a lane that must not take their places.

        They are counted on in a lane of their own, which is given, so that the others can join;
        None if there are none. They are looked at again whenever that lane comes to join.
        """
        mine = tables.plugin.c.lane == lane.id
        rows = connection.execute(select(tables.plugin).where(mine)).all()
        objections = {
            row.ident: objection for row in rows if (objection := self._objection(connection, row))
        }
        if not objections:
            return None
        if len(objections) < len(rows):
            name = self._vacant_name(connection, f"held {min(objections)}")
            lane = self._lanes.split(connection, lane, name)
        for row in rows:
            if row.ident not in objections:
                continue
            error = _reason_to_hold(connection, row, objections[row.ident])
            self._tell_held(row.ident, error)
            if (row.lane, row.error) != (lane.id, error):
                values = {"lane": lane.id, "state": FAILING, "error": error}
                values["failed_at"] = row.failed_at if _is_held(row) else self._clock.time()
                self._update(connection, row.ident, **values)
        return lane

    def _tell_held(self, ident: str, error: str) -> None:
        """Log it, once in each process: it is looked at again every minute."""
        if ident not in self._told:
            self._told.add(ident)
            log.error("%s: %s", ident, error)

    def retriable(self, connection: Connection, number: int) -> list[str]:
        """The digests of the rejections that the shadows of a lane are held for."""
        mine = tables.plugin.c.lane == number
        rows = connection.execute(select(tables.plugin).where(mine)).all()
        digests = [guards.retriable(connection, row) for row in rows if _is_held(row)]
        return list(dict.fromkeys(itertools.chain.from_iterable(digests)))

    def _objection(self, connection: Connection, row: Any) -> str:
        if not row.shadow or row.ident in self.forced:
            return ""
        return guards.objection(connection, row)

    def join(self, connection: Connection, lane: Lane, home: Lane) -> list[str]:
        """Move the plugins of ``lane`` to ``home``, and let shadows take their places."""
        row = tables.plugin.c
        members = connection.execute(
            select(row.ident, row.shadow, row.state).where(row.lane == lane.id)
        ).all()
        if self.has_members(connection, home):
            self._lanes.extend(connection, home, lane)
            self._lanes.remove(connection, lane)
        else:
            home = self._lanes.replace(connection, home, lane)
        for member in members:
            dataset = self.installed.datasets[member.ident]
            self._told.discard(member.ident)
            if member.shadow:
                swap(connection, dataset.model.__table__, member.shadow)
                # The archive has filled it, and not the files.
                replayed.forget(connection, [member.ident])
            self._update(
                connection,
                member.ident,
                lane=home.id,
                state=ACTIVE,
                error=None,
                failed_at=None,
                shadow=None,
                served_until=None,
                counted_until=None,
                rejected_before=None,
                shortfall=None,
                definition=definition_of(dataset),
                audited_until=None,
            )
        return [member.ident for member in members]

    # What the engine works with.

    def crews(self, connection: Connection, backend: str) -> dict[int, Crew]:
        """The plugins of each lane, ready to count; a lane without plugins has no crew."""
        lanes = {lane.id: lane for lane in self._lanes.all(connection)}
        homes = {lane.name: lane for lane in lanes.values()}
        seats: dict[int, list[Seat]] = {}
        runners: dict[int, list[tuple[ClassicRunner, float | None]]] = {}
        self._failing = set()
        rows = connection.execute(select(tables.plugin).order_by(tables.plugin.c.ident)).all()
        self.held = frozenset(row.ident for row in rows if _is_held(row))
        for row in rows:
            dataset = self.installed.datasets.get(row.ident)
            if dataset is None or row.state == GONE:
                continue
            if row.state == FAILING and row.definition != definition_of(dataset) and not row.shadow:
                continue  # it does not fit its table, and there is no archive
            if row.state == FAILING:
                self._failing.add(row.ident)
            table = dataset.declaration
            if table is not None:
                seat = Seat(row.ident, table, table.plugin, row.shadow, row.since, row.pruned_until)
                seats.setdefault(row.lane, []).append(seat)
            else:
                runner = self.runners[row.ident]
                runner.redirect(dataset.model.__table__, row.shadow)
                runners.setdefault(row.lane, []).append((runner, row.since))
        crews = {}
        for number in {*seats, *runners}:
            both = (lanes[number], homes.get(lanes[number].joins or ""))
            floor = min(
                (x.history_start for x in both if x and x.history_start is not None), default=None
            )
            crews[number] = Crew(
                seats.get(number, []),
                runners.get(number, []),
                backend,
                floor,
                self._time_limit,
                self._lost_connections,
            )
        return crews

    # What happens to a plugin while it is counted.

    def note_ages(self, connection: Connection, ages: Mapping[str, float]) -> dict[str, float]:
        """Note before when rows are not kept; gives, of each ident that has a row, that time."""
        row = tables.plugin.c
        known = connection.execute(select(row.ident, row.pruned_until)).all()
        noted = {}
        for ident, until in known:
            if ident in ages:
                noted[ident] = max(ages[ident], until or 0.0)
                if until is None or until < ages[ident]:
                    self._update(connection, ident, pruned_until=ages[ident])
        return noted

    def delete_rows(self, connection: Connection, ident: str, until: float) -> tuple[int, bool]:
        """Delete rows of earlier times, from the shadow too; gives how many, and if there are more.

        At most some 50,000 of each table.
        """
        table = self.installed.datasets[ident].model.__table__
        query = select(tables.plugin.c.shadow).where(tables.plugin.c.ident == ident)
        shadow = connection.scalar(query)
        number, is_more = 0, False
        for each in [table, *([shadow_table(table, shadow)] if shadow else [])]:
            when = each.c.timestamp
            old = select(when).where(when < until).order_by(when)
            bound = connection.scalar(old.offset(_ROWS_AT_ONCE).limit(1))
            is_more |= bound is not None
            # The bucket of the bound goes as a whole: there may be no earlier one.
            inside = when < until if bound is None else when <= bound
            number += connection.execute(delete(each).where(inside)).rowcount
        return number, is_more

    def note_failure(
        self, connection: Connection, idents: Iterable[str], error: str, missed: int
    ) -> None:
        """The rows of so many messages could not be written, and no archive gives them again."""
        for ident in idents:
            self._update(
                connection,
                ident,
                state=FAILING,
                error=error[:10_000],
                failed_at=self._clock.time(),
                missed=tables.plugin.c.missed + missed,
            )

    def note_missed(self, connection: Connection, idents: Iterable[str], missed: int) -> None:
        """So many messages went by while these rested, and no archive gives them again."""
        row = tables.plugin.c
        mine = update(tables.plugin).where(row.ident.in_(idents))
        connection.execute(mine.values(missed=row.missed + missed))

    def failing(self, idents: Iterable[str]) -> list[str]:
        """Those whose last write did not succeed."""
        return sorted(self._failing.intersection(idents))

    def note_success(self, connection: Connection, idents: Iterable[str]) -> None:
        """The rows of these can be written again, and no archive gives what they missed."""
        for ident in idents:
            home = self._home(connection, self.installed.datasets[ident])
            row = tables.plugin.c
            lane = connection.scalar(select(row.lane).where(row.ident == ident))
            self._update(connection, ident, state=ACTIVE, lane=home.id)
            self._drop_if_empty(connection, lane)

    def since(self, dataset: Dataset) -> float:
        """Where the history of a plugin begins: a midnight in UTC, so that no day is a part."""
        delta = dataset.plugin.backlog_delta
        return self._floor(delta)

    def _floor(self, backlog_delta: timedelta | None) -> float:
        start = self._epoch.timestamp() if self._epoch else 0.0
        if backlog_delta is not None:
            start = max(start, self._clock.time() - backlog_delta.total_seconds())
        return max(0.0, start // _DAY * _DAY)

    def assume_no_rows(self, idents: Iterable[str]) -> None:
        """Take it that these classic plugins have no rows: asked, they spoil the transaction."""
        self._unasked.update(idents)

    def _begin(self, connection: Connection, dataset: Dataset) -> float:
        """Where the history of a classic plugin begins: it may have rows from earlier times."""
        runner = self.runners[dataset.ident]
        since = self.since(dataset)
        is_known = connection.scalar(
            select(func.count())
            .select_from(tables.plugin)
            .where(tables.plugin.c.ident == dataset.ident)
        )
        if is_known or dataset.ident in self._unasked:
            return since
        try:
            with (
                self._lost_connections.turn(connection, (dataset.ident,), 0),
                connection.begin_nested(),
            ):
                return runner.begin(connection, since)
        except BaseException as error:
            if not blames_plugin(error):
                raise
            log.exception("%s does not tell which rows it has: it gets all messages", runner.ident)
            runner.renew()
            return since

    def _update(self, connection: Connection, ident: str, **values: Any) -> None:
        row = tables.plugin
        connection.execute(update(row).where(row.c.ident == ident).values(values))
        if values.keys() & {"lane", "state", "shadow", "pruned_until"}:
            self._lanes.touch(connection)

    def has_members(self, connection: Connection, lane: Lane) -> bool:
        """Whether a lane has plugins that are installed."""
        row = tables.plugin.c
        query = select(row.ident).where(row.lane == lane.id, row.state != GONE).limit(1)
        return connection.execute(query).first() is not None

    def _drop_if_empty(self, connection: Connection, number: int | None) -> None:
        row = tables.plugin.c
        is_used = connection.scalar(
            select(func.count()).select_from(tables.plugin).where(row.lane == number)
        )
        for lane in self._lanes.all(connection):
            if lane.id == number and not is_used and lane.name not in (MAIN, ORDERED):
                self._lanes.remove(connection, lane)


def _foreign(installed: Installed, ident: str) -> frozenset[str]:
    """The names of the tables that a classic plugin must not write to, in lower case."""
    names = {*tables.metadata.tables, "alembic_version"}
    for other in installed.datasets.values():
        if other.ident != ident:
            names |= {other.model.__table__.name.lower(), shadow_name(other).lower()}
    return frozenset(names)


def _is_held(row: Any) -> bool:
    """Whether the shadow of a plugin must not take the place of its table."""
    return bool(row.shadow and row.error and row.error.startswith(STAYS))


def _reason_to_hold(connection: Connection, row: Any, objection: str) -> str:
    """The error of a plugin whose shadow is held: cause, consequence and cure."""
    cure = "Mend the plugin, and it goes on by itself"
    if not guards.retriable(connection, row):
        cure = f"Mend the cause; then 'statscache rebuild {row.ident}' counts it anew once more"
    return (
        f"{STAYS}: {objection}. New messages are counted beside, and are not in the old rows. "
        f"{cure}; 'statscache rebuild --force {row.ident}' puts the new rows in place as they are"
    )


def _home_name(dataset: Dataset) -> str:
    return ORDERED if dataset.declaration is None else MAIN
