"""What a plugin declares: refused where it breaks the contract, with the reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from statscache.errors import InvalidPlugin
from statscache.plugins import Aggregate, BaseModel, BasePlugin, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed, Source
from statscache.topics import matcher


def load(*classes: Any) -> Installed:
    return discovery.load([(Source("p = m:P", "dist", "1"), lambda: classes)], {})


def aggregate(**attributes: Any) -> type[Aggregate]:
    good = {
        "name": "Good one",
        "summary": "s",
        "description": "d",
        "values": (Value("volume"),),
        "resolutions": (timedelta(days=1),),
        "rows": lambda self, message: [],
    }
    return type("Plugin", (Aggregate,), good | attributes)


def test_a_good_one() -> None:
    installed = load(aggregate(keys=(Key("package", role="package"),)))
    assert installed.broken == []
    assert list(installed.datasets) == ["good-one-1d"]
    dataset = installed.datasets["good-one-1d"]
    assert dataset.model.columns() == ["timestamp", "package", "volume"]
    assert dataset.label == "start"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"name": ""}, "must define 'name'"),
        ({"summary": None}, "must define 'summary'"),
        ({"description": ""}, "must define 'description'"),
        ({"name": "a/b"}, "has a slash"),
        ({"name": "Plugins", "resolutions": (), "keys": (Key("a"),)}, "route of the API"),
        ({"name": "()", "resolutions": (), "keys": (Key("a"),)}, "leaves no ident"),
        ({"values": ()}, "no value columns"),
        ({"keys": (Key("start"),)}, "parameter of the API"),
        ({"keys": (Key("not_me"),)}, "parameter of the API"),
        ({"keys": (Key("Upper"),)}, "lower-case"),
        ({"keys": (Key("volume"),)}, "twice"),
        ({"keys": (Key("timestamp"),)}, "twice"),
        ({"keys": (Key("a", role="boss"),)}, "the roles are"),
        ({"keys": (Key("a", type=float),)}, "str or int"),
        ({"values": (Value("a", "median"),)}, "the rules are"),
        ({"values": (Value("a", "add", float),)}, "only whole numbers"),
        ({"values": (Value("a", "newest", bytes),)}, "int, float or str"),
        ({"resolutions": ()}, "neither keys nor resolutions"),
        ({"counts_messages": True, "values": (Value("a", "largest"),)}, "one column that is added"),
        (
            {"counts_messages": True, "keys": (Key("a", role="user"), Key("b", role="user"))},
            "no role twice",
        ),
        ({"resolutions": (timedelta(milliseconds=1),)}, "whole number of seconds"),
        ({"resolutions": (timedelta(days=1),) * 2}, "a resolution twice"),
        ({"resolutions": (timedelta(seconds=60), timedelta(seconds=90))}, "whole buckets"),
        ({"retention": {timedelta(hours=1): timedelta(days=1)}}, "not one of its resolutions"),
        ({"topics": ()}, "topics must be"),
        ({"contract": 99}, "version 99"),
        ({"topics": "a.b.#"}, "topics = 'a.b.#', which is no tuple: write topics = (...,)"),
        ({"topics": (7,)}, "declares 7 among its topics: they must be texts"),
        ({"values": Value("a")}, "which is no tuple: write values = (...,), with a comma"),
        ({"values": ("a",)}, "declares 'a' among its values: they must be Values"),
        ({"keys": Key("a")}, "which is no tuple: write keys = (...,)"),
        ({"keys": "a"}, "declares keys = 'a': it must be a tuple of Keys"),
        ({"keys": (Key,)}, "they must be Keys"),
        ({"resolutions": timedelta(days=1)}, "which is no tuple: write resolutions = (...,)"),
        ({"resolutions": (60,)}, "declares 60 among its resolutions: they must be timedeltas"),
        ({"retention": {timedelta(days=1): 7}}, "declares 7 in its retention"),
        ({"retention": timedelta(days=7)}, "it must be a dict of timedeltas"),
        ({"backlog_delta": 7}, "backlog_delta = 7: it must be a timedelta"),
        ({"row": lambda self, message: []}, None),
        ({"topic": ("a.b.#",)}, "has 'topic', which nothing reads, and no 'topics'"),
        ({"_topic": ("a.b.#",)}, None),
        ({"key": (Key("a"),)}, "write 'keys', or _key where it is a name of your own"),
        ({"retentions": {}}, "and no 'retention'"),
        ({"counts_message": True}, "and no 'counts_messages'"),
        ({"rows": [("a", 1)]}, "declares rows = [('a', 1)]: it must be a method"),
        ({"rows": lambda message: []}, "do not take one message: write def rows(self, message)"),
        ({"rows": lambda self, message, more: []}, "do not take one message"),
        ({"rows": staticmethod(lambda message: [])}, None),
        ({"rows": classmethod(lambda cls, message, more=None: [])}, None),
        ({"rows": lambda *arguments: []}, None),
    ],
)
def test_what_breaks_the_contract(attributes: dict[str, Any], reason: str | None) -> None:
    installed = load(aggregate(**attributes))
    if reason is None:
        assert installed.broken == []
        return
    assert installed.datasets == {}
    assert reason in installed.broken[0].error


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ({"row": lambda self, message: []}, "has 'row', which nothing reads, and no 'rows'"),
        ({"process": lambda self, message: []}, "has no rows(self, message)"),
    ],
)
def test_a_function_with_another_name(functions: dict[str, Any], reason: str) -> None:
    plugin = aggregate(**functions)
    del plugin.rows
    (broken,) = load(plugin).broken
    assert reason in broken.error


async def _awaited(self: Any, message: Any) -> list[Any]:
    return []


def test_rows_that_nobody_awaits() -> None:
    (broken,) = load(aggregate(rows=_awaited)).broken
    assert "async" in broken.error


COMPLETE = {
    "topics": ("#",),
    "keys": (Key("a"),),
    "retention": {},
    "backlog_delta": None,
    "counts_messages": False,
    "version": 1,
    "layout": {},
}


@pytest.mark.parametrize("is_inherited", [True, False])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resolution", "resolutions"),
        ("key", "keys"),
        ("topic", "topics"),
        ("value", "values"),
        ("row", "rows"),
        ("summery", "summary"),
        ("discription", "description"),
        ("versions", "version"),
        ("verison", "version"),
        ("retentions", "retention"),
        ("backlog_dleta", "backlog_delta"),
        ("count_messages", "counts_messages"),
        ("layouts", "layout"),
    ],
)
def test_a_slip_beside_the_right_name(name: str, meant: str, is_inherited: bool) -> None:
    slip = {name: (timedelta(days=1),)}
    if is_inherited:
        plugin = type("Child", (aggregate(**COMPLETE),), {"name": "Other"} | slip)
    else:
        plugin = aggregate(**COMPLETE, **slip)
    (broken,) = load(plugin).broken
    assert f"has {name!r}, which nothing reads: write {meant!r}, or _{name} where" in broken.error


SENSIBLE = """
    arrows bots buckets column columns contact conversion delta descriptor domain domains events
    interval keypad keyset kinds label layers limit mentions messages model names namespace
    nicknames owner packages pattern patterns payout people prefix projects reason rejections
    relation rename resolved retries roles rooms routes rowset rules scale series solutions states
    status subjects tables teams title titles topic_prefix topical totals units users valid
    value_of versioning vision weights width windows words
    """


@pytest.mark.parametrize(
    "name",
    SENSIBLE.split(),
)
def test_sensible_names_are_the_authors_own(name: str) -> None:
    assert load(aggregate(**COMPLETE, **{name: ("a",)})).broken == []


@pytest.mark.parametrize(
    "method",
    [
        lambda self, message: [],
        staticmethod(lambda message: []),
        classmethod(lambda cls: []),
        property(lambda self: []),
    ],
)
def test_methods_beside_the_right_name_are_the_authors_own(method: Any) -> None:
    names = ("key", "row", "topic", "value", "resolution")
    assert load(aggregate(**COMPLETE, **dict.fromkeys(names, method))).broken == []


def test_two_plugins_with_one_ident() -> None:
    installed = load(aggregate(), aggregate())
    assert list(installed.datasets) == ["good-one-1d"]
    assert "is taken by" in installed.broken[0].error


def test_two_idents_with_one_table() -> None:
    installed = load(aggregate(), aggregate(name="good_one"))
    assert "the table 'good_one_1d' is taken" in installed.broken[0].error


def test_names_longer_than_postgresql_allows() -> None:
    installed = load(aggregate(name="x" * 100), aggregate(name="x" * 101))
    names = {dataset.model.__table__.name for dataset in installed.datasets.values()}
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


def test_a_dot_in_an_ident_is_fine() -> None:
    assert (
        "contributions-to-pagure.io-1d"
        in load(aggregate(name="Contributions to (pagure.io)")).datasets
    )


def test_classic_plugins_are_checked_too() -> None:
    class Model(BaseModel):
        __tablename__ = "declarations_classic"

    class Nameless(BasePlugin):
        model = Model

    class Modelless(BasePlugin):
        name, summary, description = "n", "s", "d"

    class Good(Modelless):
        name = """A "name", (with) 'all' the *odd* & characters?"""
        model = Model
        interval = timedelta(days=1, hours=1, minutes=1, seconds=1)

    installed = load(Nameless, Modelless, Good, object, 7)
    assert list(installed.datasets) == ["a-name-with-all-the-odd--characters-1d1h1m1s"]
    assert installed.datasets.popitem()[1].label == "end"
    errors = [broken.error for broken in installed.broken]
    assert "must define 'name'" in errors[0]
    assert "has no model" in errors[1]
    assert all("is neither a subclass" in error for error in errors[2:])


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("#", "a", True),
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "ab", False),
        ("a.#.z", "a.z", True),
        ("a.#.z", "a.b.c.z", True),
        ("a.#.z", "a.b.c", False),
        ("#.z", "z", True),
        ("#.z", "a.z", True),
        ("#.z", "az", False),
        ("a+", "aa", False),
    ],
)
def test_topic_patterns(pattern: str, topic: str, matches: bool) -> None:
    assert matcher([pattern])(topic) is matches


def test_any_of_several_patterns() -> None:
    match = matcher(["a.b", "c.*"])
    assert match("a.b")
    assert match("c.x")
    assert not match("a.x")
    with pytest.raises(InvalidPlugin):
        matcher(["a", ""])
