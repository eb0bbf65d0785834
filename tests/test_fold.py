"""The laws of aggregates: how messages are ordered, split and merged changes no result."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from statscache.fold import Folder, Partial
from statscache.message import Message
from statscache.plugins import Aggregate, Key, Value
from tests.conftest import NOON, message


class Measured(Aggregate):
    name = "measured"
    summary = "every merge rule"
    description = "For tests."
    keys = (Key("key"),)
    values = (
        Value("total"),
        Value("low", "smallest", float),
        Value("high", "largest", str),
        Value("state", "newest", str),
        Value("detail", "newest", int),
    )
    resolutions = (timedelta(minutes=1), timedelta(hours=1), timedelta(days=7))

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in message.msg]


class LatestMeasured(Measured):
    name = "latest measured"
    resolutions = ()


class Counted(Measured):
    name = "counted"
    values = (Value("total"),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(row[0], row[1]) for row in message.msg]


PLUGINS = (Measured({}), LatestMeasured({}), Counted({}))

rows = st.tuples(
    st.sampled_from(["a", "b", "ä\0", "ä\ufffd"]),
    st.integers(-5, 5),
    st.floats(-1, 1),
    st.text(max_size=2),
    st.sampled_from(["x", "y"]),
    st.integers(0, 2),
)
messages = st.lists(
    st.builds(
        lambda body, at: message(timestamp=NOON + at, msg=[list(row) for row in body]),
        st.lists(rows, max_size=3),
        st.sampled_from([0, 0.5, 1, 59, 61, 4000, 700_000]),
    ),
    max_size=12,
)


def tables(plugin: Aggregate, *batches: list[Message]) -> dict[str, list[Any]]:
    folder = Folder(plugin)
    whole: Partial = {}
    for batch in batches:
        partial: Partial = {}
        for item in batch:
            folder.fold(item, partial)
        folder.merge(whole, partial)
    return {table.ident: found for table, found in folder.tables(whole)}


@given(messages, st.randoms(use_true_random=False), st.integers(1, 5))
def test_permuted_and_split_messages_give_the_same_tables(
    found: list[Message], generator: random.Random, size: int
) -> None:
    shuffled = list(found)
    generator.shuffle(shuffled)
    batches = [shuffled[i : i + size] for i in range(0, len(shuffled), size)]
    for plugin in PLUGINS:
        assert tables(plugin, *batches) == tables(plugin, found)


@given(messages)
def test_coarse_buckets_equal_a_naive_recount(found: list[Message]) -> None:
    plugin = Counted({})
    for table, rows_ in Folder(plugin).tables(_fold(plugin, found)):
        expected: dict[tuple[int, str], int] = {}
        for item in found:
            width = table.width
            assert width is not None
            start = int((item.timestamp - table.offset) // width * width) + table.offset
            for row in item.msg:
                key = (start, row[0].replace("\0", "\ufffd"))
                expected[key] = expected.get(key, 0) + row[1]
        assert rows_ == [(*key, total) for key, total in sorted(expected.items())]


def _fold(plugin: Aggregate, found: list[Message]) -> Partial:
    folder, partial = Folder(plugin), {}
    for item in found:
        folder.fold(item, partial)
    return partial


def test_a_message_is_folded_as_a_whole_or_not_at_all() -> None:
    folder, partial = Folder(Counted({})), {}
    try:
        folder.fold(message(msg=[["a", 1], ["a", "one"]]), partial)
    except Exception:
        assert partial == {}
    else:
        raise AssertionError
