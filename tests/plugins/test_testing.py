"""The tools for the authors of plugins, on the bundled plugins and on one that breaks the law."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta
from typing import Any

import pytest

from statscache.message import Message
from statscache.plugins import Aggregate, Key, Value
from statscache.plugins.installed import discovery
from statscache.testing import check_laws, make_message, rows_of

BUNDLED = discovery.discover({}).aggregates


@pytest.mark.parametrize("plugin", BUNDLED, ids=lambda plugin: type(plugin).__name__)
def test_bundled_plugins_keep_the_laws(plugin: Aggregate, corpus: list[Message]) -> None:
    check_laws(plugin, corpus)
    assert any(rows_of(plugin, corpus).values())


class Lawless(Aggregate):
    name, summary, description = "lawless", "counts calls", "For tests."
    values = (Value("calls"),)
    resolutions = (timedelta(days=1),)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.calls = itertools.count()

    def rows(self, message: Message) -> list[tuple[int]]:
        return [(next(self.calls),)]


def test_a_plugin_that_breaks_them_is_found() -> None:
    with pytest.raises(AssertionError, match="lawless-1d depends on the order"):
        check_laws(Lawless({}), [make_message("a.b.c.d", timestamp=1.0) for _ in range(5)])


def test_messages_are_of_now_unless_a_time_is_given() -> None:
    assert abs(make_message("a.b.c.d").timestamp - time.time()) < 5
    found = make_message("a.b.c.d", {"x": 1}, 5.0, msg_id="own")
    assert (found.msg, found.timestamp, found.id) == ({"x": 1}, 5.0, "own")


class Miscounting(Aggregate):
    name, summary, description = "miscounting", "forgets bodhi", "For tests."
    keys = (Key("category", role="category"),)
    values = (Value("volume"),)
    resolutions = (timedelta(days=1),)
    counts_messages = True

    def rows(self, message: Message) -> list[tuple[str, int]]:
        return [] if message.category == "bodhi" else [(message.category, 1)]


def test_a_plugin_that_says_that_it_counts_messages_and_does_not_is_found() -> None:
    check_laws(Miscounting({}), [make_message("a.b.c.git", timestamp=1.0)])
    with pytest.raises(AssertionError, match="says that it counts messages"):
        check_laws(Miscounting({}), [make_message("a.b.c.bodhi", timestamp=1.0)])


class Writing(Aggregate):
    name, summary, description = "writing", "changes messages", "For tests."
    keys = (Key("user"),)
    values = (Value("volume"),)
    resolutions = (timedelta(days=1),)

    def rows(self, message: Message) -> list[tuple[str, int]]:
        message.msg["user"] = message.msg["user"].lower()
        return [(message.msg["user"], 1)]


def test_a_plugin_that_changes_messages_is_found() -> None:
    check_laws(Writing({}), [make_message("a.b.c.d", {"user": "ralph"})])
    with pytest.raises(AssertionError, match="writing changes <Message"):
        check_laws(Writing({}), [make_message("a.b.c.d", {"user": "Ralph"})])
