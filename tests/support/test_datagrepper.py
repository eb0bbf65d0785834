"""The re-creation of datagrepper behaves as badly as the real one, as far as is known of it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from tests.support.datagrepper import NO_ANSWER, SETTINGS, Datagrepper, Store
from tests.support.messages import NOON, message


def ask(datagrepper: Datagrepper, path: str = "v2/search", **parameters: Any) -> dict[str, Any]:
    response = requests.get(datagrepper.url + path, params=parameters, timeout=10)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [row.get("id", row.get("msg_id")) for row in answer["raw_messages"]]


def test_without_a_time_it_answers_for_the_last_hour(datagrepper: Datagrepper) -> None:
    now = time.time()
    datagrepper.add([message(timestamp=now - 10, msg_id="new"), message(timestamp=now - 7000)])
    assert ids(ask(datagrepper)) == ["new"]
    assert ask(datagrepper, delta=8000)["total"] == 2
    # Not until now, but for an hour.
    assert ask(datagrepper, start=now - 7200)["total"] == 1


def test_a_start_of_zero_switches_the_window_off(datagrepper: Datagrepper) -> None:
    datagrepper.add([message(timestamp=NOON)])
    assert ask(datagrepper, start=0, end=1)["total"] == 1
    assert ask(datagrepper, start=1, end=2)["total"] == 0


def test_a_plus_that_is_not_escaped_moves_a_date(datagrepper: Datagrepper) -> None:
    datagrepper.add([message(timestamp=NOON)])
    date = "2023-11-15T14:00:00%2B02:00"
    for written, total in ((date, 1), (date.replace("%2B", "+"), 0)):
        response = requests.get(f"{datagrepper.url}raw?start={written}&end={NOON + 60}", timeout=10)
        assert response.json()["total"] == total


def test_both_ends_are_inclusive(datagrepper: Datagrepper) -> None:
    datagrepper.add([message(timestamp=NOON + number, msg_id=str(number)) for number in range(4)])
    assert ids(ask(datagrepper, start=NOON + 1, end=NOON + 2, order="asc")) == ["1", "2"]
    assert ids(ask(datagrepper, start=NOON + 1, end=NOON + 2 - 1e-6, order="asc")) == ["1"]


def test_pages_of_25_at_most_100_newest_first_and_0_is_all(datagrepper: Datagrepper) -> None:
    datagrepper.add([message(timestamp=NOON + number, msg_id=str(number)) for number in range(130)])
    window: dict[str, Any] = {"start": NOON, "end": NOON + 200}
    answer = ask(datagrepper, **window)
    assert (answer["count"], answer["total"], answer["pages"]) == (25, 130, 6)
    assert ids(answer)[0] == "129"
    answer = ask(datagrepper, **window, page=2, rows_per_page=100, no_such_parameter=1)
    assert (answer["count"], answer["pages"]) == (30, 2)
    assert answer["arguments"]["rows_per_page"] == 100
    assert ask(datagrepper, **window, rows_per_page=0)["count"] == 130
    assert ask(datagrepper, **window, page=7)["count"] == 0
    for wrong in ({"rows_per_page": 101}, {"page": 0}, {"order": "up"}, {"start": "yesterday"}):
        response = requests.get(datagrepper.url + "raw", params=window | wrong, timeout=10)
        assert response.status_code == 400
        assert response.headers["Content-Type"].startswith("text/html")


def test_within_a_second_no_page_is_like_the_last(datagrepper: Datagrepper) -> None:
    datagrepper.add(
        [message(timestamp=NOON + number // 70, msg_id=str(number)) for number in range(350)]
    )
    window: dict[str, Any] = {"start": NOON, "end": NOON + 10, "order": "asc", "rows_per_page": 100}
    losses = set()
    for _ in range(10):
        pages = [ask(datagrepper, **window, page=page) for page in (1, 2, 3, 4)]
        found = [number for page in pages for number in ids(page)]
        assert len(found) == sum(page["count"] for page in pages) == pages[0]["total"] == 350
        assert [int(number) // 70 for number in found] == sorted(int(n) // 70 for n in found)
        losses.add(350 - len(set(found)))
    assert max(losses) > 0
    datagrepper.set(unstable=0)
    pages = [ask(datagrepper, **window, page=page) for page in (1, 2, 3, 4)]
    assert len({number for page in pages for number in ids(page)}) == 350


def test_filters(datagrepper: Datagrepper) -> None:
    for topic in (
        "org.x.prod.git.a",
        "org.x.prod.git.b",
        "org.x.prod.wiki.a",
        "/t/VirtualTopic.a.b",
    ):
        datagrepper.add([message(topic, msg_id=topic)])
    window: dict[str, Any] = {"start": NOON, "end": NOON}
    assert ask(datagrepper, **window, category=["git", "wiki"])["total"] == 3
    assert ask(datagrepper, **window, category="git", topic="org.x.prod.wiki.a")["total"] == 0
    assert ids(ask(datagrepper, **window, category="b")) == ["/t/VirtualTopic.a.b"]
    assert ids(ask(datagrepper, **window, topic="org.x.prod.git.b")) == ["org.x.prod.git.b"]


def test_two_shapes(datagrepper: Datagrepper) -> None:
    datagrepper.add([message(timestamp=NOON + 0.25, msg={"a": [1]}, msg_id="2023-x", i=7)])
    window: dict[str, Any] = {"start": NOON, "end": NOON + 1}
    (row,) = ask(datagrepper, **window)["raw_messages"]
    assert row == {
        "id": "2023-x",
        "topic": "org.fedoraproject.prod.git.receive",
        "body": {"a": [1]},
        "headers": {},
        "sent_at": "2023-11-15T12:00:00.250000+00:00",
    }
    (row,) = ask(datagrepper, "raw", **window)["raw_messages"]
    shown = {"msg_id": "2023-x", "i": 7, "msg": {"a": [1]}, "timestamp": NOON + 0.25}
    assert shown.items() <= row.items()


def test_the_content_type_echoes_what_was_accepted(datagrepper: Datagrepper) -> None:
    for accepted, given in (
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/x-mine", "application/x-mine"),
        ("text/html", "text/html; charset=utf-8"),
    ):
        response = requests.get(datagrepper.url + "raw", headers={"Accept": accepted}, timeout=10)
        assert response.headers["Content-Type"] == given


def test_ids_are_invented_and_stay(datagrepper: Datagrepper) -> None:
    bare = message(timestamp=NOON, msg_id=None)
    assert datagrepper.add([bare, message(msg_id=None, headers={"message-id": "theirs"})]) == 2
    window: dict[str, Any] = {"start": NOON, "end": NOON}
    first, again = (
        sorted(ids(ask(datagrepper, **window))),
        sorted(ids(ask(datagrepper, "raw", **window))),
    )
    assert first == again
    assert first[1] == "theirs"
    assert first[0].startswith("2023-")
    # The same message sent again gets another one.
    assert datagrepper.add([bare]) == 1
    # One id may come twice, at two times.
    twice = [message(timestamp=NOON + more, msg_id="twice") for more in (0, 0.5, 0)]
    assert datagrepper.add(twice) == 2


def test_invented_ids_come_from_the_seed(tmp_path: Any) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        store = Store(tmp_path / name, seed)
        store.add([message(timestamp=NOON, msg_id=None)])
        found.append(store.connection().execute("SELECT msg_id FROM message").fetchall())
        store.close()
    assert found[0] == found[1] != found[2]


def test_rows_that_arrive_meanwhile_move_the_pages(datagrepper: Datagrepper) -> None:
    datagrepper.add([message(timestamp=NOON + number, msg_id=str(number)) for number in range(10)])
    window: dict[str, Any] = {"start": NOON, "end": NOON + 100, "order": "asc", "rows_per_page": 5}
    first = ids(ask(datagrepper, **window))
    datagrepper.add([message(timestamp=NOON + 0.5, msg_id="late")])
    assert first[-1] in ids(ask(datagrepper, **window, page=2))
    window["order"] = "desc"
    first = ids(ask(datagrepper, **window))
    datagrepper.add([message(timestamp=NOON + 50)])
    assert first[-1] in ids(ask(datagrepper, **window, page=2))


def test_it_lags(datagrepper: Datagrepper) -> None:
    datagrepper.set(lag=1000)
    now = time.time()
    datagrepper.add([message(timestamp=now - more, msg_id=str(more)) for more in (1500, 500)])
    assert ids(ask(datagrepper)) == ["1500"]
    datagrepper.set(lag=0, lag_after_adding=1000)
    assert ids(ask(datagrepper)) == []
    datagrepper.set(lag_after_adding=0)
    assert ids(ask(datagrepper)) == ["500", "1500"]


def test_after_an_outage_rows_come_late_with_their_times(datagrepper: Datagrepper) -> None:
    datagrepper.set(outage=True)
    datagrepper.add([message(timestamp=NOON)])
    response = requests.get(datagrepper.url + "v2/search", timeout=10)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "<h1>" in response.text
    datagrepper.set(outage=False, recovery=0.5)
    deadline = time.monotonic() + 10
    while not ask(datagrepper, start=NOON, end=NOON)["total"]:
        assert time.monotonic() < deadline


def test_an_old_one_has_no_second_route(datagrepper: Datagrepper) -> None:
    datagrepper.set(is_old=True)
    response = requests.get(datagrepper.url + "v2/search", timeout=10)
    assert response.status_code == 404
    assert "<title>" in response.text
    assert ask(datagrepper, "raw")["total"] == 0


def test_what_is_too_much_ends_as_502(datagrepper: Datagrepper) -> None:
    datagrepper.add([message(timestamp=NOON + number) for number in range(20)])
    datagrepper.set(most_rows=10)
    window: dict[str, Any] = {"start": NOON, "end": NOON + 20}
    assert requests.get(datagrepper.url + "raw", params=window, timeout=10).status_code == 502
    assert ask(datagrepper, start=NOON, end=NOON + 9)["total"] == 10


def test_who_does_not_know_the_password_gets_nothing(datagrepper: Datagrepper) -> None:
    datagrepper.set(credentials="me:secret")
    assert requests.get(datagrepper.url + "raw", timeout=10).status_code == 401
    assert (
        requests.get(datagrepper.url + "raw", auth=("me", "secret"), timeout=10).status_code == 200
    )


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
def test_what_can_go_wrong(datagrepper: Datagrepper, fault: str) -> None:
    status, error = FAULTS[fault]
    datagrepper.set(**{fault: 1.0})
    with pytest.raises(error):
        requests.get(datagrepper.url + "raw", timeout=0.5).json()
    assert [request.status for request in datagrepper.requests] == [status]
    datagrepper.set(**{fault: 0.0})
    ask(datagrepper, "raw")


def test_it_says_what_it_was_asked(datagrepper: Datagrepper) -> None:
    ask(datagrepper, topic=["a", "b"], page=1)
    (request,) = datagrepper.requests
    assert (request.path, request.status, request["page"]) == ("v2/search", 200, "1")
    assert request.all("topic") == ["a", "b"]


def test_it_can_be_stopped_and_started_again(datagrepper: Datagrepper) -> None:
    datagrepper.add([message(timestamp=NOON)])
    url = datagrepper.url
    datagrepper.stop()
    with pytest.raises(requests.ConnectionError):
        requests.get(url + "raw", timeout=10)
    datagrepper.start()
    assert datagrepper.url == url
    assert ask(datagrepper, start=NOON, end=NOON)["total"] == 1
