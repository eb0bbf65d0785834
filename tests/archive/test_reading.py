"""Archives are read in windows: in order, several at a time, in bounded memory, errors in place."""

from __future__ import annotations

import itertools
import random
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import orjson
import pytest

from statscache.archive import Archive, DatagrepperArchive, FileArchive, Slice, Window, read
from statscache.archive.base import distinct
from statscache.errors import ArchiveUnavailable
from statscache.message import Message
from statscache.topics import EVERYTHING
from tests.support.clocks import Impatient
from tests.support.datagrepper import Datagrepper
from tests.support.messages import NOON, message

CONCURRENCIES = pytest.mark.parametrize("concurrency", [1, 4])


class Recorded(Archive):
    """Messages in memory, which fetches like the others, and remembers what it was asked."""

    def __init__(self, messages: list[Message], slice_size: int = 50, most: int = 100) -> None:
        self.messages = sorted(messages, key=lambda item: item.timestamp)
        self.slice_size = slice_size
        self.most = most
        self.asked: list[Window] = []
        self.under_way = 0
        self.most_under_way = 0
        self.refuses = 0.0
        self.delay = 0.0
        self._lock = threading.Lock()

    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        """Of too many, the first seconds."""
        with self._lock:
            self.asked.append(window)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        time.sleep(random.random() * self.delay)
        try:
            if window.start <= self.refuses < window.stop:
                raise ArchiveUnavailable(f"nothing from {window.start}")
            while len(found := self._of(window)) > self.most and not window.is_one_second:
                window = window.halves()[0]
            return Slice(window, found)
        finally:
            with self._lock:
                self.under_way -= 1

    def _of(self, window: Window) -> list[Message]:
        return [m for m in self.messages if window.start <= m.timestamp < window.stop]

    def describe(self) -> str:
        """For people."""
        return "memory"


def bursts(seed: int) -> list[Message]:
    """Hours in which little happens, and seconds in which much does."""
    generator = random.Random(seed)
    times = [generator.uniform(0, 20_000) for _ in range(400)]
    for start in (3000, 3001, 9000, 15_000):
        times += [start + generator.uniform(0, 60) for _ in range(700)]
    times += [12_345.5] * 300
    return [message(timestamp=NOON + when) for when in times]


def check(pieces: list[Slice], messages: list[Message], start: float, stop: float) -> None:
    """They cover the time without gaps, in order, and have each message once."""
    assert pieces[0].window.start == start
    assert pieces[-1].window.stop == stop
    for piece, after in itertools.pairwise(pieces):
        assert piece.window.stop == after.window.start
    found = [item.id for piece in pieces for item in piece.messages]
    wanted = [item.id for item in messages if start <= item.timestamp < stop]
    assert sorted(found) == sorted(wanted)


@CONCURRENCIES
@pytest.mark.parametrize("seed", range(3))
def test_windows_follow_each_other(concurrency: int, seed: int) -> None:
    archive = Recorded(bursts(seed))
    archive.delay = 0.002
    start, stop = NOON - 500.25, NOON + 19_999.5
    pieces = list(read(archive, start, stop, concurrency=concurrency))
    check(pieces, archive.messages, start, stop)
    assert archive.most_under_way <= concurrency
    assert (concurrency == 1) == (archive.most_under_way == 1)
    # All but the outer edges are whole seconds.
    assert all(piece.window.stop % 1 == 0 for piece in pieces[:-1])


@CONCURRENCIES
def test_nothing_is_fetched_twice(concurrency: int) -> None:
    archive = Recorded(bursts(1))
    pieces = list(read(archive, NOON, NOON + 20_000, concurrency=concurrency))
    assert len(archive.asked) == len(pieces)
    starts = [window.start for window in archive.asked]
    assert len(set(starts)) == len(starts)


def test_widths_adapt() -> None:
    archive = Recorded([message(timestamp=NOON + number) for number in range(10_000)])
    pieces = list(read(archive, NOON - 100_000, NOON + 10_000))
    dense = [piece for piece in pieces if piece.window.start >= NOON][2:-1]
    assert {len(piece.messages) for piece in dense} == {archive.slice_size}
    # Empty stretches are crossed in few and long steps.
    assert len([piece for piece in pieces if not piece.messages]) < 10


def test_windows_are_not_longer_than_the_archive_can() -> None:
    archive = Recorded([])
    archive.widest = 60.0
    list(read(archive, NOON, NOON + 600))
    assert {window.stop - window.start for window in archive.asked} == {60.0}


@CONCURRENCIES
def test_an_empty_stretch_is_no_question(concurrency: int) -> None:
    archive = Recorded([])
    assert list(read(archive, NOON, NOON, concurrency=concurrency)) == []
    assert list(read(archive, NOON, NOON - 1, concurrency=concurrency)) == []
    assert archive.asked == []
    (piece,) = read(archive, NOON + 0.25, NOON + 0.5, concurrency=concurrency)
    assert piece.window == Window(NOON + 0.25, NOON + 0.5)


@CONCURRENCIES
def test_no_more_is_held_than_a_window_for_each_question(concurrency: int) -> None:
    archive = Recorded(bursts(2))
    ahead = []
    pieces = []
    for piece in read(archive, NOON, NOON + 20_000, concurrency=concurrency):
        pieces.append(piece)
        # However long the reader takes, and however fast the archive is.
        time.sleep(0.003)
        ahead.append(len(archive.asked) - len(pieces))
    check(pieces, archive.messages, NOON, NOON + 20_000)
    assert max(ahead) < concurrency
    one_second = max(len(piece.messages) for piece in pieces)
    assert one_second <= 300


@CONCURRENCIES
def test_an_error_is_raised_in_its_place(concurrency: int) -> None:
    archive = Recorded(bursts(3))
    archive.refuses = NOON + 9500
    pieces: list[Slice] = []
    with pytest.raises(ArchiveUnavailable) as raised:
        pieces.extend(read(archive, NOON, NOON + 20_000, concurrency=concurrency))
    stop = pieces[-1].window.stop
    assert stop <= archive.refuses
    assert str(raised.value) == f"nothing from {stop}"
    check(pieces, archive.messages, NOON, stop)
    # And can be read on from there.
    archive.refuses = 0
    rest = list(read(archive, stop, NOON + 20_000, concurrency=concurrency))
    check([*pieces, *rest], archive.messages, NOON, NOON + 20_000)


def test_who_stops_reading_leaves_nothing_behind() -> None:
    archive = Recorded(bursts(3))
    before = threading.active_count()
    reading = read(archive, NOON, NOON + 20_000, concurrency=4)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    asked = len(archive.asked)
    time.sleep(0.05)
    assert len(archive.asked) == asked <= 4


def count(archive: Archive, window: Window, topics: tuple[str, ...]) -> Slice:
    """A task of our own, that can be sent to other processes."""
    piece = archive.fetch(window, topics)
    return Slice(piece.window, piece.messages[:1], missing=len(piece.messages))


@pytest.mark.parametrize("processes", [False, True])
def test_any_executor_will_do(tmp_path: Path, processes: bool) -> None:
    path = tmp_path / "messages.jsonl"
    messages = bursts(4)
    path.write_bytes(b"".join(orjson.dumps(item.raw) + b"\n" for item in messages))
    archive = FileArchive([str(path)])
    archive.slice_size = 100
    executor = (
        ProcessPoolExecutor(2, mp_context=get_context("spawn"))
        if processes
        else ThreadPoolExecutor(2)
    )
    with executor:
        pieces = list(
            read(archive, NOON, NOON + 20_000, task=count, executor=executor, concurrency=3)
        )
        # It belongs to its owner, who goes on using it.
        executor.submit(int).result()
    archive.close()
    assert [p.window.stop for p in pieces[:-1]] == [p.window.start for p in pieces[1:]]
    inside = [item for item in messages if NOON <= item.timestamp < NOON + 20_000]
    assert sum(piece.missing for piece in pieces) == len(inside)


@CONCURRENCIES
@pytest.mark.parametrize("faults", [{}, {"share_502": 0.1, "share_reset": 0.1, "latency": 0.002}])
def test_over_http(datagrepper: Datagrepper, concurrency: int, faults: dict[str, Any]) -> None:
    messages = bursts(5)
    datagrepper.add(messages)
    datagrepper.set(**faults)
    archive = DatagrepperArchive(datagrepper.url, clock=Impatient(), tries=9)
    pieces = list(read(archive, NOON, NOON + 20_000, concurrency=concurrency))
    archive.close()
    check(pieces, messages, NOON, NOON + 20_000)
    assert sum(piece.missing for piece in pieces) == 0
    assert all(len(piece.messages) <= 1000 for piece in pieces)


def test_copies_of_a_message_are_one_whatever_their_order() -> None:
    first = message(timestamp=NOON, msg_id="2023-x", msg={"n": 1})
    second = message(timestamp=NOON, msg_id="x", msg={"n": 2})
    later = message(timestamp=NOON + 1, msg_id="x", msg={"n": 0})
    other = message(timestamp=NOON - 1, msg_id="y")
    for copies in itertools.permutations([first, second, later, other]):
        assert distinct(copies) == [other, first]


def test_windows_meet_at_whole_seconds() -> None:
    for start, stop in ((0.0, 2.0), (0.5, 1.5), (0.9, 1.6), (0.1, 9.9), (3.0, 300.0)):
        window = Window(start, stop)
        assert not window.is_one_second
        first, second = window.halves()
        assert (first.start, first.stop, second.stop) == (start, second.start, stop)
        assert start < first.stop < stop
        assert first.stop % 1 == 0
    for start, stop in ((0.0, 1.0), (0.25, 0.5), (0.25, 1.0)):
        assert Window(start, stop).is_one_second
