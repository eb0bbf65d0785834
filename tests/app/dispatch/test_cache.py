"""What is kept in memory: bounded, the newest uses last, and computed once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statscache.app.dispatch.answer_cache import ENTRY_OVERHEAD, AnswerCache, Entry
from statscache.app.dispatch.single_flight import SingleFlight
from statscache.app.state.memo import Memo


def entry(size: int, validator: object = 1) -> Entry:
    return Entry(validator, 200, (("Content-Type", "text/plain"),), (), b"x" * size)  # type: ignore[arg-type]


def test_what_is_kept_is_found_until_something_else_takes_its_place() -> None:
    cache = AnswerCache(100_000)
    assert cache.get("a") is None
    first, second = entry(10), entry(20)
    cache.put("a", first)
    assert cache.get("a") is first
    cache.put("a", second)
    assert cache.get("a") is second
    assert len(cache) == 1
    assert cache.size == second.size


def test_what_was_not_used_for_longest_goes() -> None:
    cache = AnswerCache(3 * entry(1_000).size)
    for name in "abc":
        cache.put(name, entry(1_000))
    cache.get("a")
    cache.put("d", entry(1_000))
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]


def test_what_is_larger_than_all_room_is_not_kept() -> None:
    cache = AnswerCache(10_000)
    cache.put("small", entry(10))
    cache.put("large", entry(10_001))
    assert cache.get("large") is None
    assert cache.get("small") is not None
    AnswerCache(0).put("a", entry(0))


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3_000)), max_size=60))
def test_the_bytes_are_bounded_and_add_up(puts: list[tuple[str, int]]) -> None:
    most = 8_000
    cache = AnswerCache(most)
    for name, size in puts:
        cache.put(name, entry(size))
        assert cache.size <= most
    kept = [found for name in "abcdefgh" if (found := cache.get(name))]
    assert cache.size == sum(found.size for found in kept)
    assert cache.size == 0 or len(kept) >= 1


def test_many_threads_keep_within_the_bound() -> None:
    most = 50 * (ENTRY_OVERHEAD + 1_100)
    cache = AnswerCache(most)

    def use(worker: int) -> None:
        for n in range(2_000):
            cache.put(f"{(worker * 7 + n) % 200}", entry(n % 1_000))
            cache.get(f"{n % 200}")
            assert cache.size <= most + 8 * entry(1_000).size

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(use, worker) for worker in range(8)]:
            done.result()
    assert cache.size <= most
    assert cache.size == sum(found.size for n in range(200) if (found := cache.get(f"{n}")))


def test_a_memo_forgets_what_was_not_used_for_longest() -> None:
    memo: Memo[str, int] = Memo(2)
    memo.put("a", 1)
    memo.put("b", 2)
    assert memo.get("a") == 1
    memo.put("c", 3)
    assert [memo.get(name) for name in "abc"] == [1, None, 3]
    assert len(memo) == 2


def single_flight(
    patience: float = 60, *, may_share: Callable[[object], bool] = bool
) -> SingleFlight:
    return SingleFlight(patience, may_share)


def together(count: int, run: Callable[[int], object]) -> list[object]:
    """What ``run`` returns, or raises, in so many threads at the same time."""
    barrier = threading.Barrier(count)

    def one(number: int) -> object:
        barrier.wait()
        try:
            return run(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_what_several_want_at_once_is_computed_once() -> None:
    computed: list[int] = []
    all_there = threading.Event()
    shared = single_flight()
    asked = threading.Semaphore(0)

    def compute() -> str:
        computed.append(1)
        # Not before all the others have come, as far as can be told.
        for _ in range(7):
            asked.acquire(timeout=10)
        all_there.wait(0.2)
        return "value"

    def ask(_number: int) -> object:
        asked.release()
        return shared.share("key", compute)

    assert together(8, ask) == ["value"] * 8
    assert len(computed) == 1
    # Nothing is kept: the next one computes again.
    for _ in range(7):
        asked.release()
    shared.share("key", compute)
    assert len(computed) == 2


def test_other_keys_do_not_wait() -> None:
    shared = single_flight()
    assert shared.share("a", lambda: shared.share("b", lambda: "inner")) == "inner"


def test_each_gets_an_exception_of_its_own() -> None:
    shared = single_flight()

    def fail() -> str:
        time.sleep(0.01)
        raise ValueError("no")

    found = together(6, lambda _number: shared.share("key", fail))
    assert all(isinstance(error, ValueError) for error in found)
    assert len({id(error) for error in found}) == 6
    assert shared.share("key", lambda: "value") == "value"


def test_what_may_not_be_shared_is_computed_by_each() -> None:
    shared = single_flight(may_share=lambda value: False)
    made: list[object] = []

    def compute() -> object:
        made.append(object())
        return made[-1]

    found = together(6, lambda _number: shared.share("key", compute))
    assert len(set(map(id, found))) == 6


def test_nobody_waits_for_ever() -> None:
    shared = single_flight(patience=0.05)
    stuck = threading.Event()
    first = threading.Thread(target=lambda: shared.share("key", lambda: stuck.wait(10)))
    first.start()
    assert shared.share("key", lambda: "mine") == "mine"
    stuck.set()
    first.join()


@pytest.mark.parametrize("most", [1, 5])
def test_a_memo_is_bounded(most: int) -> None:
    memo: Memo[int, int] = Memo(most)
    for n in range(1, 20):
        memo.put(n, n)
        assert len(memo) <= most
