"""A rule that is added in one place works wherever rows are merged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, get_args

import pytest
from sqlalchemy import BigInteger, cast, func, select

from statscache.app.charts.aggregation import Aggregation
from statscache.app.charts.calendar import Piece
from statscache.app.charts.sources import Measure, Part, SourceTable
from statscache.counting.folding.fold import Folder, Partial
from statscache.database.connection import Database
from statscache.database.schema import create_missing
from statscache.database.upsert import aggregate_upsert
from statscache.message import Message
from statscache.plugins import Aggregate, Key, Row, Value
from statscache.plugins.installed.discovery import Dataset, Source
from statscache.plugins.merges import RULES, Largest, Merge, merged_in_order
from statscache.testing import check_laws, make_message


class AllBits(Largest):
    """The bits that are set in one of the values."""

    types = (int,)
    refusal = "only whole numbers have bits"

    def merge(self, one: Any, other: Any) -> Any:
        return one | other

    def merge_stored(self, name: str, stored: Any, new: Any, is_newer: Any) -> Any:
        return stored[name].op("|")(new[name])

    def merge_rows(self, column: Any) -> Any:
        # SQLite has no aggregate for it; these rows have one bit each.
        return cast(func.sum(column.distinct()), BigInteger)


class Flags(Aggregate):
    name = "flags"
    summary = "The flags of a topic"
    description = "One bit for each second of a minute in which there was a message."
    keys = (Key("topic", role="topic"),)
    values = (Value("flags", "bits"),)  # type: ignore[arg-type]
    resolutions = (timedelta(minutes=1), timedelta(hours=1))

    def rows(self, message: Message) -> Iterable[Row]:
        return [(message.topic, 1 << int(message.timestamp) % 60)]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Flags:
    monkeypatch.setitem(RULES, "bits", AllBits())  # type: ignore[arg-type]
    return Flags({})


MESSAGES = [make_message("org.a.b.c.d", {"n": n}, timestamp=1000 + n) for n in (3, 1, 70, 3, 8)]


def test_what_a_plugin_may_write_are_the_rules() -> None:
    assert get_args(Merge) == tuple(RULES)


def test_a_new_rule_is_folded_and_rolled_up(plugin: Flags) -> None:
    check_laws(plugin, MESSAGES)
    partial: Partial = {}
    folder = Folder(plugin)
    for message in MESSAGES:
        folder.fold(message, partial)
    minutes, hours = (rows for _, rows in folder.tables(partial))
    assert len(minutes) == 2
    bits = sum({1 << (1000 + n) % 60 for n in (3, 1, 70, 8)})
    assert [row[-1] for row in hours] == [bits]


def test_a_new_rule_is_upserted_and_read(plugin: Flags, database_uri: str) -> None:
    database = Database(database_uri)
    declaration = plugin.tables[0]
    upsert = aggregate_upsert(plugin, declaration.table, database.backend, is_latest=False)
    found = Dataset(
        *(declaration.ident, plugin, declaration.model, declaration.schedule, "start"),
        *(Source("flags = flags", "flags", "1"), declaration),
    )
    no_coverage: Any = None
    of_minutes = SourceTable(found, 60, 0, 0, no_coverage, False)
    with database.begin() as connection:
        create_missing(connection, [declaration.table])
        for moment, value in ((0, 1), (0, 4), (0, 4), (60, 8)):
            upsert.write(connection, [(moment, "a", value)])
        values = connection.scalars(select(declaration.table.c.flags))
        assert sorted(values) == [5, 8]
        aggregation = Aggregation(connection, (), [Measure("flags", "bits")])
        # Two pieces of one bucket, of which each is merged in SQL, and then both in Python.
        pieces = [Piece(0, 60, 0), Piece(60, 120, 0)]
        assert aggregation.in_buckets([Part(of_minutes, pieces)]) == {0: (13,)}
        whole = [Part(of_minutes, [Piece(0, 120, 0)])]
        assert aggregation.ranking(whole, "topic", 1)[0] == [("a", 13)]
    database.dispose()


def test_a_new_rule_merges_buckets_in_order(plugin: Flags) -> None:
    assert merged_in_order("bits", [None, 1, None, 4, 5]) == 5


def test_values_that_a_rule_cannot_merge_are_refused(plugin: Flags) -> None:
    class Texts(Flags):
        values = (Value("flags", "bits", str),)  # type: ignore[arg-type]

    with pytest.raises(Exception, match="only whole numbers have bits"):
        Texts({})
