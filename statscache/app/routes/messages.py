"""From a number to the messages behind it: the query of the archive, ``/api/<ident>/messages``.

How datagrepper's queries work:

- The values of one parameter are alternatives; several parameters must all be met; ``not_`` leaves
  messages out. Users and packages are those of its own index.
- Topics are whole, without patterns. A category is the fourth token of a topic; where there is
  none, ``Unclassified``.
- ``start`` and ``end`` are both inclusive, in UNIX seconds; ``start=0`` switches the window off.

So a query cannot express everything that a number depends on. The answer names what it cannot, and
how to filter the messages that it finds: these may be too many, but never too few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from statscache.app.charts import ranges
from statscache.app.dispatch import known_names
from statscache.app.dispatch.route import Call, Route, no_people
from statscache.app.http.answer import Answer, Lifetime
from statscache.app.http.problems import Problem
from statscache.app.state import coverage
from statscache.app.state.coverage import Coverage
from statscache.app.state.filters import Filters
from statscache.people import people_of
from statscache.plugins.aggregate import Aggregate
from statscache.plugins.columns import Key
from statscache.plugins.installed.discovery import Dataset
from statscache.plugins.models import plain

LONGEST_KEY = 300
"""Characters of a key; longer ones are kept shortened, and the archive would not know them."""

MOST_TOPICS = 100
"""Topics that are named; more are told by their categories."""

ROWS_PER_PAGE = 100
"""The most that the archive returns at a time."""

INCLUSIVE = 1e-6
"""Seconds between the end of what is asked for and the moment before which it ends."""

_EARLIEST = 1
_UNCLASSIFIED = "Unclassified"
_CATEGORY = 3
_SEVERAL = ("user", "package")
"""The roles of which a message may have several values, or none."""

_BY_INDEX = {
    "user": "users are found by the archive's own index of whom a message is about",
    "package": "packages are found by the archive's own index of what a message is about",
}


@dataclass
class Query:
    """The query of the archive, and what it cannot express.

    Attributes:
        pairs: parameters, besides those of time and pages.
        narrow: what the client must leave out of what it finds.
        assumes: what must be so for that to be right.
        is_empty: there can be no message at all.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    narrow: list[dict[str, Any]] = field(default_factory=list)
    assumes: list[str] = field(default_factory=list)
    is_empty: bool = False

    def ask(self, name: str, values: Iterable[str]) -> None:
        """Ask for messages with any of ``values``, or, with a ``not_`` name, with none."""
        self.pairs += [(name, value) for value in values]

    def leave_to_client(self, why: str, **what: Any) -> None:
        """Leave something to the client."""
        self.narrow.append({**what, "why": why})


@dataclass(frozen=True)
class Condition:
    """The filters of one column, made one.

    Attributes:
        wanted: any of these; None: anything.
        unwanted: none of these.
    """

    wanted: tuple[Any, ...] | None = None
    unwanted: tuple[Any, ...] = ()

    def allows(self, value: Any) -> bool:
        """Whether a value meets it."""
        return (self.wanted is None or value in self.wanted) and value not in self.unwanted

    @property
    def says_nothing(self) -> bool:
        """Whether everything meets it."""
        return self.wanted is None and not self.unwanted


def query_of(dataset: Dataset, filters: Filters) -> Query:
    """What the archive is to be asked for the messages behind rows that pass ``filters``."""
    found = Query()
    conditions = _conditions(dataset, filters)
    if any(condition.wanted == () for condition in conditions.values()):
        found.is_empty = True
        return found
    plugin = dataset.aggregate
    if plugin is None:
        found.leave_to_client(
            "a classic plugin does not say which messages it counts: keep those that it would",
            plugin=dataset.ident,
        )
        for column, condition in conditions.items():
            _leave_column(found, column, condition, "what is in the column is the plugin's own")
        return found
    if not plugin.counts_messages:
        found.leave_to_client(
            "the plugin does not count each message under its topics once: keep those that it "
            "would, see its description",
            plugin=dataset.ident,
        )
    by_role: dict[str, Condition] = {}
    keys: dict[str, Key] = {}
    for key in plugin.keys:
        condition = conditions.get(key.name, Condition())
        is_asked = key.role is not None and not by_role.get(key.role, Condition()).says_nothing
        if key.role is not None and _is_known(condition) and not is_asked:
            by_role[key.role], keys[key.role] = condition, key
        elif not condition.says_nothing:
            _leave_column(found, key.name, condition, _why_not(key, condition))
    _ask_for_topics(found, plugin, by_role)
    for role in _SEVERAL:
        if role in keys:
            never_counted = people_of(plugin).bots if role == "user" else ()
            _ask_for_several(found, keys[role], by_role[role], never_counted)
    return found


def _conditions(dataset: Dataset, filters: Filters) -> dict[str, Condition]:
    """By column, without accounts that no row is served with."""
    people = people_of(dataset.plugin)
    found: dict[str, Condition] = {}
    for filter_ in filters:
        known = found.get(filter_.column, Condition())
        values = tuple(
            value for value in filter_.values if not people.is_bot(dataset, filter_.column, value)
        )
        found[filter_.column] = (
            Condition(known.wanted, values)
            if filter_.negated
            else Condition(values, known.unwanted)
        )
    return {
        column: condition
        if condition.wanted is None
        else Condition(tuple(filter(condition.allows, condition.wanted)))
        for column, condition in found.items()
    }


def _is_known(condition: Condition) -> bool:
    """Whether the archive has these values as they are here."""
    values = (*(condition.wanted or ()), *condition.unwanted)
    return all(
        isinstance(value, str) and len(value) < LONGEST_KEY and "\ufffd" not in value
        for value in values
    )


def _why_not(key: Key, condition: Condition) -> str:
    if key.role is None:
        return "the archive has no such column"
    if not _is_known(condition):
        return "a value is shortened or replaced here, and the archive has the whole of it"
    return f"the archive is asked for another {key.role} already"


def _leave_column(found: Query, column: str, condition: Condition, why: str) -> None:
    if condition.wanted is not None:
        found.leave_to_client(why, column=column, keep=list(condition.wanted))
    else:
        found.leave_to_client(why, column=column, leave_out=list(condition.unwanted))


# Topics and categories, of which each message has one.


def _ask_for_topics(found: Query, plugin: Aggregate, by_role: Mapping[str, Condition]) -> None:
    category = by_role.get("category", Condition())
    topic = by_role.get("topic", Condition())
    topics = _topics(plugin, topic)
    if topics is not None:
        topics = [one for one in topics if topic.allows(one) and category.allows(_category(one))]
        found.is_empty = not topics
        if len(topics) <= MOST_TOPICS:
            found.ask("topic", topics)
            return
        found.leave_to_client(
            f"more than {MOST_TOPICS} topics are told by their categories", topics=topics
        )
        found.ask("category", _archived(sorted({_category(one) for one in topics})))
        return
    patterns = plugin.topics
    if not all(map(_is_whole_category, patterns)) and "#" not in patterns:
        found.leave_to_client(
            "the archive does not know patterns of topics (* is one token, # any number)",
            topics=list(patterns),
        )
    _ask_for_categories(found, _categories(patterns), category)
    if topic.unwanted:
        found.ask("not_topic", topic.unwanted)


def _topics(plugin: Aggregate, topic: Condition) -> list[str] | None:
    """The topics that come into question; None where they cannot be listed."""
    if topic.wanted is not None:
        return [one for one in topic.wanted if plugin.subscribes(one)]
    if any(_is_pattern(pattern) for pattern in plugin.topics):
        return None
    return sorted(set(plugin.topics))


def _ask_for_categories(
    found: Query, subscribed: Sequence[str] | None, category: Condition
) -> None:
    """Ask for those that the plugin subscribes to, None being all, and that are wanted."""
    if subscribed is None and category.wanted is None:
        if category.unwanted:
            found.ask("not_category", _archived(category.unwanted))
            _assume_tokens(found)
        return
    candidates = category.wanted if subscribed is None else subscribed
    assert candidates is not None
    categories = [one for one in candidates if category.allows(one)]
    found.is_empty = found.is_empty or not categories
    found.ask("category", _archived(categories))
    _assume_tokens(found)


def _assume_tokens(found: Query) -> None:
    found.assumes.append("the category is the fourth token of a topic that has no VirtualTopic")


def _archived(categories: Iterable[str]) -> list[str]:
    return [category or _UNCLASSIFIED for category in categories]


def _categories(patterns: Sequence[str]) -> list[str] | None:
    """The categories of all topics that match; None where they cannot be listed."""
    found = set()
    for pattern in patterns:
        tokens = pattern.split(".")
        if "#" in tokens[:_CATEGORY] or len(tokens) <= _CATEGORY or tokens[_CATEGORY] in ("*", "#"):
            return None
        found.add(tokens[_CATEGORY])
    return sorted(found)


def _is_whole_category(pattern: str) -> bool:
    """Whether all the topics of one category match."""
    tokens = pattern.split(".")
    return (
        len(tokens) > _CATEGORY
        and tokens[:_CATEGORY] == ["*"] * _CATEGORY
        and tokens[_CATEGORY] not in ("*", "#")
        and tokens[_CATEGORY + 1 :] == ["#"]
    )


def _is_pattern(pattern: str) -> bool:
    return bool({"*", "#"} & set(pattern.split(".")))


def _category(topic: str) -> str:
    tokens = topic.split(".", _CATEGORY + 1)
    return tokens[_CATEGORY] if len(tokens) > _CATEGORY else ""


# Users and packages, of which a message has any number.


def _ask_for_several(
    found: Query, key: Key, condition: Condition, never_counted: Iterable[str]
) -> None:
    """Ask for some; without those who are ``never_counted``."""
    role = str(key.role)
    if condition.wanted is None:
        found.leave_to_client(
            f"a message counts once for each {role} that it is about, for none if there is none",
            column=key.name,
            leave_out=[*condition.unwanted, *never_counted],
        )
        return
    found.ask(role, condition.wanted)
    found.assumes.append(_BY_INDEX[role])
    if len(condition.wanted) > 1:
        found.leave_to_client(
            f"a message that is about several of them counts once for each {role}",
            column=key.name,
            keep=list(condition.wanted),
        )


# The answer.


def _answer(call: Call) -> Answer:
    endpoint = call.service.settings.datagrepper_endpoint
    if endpoint is None:
        raise Problem(
            404,
            "there is no archive to lead to: the operator of this server has not set "
            "statscache.datagrepper.endpoint",
        )
    found = query_of(call.dataset, known_names.known(call, known_names.columns(call.dataset)))
    covered = call.coverage_at(call.snapshot)
    start, stop = _window(call, covered)
    is_empty = found.is_empty or start >= stop
    pairs = [
        ("start", _text(max(start, _EARLIEST))),
        ("end", _text(stop - INCLUSIVE)),
        *found.pairs,
        ("order", "asc"),
        ("rows_per_page", str(ROWS_PER_PAGE)),
        ("page", "1"),
    ]
    archive = _public(endpoint)
    texts = list(dict.fromkeys(entry["why"] for entry in found.narrow))
    is_reconciled = covered.reconciled_until is not None and stop <= covered.reconciled_until
    return Answer(
        {
            "ident": call.dataset.ident,
            "start": plain(start),
            "stop": plain(stop),
            "archive": archive,
            "search": None if is_empty else f"{archive}v2/search?{urlencode(pairs)}",
            "raw": None if is_empty else f"{archive}raw?{urlencode(pairs)}",
            "exact": is_empty or not found.narrow,
            "why": "no message can be behind it" if is_empty else "; ".join(texts) or None,
            "narrow": [] if is_empty else found.narrow,
            "assumes": [] if is_empty else found.assumes,
            "coverage": covered.to_json(),
        },
        lifetime=Lifetime.RECONCILED if is_reconciled else Lifetime.OPEN,
    )


def _window(call: Call, covered: Coverage) -> tuple[float, float]:
    """The time of the messages, which is that of the buckets, not of their labels."""
    start, stop = call.values["start"], call.values["stop"]
    return (covered.since or 0.0) if start is None else start, stop


def _text(moment: float) -> str:
    return str(plain(moment)) if float(moment).is_integer() else f"{moment:.6f}"


def _public(endpoint: str) -> str:
    """The address without what is not for all_people."""
    parts = urlsplit(endpoint)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/") + "/", "", ""))


_ADDRESS = {"type": ["string", "null"], "format": "uri"}
_VALUES = {"type": "array", "items": {"type": ["string", "integer"]}}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "ident": {"type": "string"},
        "start": {"type": "number", "description": "Of the messages; UNIX seconds, inclusive."},
        "stop": {"type": "number", "description": "Of the messages; UNIX seconds, exclusive."},
        "archive": {"type": "string", "format": "uri"},
        "search": _ADDRESS
        | {"description": "The query in its newer form; null where there can be no message."},
        "raw": _ADDRESS | {"description": "The query in its older form."},
        "exact": {
            "type": "boolean",
            "description": "Whether it finds precisely the messages that were counted; otherwise "
            "it finds more, see narrow.",
        },
        "why": {"type": ["string", "null"], "description": "Why it is not exact, in words."},
        "narrow": {
            "type": "array",
            "description": "What the archive cannot be asked, and is left to the client.",
            "items": {
                "type": "object",
                "properties": {
                    "why": {"type": "string"},
                    "column": {"type": "string", "description": "Of the rows."},
                    "keep": _VALUES,
                    "leave_out": _VALUES,
                    "topics": {
                        "type": "array",
                        "description": "Keep messages whose topic matches any of these.",
                        "items": {"type": "string"},
                    },
                    "plugin": {"type": "string", "description": "Keep what it would count."},
                },
                "required": ["why"],
                "additionalProperties": False,
            },
        },
        "assumes": {
            "type": "array",
            "description": "What must be so for the above to be right.",
            "items": {"type": "string"},
        },
        "coverage": coverage.SCHEMA,
    },
    "required": [
        "ident",
        "start",
        "stop",
        "archive",
        "search",
        "raw",
        "exact",
        "why",
        "narrow",
        "assumes",
        "coverage",
    ],
    "additionalProperties": False,
}

ROUTE = Route(
    rule="/api/<ident>/messages",
    name="messages",
    summary="The messages behind a number: the query of the archive that finds them.",
    description="For the filters and the time of a number: ``start`` and ``stop`` are those of the "
    "buckets that it is made of. The archive cannot be asked everything: where ``exact`` is false, "
    "its query finds more messages than were counted, and ``narrow`` says which to leave out.",
    answer=_answer,
    lists=no_people,
    is_offered=lambda settings: settings.datagrepper_endpoint is not None,
    parameters=(ranges.START, ranges.STOP, ranges.TZ),
    filterable=True,
    state=Call.coverage_at,
    clock=True,
    schema=SCHEMA,
    example="?start=-7d",
)
