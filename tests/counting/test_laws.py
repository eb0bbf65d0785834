"""The laws: however messages come in, the tables are those of one pass over the distinct ones.

``STATSCACHE_LAWS=5000`` tries so many examples of each law, other ones every time.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, select, text

from statscache.archive import FileArchive, read
from statscache.catchup.workers import FoldTask
from statscache.counting import late
from statscache.counting.batch import Batch
from statscache.counting.engine import Engine
from statscache.counting.lanes.lane import Lane, read_lanes
from statscache.database.connection import Database
from statscache.database.schema import create_missing
from statscache.errors import DatabaseUnavailable
from statscache.message import TIMESTAMP_TOLERANCE, Message
from statscache.plugins import BaseModel, BasePlugin
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed, Source
from statscache.topics import EVERYTHING
from tests.support import hub_steps as steps
from tests.support.examples import tried
from tests.support.messages import NOON, message

EXAMPLES = int(os.environ.get("STATSCACHE_LAWS", "0"))

START = int(NOON) - 43_200
EPOCH = datetime.fromtimestamp(START, UTC)
OVERLAP = 600.0
LAST = START + 7_000.0
BUCKET = 15
"""The finest: a copy that is restamped is the same message in the same bucket."""

NAMESPACE = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


@dataclass(frozen=True)
class Happening:
    """Something that a service announces once.

    Attributes:
        number: of it; tells it from others.
        says: what its body tells: mostly its number, but some services repeat themselves.
        body: which of the real messages it resembles.
        second: when, from the start.
        is_bare: it comes without an id, and the archive gives it one.
        delay: seconds until the archive has it; None: it never will.
        shift: seconds by which its copies are restamped.
    """

    number: int
    says: int
    body: int
    second: float
    is_bare: bool
    delay: float | None
    shift: float


class Copies:
    """The forms in which a happening goes around."""

    def __init__(self, happening: Happening, real: Message) -> None:
        ident = str(uuid.uuid5(NAMESPACE, str(happening.number)))
        raw = {
            "topic": real.topic,
            "timestamp": START + happening.second,
            "msg": real.msg | {"says": happening.says},
            "username": real.raw.get("username"),
        }
        moved = raw["timestamp"] + happening.shift
        if moved // BUCKET != raw["timestamp"] // BUCKET:
            moved = raw["timestamp"]
        named = raw | {"msg_id": ident}
        year = named | {"msg_id": f"2026-{ident}", "timestamp": moved}
        if happening.is_bare:
            self.live = [raw, raw | {"i": 7, "headers": {"x": 1}}]
            self.archived = [year]
        else:
            self.live = [named, year]
            # Of some there are two rows.
            self.archived = [[named], [year], [named, year]][happening.number % 3]
        self.delay = happening.delay
        if self.delay is None:
            self.archived = []


SECONDS = st.one_of(
    st.integers(0, 7_000).map(float),
    # At the edges of the sums, and of the claims when all is over.
    st.sampled_from([0.0, 0.6, 898.5, 899.5, 900.0, 901.4, 6_299.3, 6_300.0, 6_301.0]),
    st.sampled_from([6_938.0, 6_939.5, 6_940.0, 6_941.5, 6_942.5, 6_960.0]),
)


@st.composite
def happenings(draw: st.DrawFn) -> list[Happening]:
    found = draw(
        st.lists(
            st.builds(
                Happening,
                st.just(0),
                st.just(0),
                st.integers(0, 1_000),
                SECONDS,
                st.booleans(),
                st.sampled_from([0.0, 0.0, 30.0, 500.0, OVERLAP, None]),
                st.sampled_from([0.0, 0.9, -0.9, 0.25]),
            ),
            min_size=6,
            max_size=12,
        )
    )
    found = [replace(one, number=i, says=i) for i, one in enumerate(found)]
    if draw(st.booleans()):
        # Twice the same, without id, in two seconds.
        second = found[0].second // BUCKET * BUCKET + 3
        twin = replace(found[0], second=second, is_bare=True, delay=0.0, shift=0.0)
        found[0] = twin
        found.append(replace(twin, number=len(found), second=second + 1))
    return found


STEPS = st.sampled_from([1.0, 61.0, 700.0, 1_500.0, 4_000.0])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("deliver"),
            st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=1, max_size=8),
        ),
        st.tuples(st.just("reconcile"), STEPS),
        st.tuples(st.just("fold"), STEPS),
        st.sampled_from([("prune", None), ("resolve", None), ("restart", None), ("other", None)]),
    ),
    min_size=6,
    max_size=14,
)


class Laboratory:
    """A database to count into, and one for a single pass, both emptied for each example."""

    def __init__(self, uri: str, template: Path, folder: Path, corpus: list[Message]) -> None:
        self.uri = uri
        self.corpus = [m for m in corpus if isinstance(m.msg, dict)]
        self.installed: Installed = discovery.discover({})
        self.names = sorted(
            dataset.model.__table__.name for dataset in self.installed.datasets.values()
        )
        self._path = folder / "archive.jsonl"
        shutil.copy(template, folder / "oracle.db")
        self._oracle = Database(f"sqlite:///{folder / 'oracle.db'}")
        self._one_pass = Engine(self._oracle, self.installed)
        self._one_pass.open()
        latest = [d.plugin for d in self.installed.datasets.values() if d.schedule is None]
        self._is_latest: Callable[[str], bool] = lambda topic: any(
            plugin.subscribes(topic) for plugin in latest
        )

    def close(self) -> None:
        self._one_pass.close()

    def empty(self, *more: Any) -> None:
        database = Database(self.uri)
        with database.begin() as connection:
            create_missing(connection, [*more])
            for name in [*self.names, *OURS, *(table.name for table in more)]:
                connection.execute(text(f"DELETE FROM {name}"))
        database.dispose()

    def copies(self, happening: Happening) -> Copies:
        real = self.corpus[happening.body % len(self.corpus)]
        # Rows that are no buckets have exact times.
        return Copies(
            replace(happening, shift=0.0) if self._is_latest(real.topic) else happening, real
        )

    def open(self, installed: Installed | None = None) -> Engine:
        found = installed or self.installed
        engine = Engine(Database(self.uri), found, epoch=EPOCH, has_history=True)
        engine.open()
        return engine

    def without(self, *words: str) -> Installed:
        """Of what is installed, that in whose name is none of the words."""
        found = self.installed
        kept = [p for p in found.aggregates if not any(word in p.name for word in words)]
        datasets = {ident: d for ident, d in found.datasets.items() if d.plugin in kept}
        return replace(found, aggregates=kept, datasets=datasets)

    def archive(self, raws: list[dict[str, Any]]) -> FileArchive:
        random.Random(len(raws)).shuffle(raws)
        self._path.write_text("".join(json.dumps(raw) + "\n" for raw in raws))
        return FileArchive([str(self._path)])

    def rows(self, uri: str) -> dict[str, list[Any]]:
        database = Database(uri)
        with database.begin() as connection:
            found = {
                name: sorted(
                    tuple(row) for row in connection.execute(text(f"SELECT * FROM {name}"))
                )
                for name in self.names
            }
        database.dispose()
        return found

    def of_one_pass(self, messages: list[Message]) -> dict[str, list[Any]]:
        with self._oracle.begin() as connection:
            for name in (*self.names, "statscache_claim"):
                connection.execute(text(f"DELETE FROM {name}"))
        self._one_pass.count(messages)
        return self.rows(self._oracle.uri)


def _start(lane: Lane) -> float:
    assert lane.watermark is not None
    start = max(lane.watermark - OVERLAP, lane.history_start or 0.0)
    return (
        start
        if lane.claims_pruned_until is None
        else max(start, lane.claims_pruned_until + TIMESTAMP_TOLERANCE)
    )


OURS = [
    f"statscache_{name}"
    for name in (
        "lane",
        "claim",
        "plugin",
        "claim_checksum",
        "late",
        "gap",
        "audit",
        "revision",
        "rejected",
    )
]


@pytest.fixture
def laboratory(
    migrated_uri: str, migrated_file: Path, tmp_path: Path, corpus: list[Message]
) -> Iterator[Laboratory]:
    made = Laboratory(migrated_uri, migrated_file, tmp_path, corpus)
    yield made
    made.close()


class Run:
    """One example: what happens to the system, and what was seen by it."""

    def __init__(
        self,
        laboratory: Laboratory,
        found: list[Happening],
        installed: Installed | None = None,
    ) -> None:
        self._laboratory = laboratory
        self._installed = installed
        self._copies = [laboratory.copies(one) for one in found]
        self._now = float(START)
        self._seen: set[int] = set()
        self._watermarks: dict[int, float] = {}
        laboratory.empty()
        self._engines = [laboratory.open(installed)]

    @property
    def engine(self) -> Engine:
        return self._engines[0]

    def close(self) -> None:
        for engine in self._engines:
            engine.close()

    def deliver(self, picks: list[tuple[int, int]]) -> None:
        batch = []
        for number, form in picks:
            if number < len(self._copies):
                self._seen.add(number)
                batch.append(Message.from_fedmsg(self._copies[number].live[form]))
        self.engine.count(batch)

    def archive(self) -> FileArchive:
        return self._laboratory.archive(
            [
                raw
                for copies in self._copies
                for raw in copies.archived
                if raw["timestamp"] + copies.delay <= self._now
            ]
        )

    def reconcile(self, seconds: float) -> None:
        """As the hub does it: an overlap once more, and what is new."""
        self._now = min(self._now + seconds, LAST + OVERLAP)
        archive = self.archive()
        for lane in self._lanes():
            for start, stop, topics in self._stretches(lane):
                for piece in read(archive, start, stop, topics):
                    self.engine.commit(Batch.of_slice({lane.id}, piece))

    def fold(self, seconds: float) -> None:
        """As workers do it, far from the present."""
        self._now = min(self._now + seconds, LAST + OVERLAP)
        archive = self.archive()
        for lane in self._lanes():
            plugins = self.engine.plugins_of(lane)
            assert plugins is not None
            task = FoldTask(plugins, self._laboratory.installed, {})
            for start, stop, topics in self._stretches(lane):
                for folded in read(archive, start, stop, topics, task=task):
                    outcome = self.engine.commit(Batch.of_folded(lane.id, folded))
                    is_counted = lane.id in outcome.committed
                    event(f"folded: {is_counted}")
                    if not is_counted:
                        piece = archive.fetch(folded.window)
                        self.engine.commit(Batch.of_slice({lane.id}, piece))

    def _stretches(self, lane: Lane) -> Iterator[tuple[float, float, tuple[str, ...]]]:
        """What of the archive a lane is given: a new one at first only what it wants."""
        home = next((each for each in self._lanes() if each.name == lane.joins), lane)
        plugins = self.engine.plugins_of(lane)
        start, pruned_until = _start(lane), home.claims_pruned_until or 0.0
        if lane.joins and plugins is not None and start < pruned_until:
            yield start, min(pruned_until, self._now), plugins.topics
            start = pruned_until
        if start < self._now:
            yield start, self._now, EVERYTHING

    def prune(self, _: None) -> None:
        self.engine.prune_claims(OVERLAP)

    def resolve(self, _: None) -> None:
        late.resolve(self.engine, self.archive())

    def restart(self, _: None) -> None:
        self._engines.pop(0).close()
        self._engines.insert(0, self._laboratory.open(self._installed))

    def other(self, _: None) -> None:
        """From now on another process does it."""
        if len(self._engines) == 1:
            self._engines.append(self._laboratory.open(self._installed))
        self._engines.reverse()

    def install(self, _: None) -> None:
        """All the plugins are there when the hub has started again."""
        self.close()
        self._installed = None
        self._engines = [self._laboratory.open()]

    def join(self) -> None:
        """What was installed later has counted the same as the others."""
        for lane in self._lanes():
            if lane.joins:
                assert self.engine.join(lane.id)

    def finish(self) -> None:
        """The archive has all that it will ever have, and everything is repeated on the bus."""
        for _ in range(3):
            self.reconcile(LAST)
            while late.resolve(self.engine, self.archive()):
                pass
            known = {number for number, copies in enumerate(self._copies) if copies.archived}
            self.deliver([(number, form) for number in self._seen | known for form in (0, 1)])
            self.prune(None)
        while late.resolve(self.engine, self.archive()):
            pass

    def check(self) -> None:
        distinct = [
            Message.from_fedmsg(copies.live[0])
            for number, copies in enumerate(self._copies)
            if number in self._seen or copies.archived
        ]
        (lane,) = self._lanes()
        with self.engine.transaction() as connection:
            for name in ("late", "rejected"):
                rows = connection.execute(text(f"SELECT * FROM statscache_{name}")).all()
                assert rows == [], name
            total = connection.scalar(text("SELECT messages FROM statscache_lane"))
            unforgotten = connection.scalar(
                text(
                    "SELECT count(*) FROM statscache_claim WHERE archived = 1 AND timestamp < :time"
                ),
                {"time": lane.claims_pruned_until},
            )
        found = self._laboratory.rows(self._laboratory.uri)
        expected = self._laboratory.of_one_pass(distinct)
        for name, rows in expected.items():
            assert found[name] == rows, name
        assert total == len(distinct)
        assert unforgotten == 0

    def _lanes(self) -> list[Any]:
        with self.engine.transaction() as connection:
            lanes = read_lanes(connection)
        for lane in lanes:
            # It never goes back.
            assert lane.watermark >= self._watermarks.get(lane.id, 0.0)
            self._watermarks[lane.id] = lane.watermark
        return lanes


def test_the_tables_are_those_of_one_pass(laboratory: Laboratory) -> None:
    @tried(15, EXAMPLES)
    @given(happenings(), ACTIONS)
    def law(found: list[Happening], todo: list[tuple[str, Any]]) -> None:
        run = Run(laboratory, found)
        try:
            for name, argument in todo:
                getattr(run, name)(argument)
            run.finish()
            run.check()
        finally:
            run.close()

    law()


def test_plugins_that_are_installed_later_have_the_same(laboratory: Laboratory) -> None:
    some = laboratory.without("engineering", "pagure", "topic")

    @tried(6, EXAMPLES)
    @given(happenings(), ACTIONS, ACTIONS, st.booleans())
    def law(
        found: list[Happening],
        before: list[tuple[str, Any]],
        after: list[tuple[str, Any]],
        is_narrow: bool,
    ) -> None:
        run = Run(laboratory, found, laboratory.without("engineering") if is_narrow else some)
        try:
            for name, argument in [*before, ("install", None), *after]:
                getattr(run, name)(argument)
            run.finish()
            run.join()
            run.finish()
            run.check()
        finally:
            run.close()

    law()


class HeardModel(BaseModel):
    __tablename__ = "laws_heard"

    number: Any = Column(Integer, nullable=False)


class Heard(BasePlugin):
    """Writes down what it gets, in the order in which it gets it."""

    name, summary, description = "heard", "heard", "For tests."
    model = HeardModel

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.numbers: list[int] = []

    def process(self, message: dict[str, Any]) -> None:
        self.numbers.append(message["msg"]["number"])

    def update(self, session: Any) -> None:
        for number in self.numbers:
            session.add(HeardModel(timestamp=EPOCH.replace(tzinfo=None), number=number))
        session.commit()
        self.numbers.clear()


CLASSIC_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.lists(st.integers(0, 30), min_size=1, max_size=6)),
        st.tuples(st.just("fetch"), st.integers(1, 3_000)),
        st.sampled_from([("restart", 0), ("fail", 0), ("prune", 0), ("resolve", 0)]),
    ),
    max_size=14,
)


class Hearing:
    """A classic plugin whose history is filled in while live messages come."""

    def __init__(self, uri: str, archive: FileArchive, messages: list[Message]) -> None:
        self._uri = uri
        self._archive = archive
        self._messages = messages
        self._installed = discovery.load([(Source("t", "t", "1"), lambda: (Heard,))], {})
        self.engine = self._open()

    def _open(self) -> Engine:
        engine = Engine(Database(self._uri), self._installed, epoch=EPOCH, has_history=True)
        engine.open()
        return engine

    def deliver(self, numbers: list[int]) -> None:
        found = [self._messages[number % len(self._messages)] for number in numbers]
        self.engine.count(found)

    def fetch(self, seconds: int, *, is_last: bool = False) -> None:
        ordered = steps.lane(self.engine, "ordered")
        assert ordered.watermark is not None
        stop = LAST if is_last else min(ordered.watermark + seconds, LAST - 1)
        for piece in read(self._archive, ordered.watermark, stop):
            ends = is_last and piece.window.stop == stop
            self.engine.commit(Batch.of_slice({ordered.id}, piece, is_last=ends))

    def restart(self, _: int) -> None:
        self.engine.close()
        self.engine = self._open()

    def fail(self, _: int) -> None:
        """The database goes away at the end of a transaction; what was in it is repeated."""
        transactions = self.engine._transactions
        before = transactions.note_changes

        def fail(*_: Any) -> None:
            transactions.note_changes = before  # type: ignore[method-assign]
            raise DatabaseUnavailable("gone")

        transactions.note_changes = fail  # type: ignore[method-assign]
        with contextlib.suppress(DatabaseUnavailable):
            self.fetch(700)
            self.engine.count([])
        assert transactions.note_changes == before

    def prune(self, _: int) -> None:
        self.engine.prune_claims(OVERLAP)

    def resolve(self, _: int) -> None:
        late.resolve(self.engine, self._archive)

    def heard(self) -> list[int]:
        with self.engine.transaction() as connection:
            query = select(HeardModel.number).order_by(HeardModel.id)
            return list(connection.scalars(query))


def test_classic_plugins_hear_everything_once_and_in_order(
    laboratory: Laboratory,
) -> None:
    @tried(15, EXAMPLES)
    @given(
        st.lists(st.integers(0, 6_990), min_size=3, max_size=20),
        st.lists(st.integers(1, 900), max_size=5),
        CLASSIC_ACTIONS,
    )
    def law(seconds: list[int], later: list[int], todo: list[tuple[str, Any]]) -> None:
        laboratory.empty(HeardModel.__table__)
        times = [START + second for second in sorted(seconds)]
        messages = [
            message(timestamp=time + number / 1_000, msg={"number": number})
            for number, time in enumerate(times)
        ]
        hearing = Hearing(laboratory.uri, laboratory.archive([m.raw for m in messages]), messages)
        try:
            for name, argument in todo:
                getattr(hearing, name)(argument)
            hearing.fetch(0, is_last=True)
            hearing.prune(0)
            hearing.deliver([*range(len(messages))])
            hearing.resolve(0)
            live = [
                message(timestamp=LAST + second, msg={"number": len(messages) + number})
                for number, second in enumerate(sorted(later))
            ]
            for first in range(0, len(live), 2):
                hearing.engine.count([*live[first : first + 2], *messages[:2]])
            assert hearing.heard() == [*range(len(messages) + len(live))]
        finally:
            hearing.engine.close()

    law()
