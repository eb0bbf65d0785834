"""The re-creation of datagrepper behaves as badly as the real one, as far as is known of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.datagrepper import NO_ANSWER, SETTINGS, Datagrepper, Store
from tests.support.messages import NOON, message


@pytest.fixture(scope="module")
def one_server() -> Iterator[Datagrepper]:
    with Datagrepper() as server:
        yield server


@pytest.fixture
def server(one_server: Datagrepper) -> Datagrepper:
    one_server.clear()
    return one_server


def ask(server: Datagrepper, path: str = "v2/search", **parameters: Any) -> dict[str, Any]:
    response = requests.get(server.url + path, params=parameters, timeout=10)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [row.get("id", row.get("msg_id")) for row in answer["raw_messages"]]


def test_without_a_time_it_answers_for_the_last_hour(server: Datagrepper) -> None:
    now = time.time()
    server.add([message(timestamp=now - 10, msg_id="new"), message(timestamp=now - 7000)])
    assert ids(ask(server)) == ["new"]
    assert ask(server, delta=8000)["total"] == 2
    # Not until now, but for an hour.
    assert ask(server, start=now - 7200)["total"] == 1


def test_a_start_of_zero_switches_the_window_off(server: Datagrepper) -> None:
    server.add([message(timestamp=NOON)])
    assert ask(server, start=0, end=1)["total"] == 1
    assert ask(server, start=1, end=2)["total"] == 0


def test_a_plus_that_is_not_escaped_moves_a_date(server: Datagrepper) -> None:
    server.add([message(timestamp=NOON)])
    date = "2023-11-15T14:00:00%2B02:00"
    for written, total in ((date, 1), (date.replace("%2B", "+"), 0)):
        response = requests.get(f"{server.url}raw?start={written}&end={NOON + 60}", timeout=10)
        assert response.json()["total"] == total


def test_both_ends_are_inclusive(server: Datagrepper) -> None:
    server.add([message(timestamp=NOON + number, msg_id=str(number)) for number in range(4)])
    assert ids(ask(server, start=NOON + 1, end=NOON + 2, order="asc")) == ["1", "2"]
    assert ids(ask(server, start=NOON + 1, end=NOON + 2 - 1e-6, order="asc")) == ["1"]


def test_pages_of_25_at_most_100_newest_first_and_0_is_all(server: Datagrepper) -> None:
    server.add([message(timestamp=NOON + number, msg_id=str(number)) for number in range(130)])
    window: dict[str, Any] = {"start": NOON, "end": NOON + 200}
    answer = ask(server, **window)
    assert (answer["count"], answer["total"], answer["pages"]) == (25, 130, 6)
    assert ids(answer)[0] == "129"
    answer = ask(server, **window, page=2, rows_per_page=100, no_such_parameter=1)
    assert (answer["count"], answer["pages"]) == (30, 2)
    assert answer["arguments"]["rows_per_page"] == 100
    assert ask(server, **window, rows_per_page=0)["count"] == 130
    assert ask(server, **window, page=7)["count"] == 0
    for wrong in ({"rows_per_page": 101}, {"page": 0}, {"order": "up"}, {"start": "yesterday"}):
        response = requests.get(server.url + "raw", params=window | wrong, timeout=10)
        assert response.status_code == 400
        assert response.headers["Content-Type"].startswith("text/html")


def test_within_a_second_no_page_is_like_the_last(server: Datagrepper) -> None:
    server.add(
        [message(timestamp=NOON + number // 70, msg_id=str(number)) for number in range(350)]
    )
    window: dict[str, Any] = {"start": NOON, "end": NOON + 10, "order": "asc", "rows_per_page": 100}
    losses = set()
    for _ in range(10):
        pages = [ask(server, **window, page=page) for page in (1, 2, 3, 4)]
        found = [number for page in pages for number in ids(page)]
        assert len(found) == sum(page["count"] for page in pages) == pages[0]["total"] == 350
        assert [int(number) // 70 for number in found] == sorted(int(n) // 70 for n in found)
        losses.add(350 - len(set(found)))
    assert max(losses) > 0
    server.set(unstable=0)
    pages = [ask(server, **window, page=page) for page in (1, 2, 3, 4)]
    assert len({number for page in pages for number in ids(page)}) == 350


def test_filters(server: Datagrepper) -> None:
    for topic in (
        "org.x.prod.git.a",
        "org.x.prod.git.b",
        "org.x.prod.wiki.a",
        "/t/VirtualTopic.a.b",
    ):
        server.add([message(topic, msg_id=topic)])
    window: dict[str, Any] = {"start": NOON, "end": NOON}
    assert ask(server, **window, category=["git", "wiki"])["total"] == 3
    assert ask(server, **window, category="git", topic="org.x.prod.wiki.a")["total"] == 0
    assert ids(ask(server, **window, category="b")) == ["/t/VirtualTopic.a.b"]
    assert ids(ask(server, **window, topic="org.x.prod.git.b")) == ["org.x.prod.git.b"]


def test_two_shapes(server: Datagrepper) -> None:
    server.add([message(timestamp=NOON + 0.25, msg={"a": [1]}, msg_id="2023-x", i=7)])
    window: dict[str, Any] = {"start": NOON, "end": NOON + 1}
    (row,) = ask(server, **window)["raw_messages"]
    assert row == {
        "id": "2023-x",
        "topic": "org.fedoraproject.prod.git.receive",
        "body": {"a": [1]},
        "headers": {},
        "sent_at": "2023-11-15T12:00:00.250000+00:00",
    }
    (row,) = ask(server, "raw", **window)["raw_messages"]
    shown = {"msg_id": "2023-x", "i": 7, "msg": {"a": [1]}, "timestamp": NOON + 0.25}
    assert shown.items() <= row.items()


def test_the_content_type_echoes_what_was_accepted(server: Datagrepper) -> None:
    for accepted, given in (
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/x-mine", "application/x-mine"),
        ("text/html", "text/html; charset=utf-8"),
    ):
        response = requests.get(server.url + "raw", headers={"Accept": accepted}, timeout=10)
        assert response.headers["Content-Type"] == given


def test_ids_are_invented_and_stay(server: Datagrepper) -> None:
    bare = message(timestamp=NOON, msg_id=None)
    assert server.add([bare, message(msg_id=None, headers={"message-id": "theirs"})]) == 2
    window: dict[str, Any] = {"start": NOON, "end": NOON}
    first, again = sorted(ids(ask(server, **window))), sorted(ids(ask(server, "raw", **window)))
    assert first == again
    assert first[1] == "theirs"
    assert first[0].startswith("2023-")
    # Whoever sends it again gets another one.
    assert server.add([bare]) == 1
    # One id may come twice, at two times.
    twice = [message(timestamp=NOON + more, msg_id="twice") for more in (0, 0.5, 0)]
    assert server.add(twice) == 2


def test_invented_ids_come_from_the_seed(tmp_path: Any) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        store = Store(tmp_path / name, seed)
        store.add([message(timestamp=NOON, msg_id=None)])
        found.append(store.connection().execute("SELECT msg_id FROM message").fetchall())
        store.close()
    assert found[0] == found[1] != found[2]


def test_rows_that_arrive_meanwhile_move_the_pages(server: Datagrepper) -> None:
    server.add([message(timestamp=NOON + number, msg_id=str(number)) for number in range(10)])
    window: dict[str, Any] = {"start": NOON, "end": NOON + 100, "order": "asc", "rows_per_page": 5}
    first = ids(ask(server, **window))
    server.add([message(timestamp=NOON + 0.5, msg_id="late")])
    assert first[-1] in ids(ask(server, **window, page=2))
    window["order"] = "desc"
    first = ids(ask(server, **window))
    server.add([message(timestamp=NOON + 50)])
    assert first[-1] in ids(ask(server, **window, page=2))


def test_it_lags(server: Datagrepper) -> None:
    server.set(lag=1000)
    now = time.time()
    server.add([message(timestamp=now - more, msg_id=str(more)) for more in (1500, 500)])
    assert ids(ask(server)) == ["1500"]
    server.set(lag=0, lag_after_adding=1000)
    assert ids(ask(server)) == []
    server.set(lag_after_adding=0)
    assert ids(ask(server)) == ["500", "1500"]


def test_after_an_outage_rows_come_late_with_their_times(server: Datagrepper) -> None:
    server.set(outage=True)
    server.add([message(timestamp=NOON)])
    response = requests.get(server.url + "v2/search", timeout=10)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "<h1>" in response.text
    server.set(outage=False, recovery=0.5)
    deadline = time.monotonic() + 10
    while not ask(server, start=NOON, end=NOON)["total"]:
        assert time.monotonic() < deadline


def test_an_old_one_has_no_second_route(server: Datagrepper) -> None:
    server.set(is_old=True)
    response = requests.get(server.url + "v2/search", timeout=10)
    assert response.status_code == 404
    assert "<title>" in response.text
    assert ask(server, "raw")["total"] == 0


def test_what_is_too_much_ends_as_502(server: Datagrepper) -> None:
    server.add([message(timestamp=NOON + number) for number in range(20)])
    server.set(most_rows=10)
    window: dict[str, Any] = {"start": NOON, "end": NOON + 20}
    assert requests.get(server.url + "raw", params=window, timeout=10).status_code == 502
    assert ask(server, start=NOON, end=NOON + 9)["total"] == 10


def test_who_does_not_know_the_password_gets_nothing(server: Datagrepper) -> None:
    server.set(credentials="me:secret")
    assert requests.get(server.url + "raw", timeout=10).status_code == 401
    assert requests.get(server.url + "raw", auth=("me", "secret"), timeout=10).status_code == 200


FAULTS = {
    "share_500": (500, requests.JSONDecodeError),
    "share_502": (502, requests.JSONDecodeError),
    "share_429": (429, requests.JSONDecodeError),
    "share_broken": (200, requests.JSONDecodeError),
    "share_truncated": (200, requests.exceptions.ChunkedEncodingError),
    "share_reset": (NO_ANSWER, requests.ConnectionError),
    "share_hang": (NO_ANSWER, requests.ReadTimeout),
}


@pytest.mark.parametrize("fault", [name for name in SETTINGS if name.startswith("share_")])
def test_what_can_go_wrong(server: Datagrepper, fault: str) -> None:
    status, error = FAULTS[fault]
    server.set(**{fault: 1.0})
    with pytest.raises(error):
        requests.get(server.url + "raw", timeout=0.5).json()
    assert [request.status for request in server.requests] == [status]
    server.set(**{fault: 0.0})
    ask(server, "raw")


def test_it_says_what_it_was_asked(server: Datagrepper) -> None:
    ask(server, topic=["a", "b"], page=1)
    (request,) = server.requests
    assert (request.path, request.status, request["page"]) == ("v2/search", 200, "1")
    assert request.all("topic") == ["a", "b"]


def test_it_can_be_stopped_and_started_again(server: Datagrepper) -> None:
    server.add([message(timestamp=NOON)])
    url = server.url
    server.stop()
    with pytest.raises(requests.ConnectionError):
        requests.get(url + "raw", timeout=10)
    server.start()
    assert server.url == url
    assert ask(server, start=NOON, end=NOON)["total"] == 1
