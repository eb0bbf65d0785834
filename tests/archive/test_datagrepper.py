"""The client of datagrepper, against its re-creation: all that it has, whatever goes wrong."""

from __future__ import annotations

import itertools
import json
import logging
import math
import pickle
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statscache.archive import DatagrepperArchive, Window, open_archive, read
from statscache.archive.datagrepper_pages import MOST_PAGES
from statscache.clock import SYSTEM
from statscache.errors import ArchiveUnavailable
from statscache.message import Message
from statscache.topics import EVERYTHING, matcher
from tests.support.clocks import Impatient, ManualClock
from tests.support.datagrepper import NO_ANSWER, Datagrepper
from tests.support.messages import NOON, message

GIT = "org.fedoraproject.prod.git.receive"


class Waits(ManualClock):
    """Keeps how long it is waited for, and calls ``then``."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        super().__init__(NOON)
        self.waits: list[float] = []
        self._then = then

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        super().sleep(seconds)
        self._then()


def client(datagrepper: Datagrepper, **more: Any) -> DatagrepperArchive:
    """One that does not wait long before it asks again."""
    return DatagrepperArchive(datagrepper.url, **({"clock": Impatient()} | more))


def spread(count: int, seconds: float, *, decimals: int = 0, **more: Any) -> list[Message]:
    """Messages that are spread over the seconds after noon."""
    step = seconds / count
    scale = 10**decimals
    return [
        message(timestamp=NOON + math.floor(number * step * scale) / scale, **more)
        for number in range(count)
    ]


def identities(messages: list[Message]) -> list[str]:
    return sorted(item.identity for item in messages)


def everything(
    archive: DatagrepperArchive, start: float, stop: float, **more: Any
) -> list[Message]:
    """What reading returns, of which nothing may be missing, nor come twice."""
    found: list[Message] = []
    for piece in read(archive, start, stop, **more):
        assert piece.missing == 0
        found += piece.messages
    assert len({item.identity for item in found}) == len(found)
    return found


def test_every_page_is_delivered(datagrepper: Datagrepper) -> None:
    sent = spread(950, 950)
    datagrepper.add(sent)
    piece = client(datagrepper).fetch(Window(NOON, NOON + 950))
    assert identities(piece.messages) == identities(sent)
    assert [item.timestamp for item in piece.messages] == sorted(m.timestamp for m in sent)
    assert (piece.window, piece.missing) == (Window(NOON, NOON + 950), 0)
    assert [request["page"] for request in datagrepper.requests] == [str(n) for n in range(1, 11)]
    for request in datagrepper.requests:
        assert request.path == "v2/search"
        assert (request["order"], request["rows_per_page"]) == ("asc", "100")
        assert float(request["start"]) == NOON
        assert float(request["end"]) == pytest.approx(NOON + 950, abs=2e-6)


def test_an_empty_window_costs_one_question(datagrepper: Datagrepper) -> None:
    piece = client(datagrepper).fetch(Window(NOON, NOON + 3600))
    assert (piece.size, piece.missing) == (0, 0)
    assert len(datagrepper.requests) == 1


def test_more_than_a_few_pages_are_not_paged_through(datagrepper: Datagrepper) -> None:
    sent = spread(4000, 400)
    datagrepper.add(sent)
    archive = client(datagrepper)
    piece = archive.fetch(Window(NOON, NOON + 400))
    assert piece.window == Window(NOON, NOON + 100)
    assert identities(piece.messages) == identities([m for m in sent if m.timestamp < NOON + 100])
    assert max(int(request["page"]) for request in datagrepper.requests) <= MOST_PAGES
    assert len(everything(archive, NOON, NOON + 400)) == 4000


@pytest.mark.parametrize("decimals", [0, 6])
def test_the_order_within_a_second_does_not_matter(datagrepper: Datagrepper, decimals: int) -> None:
    sent = spread(900, 15, decimals=decimals)
    datagrepper.add(sent)
    for _ in range(5):
        piece = client(datagrepper).fetch(Window(NOON, NOON + 15))
        assert (len(piece.messages), piece.missing) == (900, 0)
    # Only the seconds that are on two pages are asked for again.
    assert len(datagrepper.requests) <= 5 * (9 + 8 + 1)


@pytest.mark.parametrize("decimals", [0, 6])
def test_a_second_of_many_pages(datagrepper: Datagrepper, decimals: int) -> None:
    sent = [*spread(1500, 0.9, decimals=decimals), *spread(40, 600)[1:]]
    datagrepper.add(sent)
    assert len(everything(client(datagrepper), NOON - 10, NOON + 600)) == len(sent)


@pytest.mark.parametrize("step", [0.25, 0.7, 1.0, 1.5, 2.9])
def test_ties_at_an_edge_are_neither_lost_nor_doubled(
    datagrepper: Datagrepper, step: float
) -> None:
    sent = [
        message(timestamp=NOON + second + fraction)
        for second in range(6)
        for fraction in (0, 0, 0, 0.25, 0.5, 0.499999, 0.75, 0.999999)
    ]
    datagrepper.add(sent)
    archive = client(datagrepper)
    for start in (NOON, NOON - 0.3):
        found: list[str] = []
        while start < NOON + 6:
            piece = archive.fetch(Window(start, start + step))
            assert piece.window.stop > start
            inside = [m for m in sent if piece.window.start <= m.timestamp < piece.window.stop]
            assert identities(piece.messages) == identities(inside)
            found += identities(piece.messages)
            start = piece.window.stop
        assert sorted(found) == identities(sent)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    times=st.lists(st.floats(0, 30).map(lambda t: round(t * 2) / 2), max_size=250),
    edges=st.lists(st.floats(0, 31), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
def test_however_the_time_is_cut(
    datagrepper_process: Datagrepper, times: list[float], edges: list[float], seed: int
) -> None:
    datagrepper_process.clear()
    sent = [message(timestamp=NOON + when) for when in times]
    random.Random(seed).shuffle(sent)
    datagrepper_process.add(sent)
    archive = client(datagrepper_process)
    cuts = sorted({NOON, *(NOON + edge for edge in edges), NOON + 31})
    found = [
        item.identity
        for start, stop in itertools.pairwise(cuts)
        for item in everything(archive, start, stop, width=7)
    ]
    assert sorted(found) == identities(sent)


@pytest.mark.parametrize("count", [350, 900])
def test_a_gap_that_remains_is_recorded(
    datagrepper: Datagrepper, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    sent = spread(count, 100)
    datagrepper.add(sent)
    # One where a page ends, and one where none does.
    datagrepper.set(withheld=[sent[99].id, sent[150].id])
    archive = client(datagrepper)
    pieces = list(read(archive, NOON, NOON + 200))
    assert sum(piece.missing for piece in pieces) == 2
    assert sum(len(piece.messages) for piece in pieces) == count - 2
    assert "does not return 2 of what it has of 2023-11-15T12:00:00Z to" in caplog.text
    assert archive.requests < 250
    datagrepper.set(withheld=[])
    pieces = list(read(archive, NOON, NOON + 200))
    assert sum(piece.missing for piece in pieces) == 0
    assert sum(len(piece.messages) for piece in pieces) == count


def test_rows_that_arrive_while_it_pages(datagrepper: Datagrepper) -> None:
    generator = random.Random(5)
    first = spread(600, 60)
    datagrepper.add(first)
    late = spread(300, 60)
    generator.shuffle(late)
    done = threading.Event()

    def arrive() -> None:
        for item in late:
            datagrepper.add([item])
            time.sleep(0.002)
        done.set()

    arriving = threading.Thread(target=arrive)
    arriving.start()
    archive = client(datagrepper)
    known = set(identities(first))
    while not done.is_set():
        found = everything(archive, NOON, NOON + 60)
        # All that was there when it began, at the least.
        assert known <= set(identities(found))
        known = set(identities(found))
    arriving.join()
    assert identities(everything(archive, NOON, NOON + 60)) == identities([*first, *late])


FAULTS = ("500", "502", "broken", "truncated", "reset", "429")


@pytest.mark.parametrize("fault", FAULTS)
def test_it_asks_again_after(datagrepper: Datagrepper, fault: str) -> None:
    sent = spread(700, 140)
    datagrepper.add(sent)
    datagrepper.set(**{f"share_{fault}": 0.3, "retry_after": "0"})
    archive = client(datagrepper, tries=12)
    archive.slice_size = 50
    assert identities(everything(archive, NOON, NOON + 140, width=10)) == identities(sent)
    refused = [r for r in datagrepper.requests if r.status != 200]
    assert fault in ("broken", "truncated") or len(refused) > 2
    assert len(datagrepper.requests) == archive.requests > 15


def test_it_asks_for_less_after_a_timeout(datagrepper: Datagrepper) -> None:
    sent = spread(300, 300)
    datagrepper.add(sent)
    # One that would need more than a second for more than 40 rows.
    datagrepper.set(most_rows=40, too_slow_after=1.5)
    archive = client(datagrepper, timeout=0.5)
    assert identities(everything(archive, NOON, NOON + 300)) == identities(sent)
    assert archive.widest < 100
    slow = [request for request in datagrepper.requests if request.status == 502]
    assert len(slow) <= 10
    # What was learned is not forgotten from one time to the next.
    before = archive.requests
    everything(archive, NOON, NOON + 60)
    assert archive.requests - before <= 8


def test_it_asks_for_less_after_an_answer_that_breaks_off(datagrepper: Datagrepper) -> None:
    sent = spread(200, 100)
    datagrepper.add(sent)
    datagrepper.set(most_rows=50)
    archive = client(datagrepper)
    assert identities(everything(archive, NOON, NOON + 100)) == identities(sent)
    # Each twice: once may be a hiccup.
    assert Counter(request.status for request in datagrepper.requests)[502] <= 16


def test_widths_grow_again(datagrepper: Datagrepper) -> None:
    datagrepper.add(spread(300, 300))
    datagrepper.set(most_rows=30)
    archive = client(datagrepper)
    everything(archive, NOON, NOON + 100)
    assert archive.widest < 60
    datagrepper.set(most_rows=None)
    for _ in range(20):
        everything(archive, NOON, NOON + 100)
    assert archive.widest > 100


def test_when_even_a_second_takes_too_long_it_says_so(datagrepper: Datagrepper) -> None:
    datagrepper.add(spread(3, 1))
    datagrepper.set(most_rows=2)
    archive = client(datagrepper)
    with pytest.raises(ArchiveUnavailable, match="answers 502"):
        list(read(archive, NOON, NOON + 10))
    assert archive.widest > 1000


@pytest.mark.parametrize("most_rows", [None, 40])
def test_its_newest_message_and_how_many_it_has(
    datagrepper: Datagrepper, most_rows: int | None
) -> None:
    datagrepper.add(spread(300, 3_000))
    # What is too much at a time is asked for in halves.
    datagrepper.set(most_rows=most_rows)
    archive = client(datagrepper)
    month = 30 * 86_400
    assert archive.newest(NOON - month, NOON + month) == NOON + 2_990
    assert archive.newest(NOON - month, NOON + 1_000) == NOON + 990
    assert archive.newest(NOON + 2_991, NOON + month) is None
    assert archive.count(Window(NOON - month, NOON + 1_500)) == 150
    assert all(request.status == 200 for request in datagrepper.requests) == (most_rows is None)


def test_a_server_that_hangs(datagrepper: Datagrepper) -> None:
    sent = spread(300, 300)
    datagrepper.add(sent)
    datagrepper.set(share_hang=0.2)
    found = everything(client(datagrepper, timeout=0.5), NOON, NOON + 300)
    assert identities(found) == identities(sent)
    datagrepper.set(share_hang=1.0)
    with pytest.raises(ArchiveUnavailable, match="does not answer"):
        client(datagrepper, timeout=0.05).fetch(Window(NOON, NOON + 4))


@pytest.mark.parametrize("told", ["20", formatdate(NOON + 20, usegmt=True)])
def test_it_waits_as_long_as_it_is_told(datagrepper: Datagrepper, told: str) -> None:
    datagrepper.set(share_429=1.0, retry_after=told)
    clock = Waits(lambda: datagrepper.set(share_429=0.0))
    client(datagrepper, clock=clock).fetch(Window(NOON, NOON + 1))
    assert [request.status for request in datagrepper.requests] == [429, 200]
    assert clock.monotonic() == pytest.approx(20)


def test_threads_wait_together(datagrepper: Datagrepper) -> None:
    datagrepper.set(share_429=1.0, retry_after="1")
    archive = client(datagrepper, clock=SYSTEM)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(archive.fetch, Window(NOON, NOON + 1))
        while not datagrepper.requests:
            time.sleep(0.01)
        datagrepper.set(share_429=0.0)
        time.sleep(0.1)
        archive.fetch(Window(NOON + 1, NOON + 2))
        future.result()
    refused, *answered = datagrepper.requests
    assert [request.status for request in answered] == [200, 200]
    assert answered[0].at - refused.at >= 0.95


def test_a_wait_without_end_is_not_obeyed(datagrepper: Datagrepper) -> None:
    clock = Waits()
    datagrepper.set(outage=True, retry_after="86400")
    with pytest.raises(ArchiveUnavailable, match="answers 503"):
        client(datagrepper, clock=clock, tries=2).fetch(Window(NOON, NOON + 1))
    assert 290 < max(clock.waits) <= 300


@pytest.mark.parametrize("value", ["soon", "-5", "nan", ""])
def test_a_wait_that_is_none(datagrepper: Datagrepper, value: str) -> None:
    clock = Waits()
    datagrepper.set(outage=True, retry_after=value)
    with pytest.raises(ArchiveUnavailable):
        client(datagrepper, clock=clock, tries=3).fetch(Window(NOON, NOON + 1))
    assert max(clock.waits) < 10


def test_an_outage_is_told_and_nothing_is_skipped(datagrepper: Datagrepper) -> None:
    sent = spread(100, 600)
    datagrepper.add(sent)
    datagrepper.set(outage=True)
    archive = client(datagrepper)
    with pytest.raises(ArchiveUnavailable, match=r"127\.0\.0\.1:\d+/ answers 503 SERVICE UNAVAIL"):
        next(iter(read(archive, NOON, NOON + 600)))
    assert len(datagrepper.requests) == 6
    datagrepper.set(outage=False)
    assert identities(everything(archive, NOON, NOON + 600)) == identities(sent)


def test_an_old_server_has_only_raw(datagrepper: Datagrepper) -> None:
    sent = spread(250, 100)
    datagrepper.add(sent)
    datagrepper.set(is_old=True)
    clock = ManualClock(NOON)
    archive = client(datagrepper, clock=clock)
    assert identities(everything(archive, NOON, NOON + 100)) == identities(sent)
    assert Counter(request.path for request in datagrepper.requests) == {"v2/search": 1, "raw": 3}
    # One day it is not old any more.
    datagrepper.set(is_old=False)
    clock.advance(3600)
    everything(archive, NOON, NOON + 100)
    assert datagrepper.requests[-1].path == "v2/search"


def test_both_routes_give_the_same_messages(datagrepper: Datagrepper) -> None:
    corpus = [*spread(50, 7, decimals=6, msg={"a": 1}), message(timestamp=NOON, msg_id=None)]
    datagrepper.add(corpus)
    found = []
    for is_old in (False, True):
        datagrepper.set(is_old=is_old)
        pieces = client(datagrepper).fetch(Window(NOON, NOON + 10)).messages
        found.append([(m.id, m.topic, m.timestamp, m.msg, m.digest) for m in pieces])
    assert found[0] == found[1]
    assert len(found[0]) == 51


def test_a_server_that_becomes_old_between_two_pages(datagrepper: Datagrepper) -> None:
    sent = spread(500, 50, decimals=6)
    datagrepper.add(sent)
    clock = ManualClock(NOON)
    archive = client(datagrepper, clock=clock)
    asked = archive.client._get

    def get(path: str, parameters: Any) -> Any:
        datagrepper.set(is_old=len(datagrepper.requests) in (2, 3, 5))
        clock.advance(3600)
        return asked(path, parameters)

    archive.client._get = get  # type: ignore[method-assign]
    assert identities(archive.fetch(Window(NOON, NOON + 50)).messages) == identities(sent)
    assert {request.path for request in datagrepper.requests} == {"raw", "v2/search"}


TOPICS = (
    "org.fedoraproject.prod.git.receive",
    "org.fedoraproject.stg.git.receive",
    "org.fedoraproject.prod.git.branch.new",
    "org.fedoraproject.prod.wiki.article.edit",
    "org.fedoraproject.prod.buildsys.build.state.change",
    "org.fedoraproject.prod",
    "org.fedoraproject.prod.git",
    "short",
    "/topic/VirtualTopic.eng.git.receive",
    "org.VirtualTopic.git.receive",
)
PATTERNS: list[tuple[tuple[str, ...], set[str]]] = [
    (("#",), set()),
    ((GIT,), {"topic"}),
    ((GIT, "short"), {"topic"}),
    (("org.fedoraproject.*.git.receive",), {"category"}),
    (("org.fedoraproject.prod.git.#", "org.fedoraproject.prod.wiki.#"), {"category"}),
    (("org.fedoraproject.prod.git.#", "org.fedoraproject.prod.wiki.article.edit"), {"category"}),
    (("org.fedoraproject.prod.git.#", "short"), set()),
    (("org.#.git.receive",), set()),
    (("org.fedoraproject.prod.#",), set()),
    (("org.fedoraproject.prod.*.receive",), set()),
    (("*.*.*.receive",), set()),
    (("*.eng.git.receive",), set()),
    (("/topic/VirtualTopic.eng.git.*",), set()),
    (("/topic/VirtualTopic.eng.git.receive",), {"topic"}),
    (("#.git.receive",), set()),
    ((GIT, *(f"org.fedoraproject.prod.git.number{n}" for n in range(200))), {"category"}),
    ((GIT, *(f"a.b.c.category{n}.d" for n in range(300))), set()),
]


@pytest.mark.parametrize(("patterns", "names"), PATTERNS)
def test_filters_never_give_less_than_wanted(
    datagrepper: Datagrepper, patterns: tuple[str, ...], names: set[str]
) -> None:
    sent = [message(topic, timestamp=NOON + n) for n, topic in enumerate(TOPICS * 3)]
    datagrepper.add(sent)
    piece = client(datagrepper).fetch(Window(NOON, NOON + 100), patterns)
    wanted = matcher(patterns)
    assert identities(piece.messages) == identities([m for m in sent if wanted(m.topic)])
    (request,) = datagrepper.requests
    assert {name for name, _ in request.arguments} & {"topic", "category"} == names


def test_a_year_before_an_id_does_not_make_another_message(datagrepper: Datagrepper) -> None:
    datagrepper.add(
        [
            message(timestamp=NOON + 1, msg_id="2023-abc", msg={"n": 2}),
            message(timestamp=NOON, msg_id="abc", msg={"n": 1}),
            message(timestamp=NOON + 1, msg_id="2024-abcd"),
            message(timestamp=NOON + 1, msg_id="abcd"),
        ]
    )
    messages = client(datagrepper).fetch(Window(NOON, NOON + 5)).messages
    assert [(m.identity, m.timestamp) for m in messages] == [("abc", NOON), ("abcd", NOON + 1)]
    assert messages[0].msg == {"n": 1}


def test_one_id_at_two_times_is_no_gap(datagrepper: Datagrepper) -> None:
    for number in range(150):
        datagrepper.add(
            [message(timestamp=NOON + more, msg_id=str(number)) for more in (0, 0.5, 7)]
        )
    piece = client(datagrepper).fetch(Window(NOON, NOON + 10))
    assert (len(piece.messages), piece.missing) == (150, 0)
    assert {item.timestamp for item in piece.messages} == {NOON}


def test_what_is_no_message_is_rejected(datagrepper: Datagrepper) -> None:
    datagrepper.add([*spread(10, 10), message(timestamp=NOON + 3).raw | {"topic": ""}])
    piece = client(datagrepper).fetch(Window(NOON, NOON + 10))
    assert len(piece.messages) == 10
    (rejection,) = piece.rejected
    assert "no topic" in rejection.reason
    assert datagrepper.url in rejection.reason
    assert json.loads(rejection.content)["topic"] == ""


@pytest.mark.parametrize("by", [-0.9, 0.9])
def test_no_window_loses_a_message_whose_time_was_rewritten(
    datagrepper: Datagrepper, by: float
) -> None:
    sent = spread(120, 60)
    datagrepper.add(sent)
    datagrepper.set(is_old=True)
    archive = client(datagrepper)
    asked = archive.client.ask

    def ask(*arguments: Any) -> dict[str, Any]:
        answer = asked(*arguments)
        for row in answer["raw_messages"]:
            row["timestamp"] += by
        return answer

    # Its rows have other times than those under which they are found.
    archive.client.ask = ask  # type: ignore[method-assign]
    assert identities(everything(archive, NOON, NOON + 60, width=1)) == identities(sent)
    by = 5000.0
    piece = archive.fetch(Window(NOON, NOON + 60))
    assert (len(piece.messages), len(piece.rejected)) == (0, 120)
    assert "has it at another time" in piece.rejected[0].reason


def with_credentials(datagrepper: Datagrepper, credentials: str) -> str:
    return datagrepper.url.replace("://", f"://{credentials}@")


def test_an_address_with_a_password(datagrepper: Datagrepper) -> None:
    sent = spread(10, 10)
    datagrepper.add(sent)
    datagrepper.set(credentials="me:sec/r@t")
    archive = open_archive(with_credentials(datagrepper, "me:sec%2Fr%40t"))
    assert isinstance(archive, DatagrepperArchive)
    assert archive.describe() == f"datagrepper at {datagrepper.url}"
    assert identities(archive.fetch(Window(NOON, NOON + 10)).messages) == identities(sent)
    with pytest.raises(ArchiveUnavailable, match=r"401 UNAUTHORIZED.*name and password"):
        client(datagrepper).fetch(Window(NOON, NOON + 10))


def test_passwords_are_in_no_error(
    datagrepper: Datagrepper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="statscache")
    errors = []
    datagrepper.set(is_old=True, share_500=1.0)
    for endpoint in (
        with_credentials(datagrepper, "me:secret"),
        "http://me:secret@127.0.0.1:9/",
        "http://me:secret@127.0.0.1:port/",
        "http://me:secret@[::1/",
        "http://me:secret@.example/",
        "ftp://me:secret@127.0.0.1/",
    ):
        archive = DatagrepperArchive(endpoint, clock=Impatient(), tries=2)
        with pytest.raises(ArchiveUnavailable) as raised:
            archive.fetch(Window(NOON, NOON + 10))
        errors.append(str(raised.value))
    datagrepper.set(share_500=0.0)
    DatagrepperArchive(with_credentials(datagrepper, "me:secret"), clock=Impatient()).fetch(
        Window(NOON, NOON + 1)
    )
    assert "has no /v2/search" in caplog.text
    assert "secret" not in caplog.text
    assert not [error for error in errors if "secret" in error]
    assert "cannot be reached" in errors[1]
    assert "is no URL" in errors[2]


def test_an_address_that_is_not_a_datagrepper(datagrepper: Datagrepper) -> None:
    archive = DatagrepperArchive(datagrepper.url + "elsewhere", clock=Impatient())
    with pytest.raises(ArchiveUnavailable, match=r"404.*datagrepper\.endpoint is its address"):
        archive.fetch(Window(NOON, NOON + 10))
    assert archive.requests == 2


def test_it_can_be_sent_elsewhere_and_closed(
    datagrepper: Datagrepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = spread(30, 30)
    datagrepper.add(sent)
    archive = DatagrepperArchive(datagrepper.url)
    archive.fetch(Window(NOON, NOON + 10))
    copy = pickle.loads(pickle.dumps(archive))
    assert identities(copy.fetch(Window(NOON, NOON + 30)).messages) == identities(sent)
    assert (archive.requests, copy.requests) == (1, 1)
    for _ in range(3):
        assert len(everything(archive, NOON, NOON + 30, concurrency=4, width=3)) == 30
    # Whichever threads asked, there are no more connections than questions at a time.
    assert 1 <= len(archive.client._idle) <= 4
    sessions = list(archive.client._idle)
    closed: list[requests.Session] = []
    monkeypatch.setattr(requests.Session, "close", lambda session: closed.append(session))
    archive.close()
    assert sorted(map(id, closed)) == sorted(map(id, sessions))
    assert archive.client._idle == []
    # And it may be used again.
    assert len(archive.fetch(Window(NOON, NOON + 30)).messages) == 30


def test_it_tells_how_long_it_waited(datagrepper: Datagrepper) -> None:
    datagrepper.set(latency=0.1)
    archive = client(datagrepper)
    archive.fetch(Window(NOON, NOON + 10))
    assert archive.waited >= 0.1


def test_a_server_that_went_away_is_found_again(datagrepper: Datagrepper) -> None:
    sent = spread(30, 30)
    datagrepper.add(sent)
    archive = client(datagrepper)
    datagrepper.stop()
    with pytest.raises(ArchiveUnavailable, match="cannot be reached"):
        archive.fetch(Window(NOON, NOON + 30), EVERYTHING)
    datagrepper.start()
    assert identities(archive.fetch(Window(NOON, NOON + 30)).messages) == identities(sent)
    assert NO_ANSWER not in {request.status for request in datagrepper.requests}
