"""Everything that the author of a plugin needs for its tests.

Example:
    >>> from statscache.testing import check_laws, make_message, rows_of
    >>> plugin = MyPlugin({})
    >>> rows_of(plugin, [make_message("org.fedoraproject.prod.git.receive", msg={...})])
    >>> check_laws(plugin, many_messages)
"""

from __future__ import annotations

import itertools
import random
import time
import uuid
from collections.abc import Sequence
from typing import Any

from statscache.counting.folding.fold import Folder, Partial
from statscache.message import Message
from statscache.plugins.aggregate import Aggregate

__all__ = ["check_laws", "make_message", "rows_of"]


def make_message(
    topic: str, msg: Any = None, timestamp: float | None = None, **more: Any
) -> Message:
    """Returns a message with an id of its own; default time (UNIX seconds): now.

    ``more`` are further keys of the fedmsg dict, such as ``msg_id``.
    """
    raw = {
        "topic": topic,
        "timestamp": time.time() if timestamp is None else timestamp,
        "msg_id": f"{time.gmtime().tm_year}-{uuid.uuid4()}",
        "msg": {} if msg is None else msg,
    }
    return Message.from_fedmsg(raw | more)


def rows_of(plugin: Aggregate, messages: Sequence[Message]) -> dict[str, list[tuple[Any, ...]]]:
    """Ident to the rows that its table would have: time, keys, values, in the order of the keys.

    It gets only messages that it subscribes to; what it raises is raised.
    """
    return _tables(plugin, [messages])


def check_laws(plugin: Aggregate, messages: Sequence[Message], tries: int = 20) -> None:
    """Check that neither the order of ``messages``, nor how they are split, changes a row.

    Checks also that a plugin with ``counts_messages`` counts messages, and that it does not change
    them: all plugins get the same objects.

    Raises:
        AssertionError: it does; the text shows the first table, or message, that differs.
    """
    _check_unchanged(plugin, messages)
    if plugin.counts_messages:
        _check_counts(plugin, messages)
    expected = rows_of(plugin, messages)
    for seed in range(tries):
        generator = random.Random(seed)  # noqa: S311
        shuffled = list(messages)
        generator.shuffle(shuffled)
        size = generator.randint(1, max(1, len(shuffled)))
        batches = [shuffled[first : first + size] for first in range(0, len(shuffled), size)]
        for ident, rows in _tables(plugin, batches).items():
            if rows != expected[ident]:
                raise AssertionError(
                    f"{ident} depends on the order of the messages (or on more than each message "
                    f"alone):\n  {rows}\nis not\n  {expected[ident]}"
                )


def _check_unchanged(plugin: Aggregate, messages: Sequence[Message]) -> None:
    for message in messages:
        before = repr(message.raw)
        if plugin.subscribes(message.topic):
            list(plugin.rows(message))
        if repr(message.raw) != before:
            raise AssertionError(
                f"{plugin.name} changes {message!r}, which other plugins are given as well:\n"
                f"  {message.raw!r}\nwas\n  {before}"
            )


def _check_counts(plugin: Aggregate, messages: Sequence[Message]) -> None:
    numbers = [number for number, key in enumerate(plugin.keys) if key.role is not None]
    for message in messages:
        if not plugin.subscribes(message.topic):
            continue
        about = {
            "user": message.usernames,
            "package": message.packages,
            "category": {message.category},
            "topic": {message.topic},
        }
        roles = [plugin.keys[number].role for number in numbers]
        expected = sorted(itertools.product(*(about[str(role)] for role in roles), (1,)))
        rows = list(plugin.rows(message))
        found = sorted((*(row[number] for number in numbers), row[-1]) for row in rows)
        if found != expected:
            raise AssertionError(
                f"{plugin.name} says that it counts messages, and {message!r} gives {rows}, not "
                f"one row for each of {expected}"
            )


def _tables(
    plugin: Aggregate, batches: Sequence[Sequence[Message]]
) -> dict[str, list[tuple[Any, ...]]]:
    folder = Folder(plugin)
    whole: Partial = {}
    for batch in batches:
        partial: Partial = {}
        for message in batch:
            if folder.subscribes(message.topic):
                folder.fold(message, partial)
        folder.merge(whole, partial)
    return {table.ident: rows for table, rows in folder.tables(whole)}
