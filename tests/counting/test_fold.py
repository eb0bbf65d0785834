"""The laws of aggregates: how messages are ordered, split and merged changes no result."""

from __future__ import annotations

import random
from datetime import timedelta
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statscache.counting.folding.fold import Folder, Partial, keeps_time
from statscache.errors import InvalidRow
from statscache.message import Message
from statscache.plugins import Aggregate, Key, Value
from statscache.plugins.aggregate import AggregateTable
from statscache.plugins.merges import row_merger
from statscache.testing import check_laws, rows_of
from tests.support.messages import NOON, message


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
    st.text(max_size=2) | st.sampled_from(["a\0", "a\1", "a\ud800", "a\ufffd", "a\U0001f3a9"]),
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


class Colour(StrEnum):
    """As texts are told apart in many a program; its hash is not that of the text."""

    RED = "red"


class Amount(int):
    """A number that looks like one."""


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


@given(messages, st.integers(1, 5))
def test_what_is_written_in_between_does_not_matter(found: list[Message], size: int) -> None:
    """A database holds cleaned texts, with which later ones are compared."""
    for plugin in PLUGINS:
        folder = Folder(plugin)
        batches = [found[i : i + size] for i in range(0, len(found), size)]
        stored: dict[str, dict[Any, Any]] = {table.ident: {} for table in plugin.tables}
        for batch in batches:
            for table, rows_ in folder.tables(_fold(plugin, batch)):
                timed = keeps_time(plugin.values, table)
                combine = row_merger([value.merge for value in plugin.values], timed=timed)
                for row in rows_:
                    key, values = _as_partial(plugin, table, row, timed)
                    known = stored[table.ident].get(key)
                    stored[table.ident][key] = values if known is None else combine(known, values)
        for table, rows_ in folder.tables(_fold(plugin, found)):
            timed = keeps_time(plugin.values, table)
            assert stored[table.ident] == dict(
                _as_partial(plugin, table, row, timed) for row in rows_
            )


def _as_partial(plugin: Aggregate, table: AggregateTable, row: Any, timed: bool) -> tuple[Any, Any]:
    """A row of a table as a partial has it: the time of the newest message first."""
    keys = len(plugin.keys)
    if table.width is None:
        return row[1 : 1 + keys], (row[0], *row[1 + keys :])
    key, values = row[: 1 + keys], row[1 + keys :]
    return key, (values[-1], *values[:-1]) if timed else values


class Odd(Measured):
    name = "odd"
    keys = (Key("number", type=int),)
    values = (Value("total"),)


@pytest.mark.parametrize(
    ("plugin", "row"),
    [
        (Measured({}), ("a", 2**63, 0.0, "", "x", 0)),
        (Measured({}), ("a", 1, float("nan"), "", "x", 0)),
        (Measured({}), ("a", 1, float("-inf"), "", "x", 0)),
        (Counted({}), ("a", 2**63)),
        (Counted({}), ("a", True)),
        (Odd({}), (-(2**63) - 1, 1)),
        (Counted({}), ("a", -(2**63) - 1)),
        (Odd({}), (True, 1)),
        (Odd({}), (1.0, 1)),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_no_database_holds_is_refused_whatever_came_before(
    plugin: Aggregate, row: tuple[Any, ...], is_first: bool
) -> None:
    folder, partial = Folder(plugin), {}
    good = [[*row[:1], 1, 0.0, "", "x", 0]] if type(plugin) is Measured else [["a", 1]]
    if type(plugin) is Odd:
        good = [[1, 1]]
    if not is_first:
        folder.fold(message(msg=good), partial)
    before = dict(partial)
    with pytest.raises(InvalidRow):
        folder.fold(message(msg=[row]), partial)
    assert partial == before


def test_there_is_one_zero() -> None:
    for low, high in ((0.0, -0.0), (-0.0, 0.0)):
        folder, partial = Folder(Measured({})), {}
        for value in (low, high):
            folder.fold(message(msg=[["a", 1, value, "", "x", 0]]), partial)
        for _, rows_ in folder.tables(partial):
            assert "-0.0" not in repr(rows_)


class Coloured(Counted):
    name = "coloured"

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        colour, amount = message.msg
        return [(Colour(colour) if amount % 2 else colour, amount)]


def test_a_subclass_of_str_is_a_text_whichever_comes_first() -> None:
    found = [message(timestamp=NOON, msg=["red", amount]) for amount in (1, 2, 3)]
    check_laws(Coloured({}), found)
    (row,) = rows_of(Coloured({}), found)["coloured-7d"]
    assert (row[1:], type(row[1])) == (("red", 6), str)


def test_what_does_not_fit_is_told_by_its_type() -> None:
    class Wrong(Counted):
        def rows(self, message: Message) -> list[tuple[Any, ...]]:
            return [("red", Amount(7))]

    with pytest.raises(InvalidRow, match=r"not \('red', 7\): total is of type Amount"):
        rows_of(Wrong({}), [message()])
