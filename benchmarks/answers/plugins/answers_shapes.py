"""Plugins of all the shapes that the bundled ones do not have."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Iterable
from typing import Any, ClassVar

import sqlalchemy as sa

from statscache.plugins import (
    Aggregate,
    BaseModel,
    BasePlugin,
    CategorizedLogModel,
    CategorizedModel,
    ConstrainedCategorizedLogModel,
    Key,
    Message,
    Row,
    ScalarModel,
    Value,
)

QUARTER = datetime.timedelta(minutes=15)
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
WEEK = datetime.timedelta(weeks=1)
THINGS = ("org.fedoraproject.prod.answers.thing",)


def things(message: Any) -> list[tuple[str, int]]:
    return [(str(thing), int(size)) for thing, size in message["things"]]


class Sizes(Aggregate):
    name = "sizes, of things"
    summary = "how often each size of each thing is seen"
    description = "Two keys, of both types; a layout."
    topics = THINGS
    keys = (Key("thing"), Key("size", type=int))
    values = (Value("volume"),)
    resolutions = (HOUR, DAY)
    layout: ClassVar[Any] = {"groups": [{"id": "all", "title": "Größen", "of": [1, 2.5, None]}]}

    def rows(self, message: Message) -> list[Row]:
        return [(thing, size, 1) for thing, size in things(message.msg)]


class Extremes(Aggregate):
    name = "extremes"
    summary = "the smallest, the largest and the newest size of each thing"
    description = "All the merge rules; whole numbers, other numbers, and texts."
    topics = THINGS
    keys = (Key("thing"),)
    values = (
        Value("seen"),
        Value("smallest", "smallest"),
        Value("largest", "largest", float),
        Value("newest", "newest"),
        Value("said", "newest", str),
    )
    resolutions = (QUARTER, DAY, WEEK)
    retention: ClassVar = {QUARTER: datetime.timedelta(days=3)}

    def rows(self, message: Message) -> list[Row]:
        said = str(message.msg.get("said", ""))
        return [(thing, 1, size, size / 8, size, said) for thing, size in things(message.msg)]


class Latest(Aggregate):
    name = "latest topic of each user"
    summary = "what each user did last"
    description = "No buckets: one row for each key, a person."
    keys = (Key("user", role="user"),)
    values = (Value("topic", "newest", str), Value("length", "newest", float))

    def rows(self, message: Message) -> list[Row]:
        return [(user, message.topic, len(message.topic) / 4) for user in message.usernames]


class Totals(Aggregate):
    name = "totals (since ever)"
    summary = "all the messages of each category and package"
    description = "No buckets, two keys, sums."
    keys = (Key("category", role="category"), Key("package", role="package"))
    values = (Value("messages"), Value("first", "smallest"), Value("last", "largest"))

    def rows(self, message: Message) -> list[Row]:
        second = int(message.timestamp)
        return [(message.category, package, 1, second, second) for package in message.packages]


class Everything(Aggregate):
    name = "messages by all roles"
    summary = "each message by user, package, category and topic"
    description = "Counts messages; every role."
    keys = (
        Key("user", role="user"),
        Key("package", role="package"),
        Key("category", role="category"),
        Key("topic", role="topic"),
    )
    values = (Value("messages"),)
    resolutions = (HOUR, WEEK)
    counts_messages = True

    def rows(self, message: Message) -> list[Row]:
        return [
            (user, package, message.category, message.topic, 1)
            for user in message.usernames
            for package in message.packages
        ]


class Distinct(Aggregate):
    name = "distinct users"
    summary = "who was there, of each category"
    description = (
        "A row for each that is distinct: its value is always 1, however often it is seen."
    )
    keys = (Key("category", role="category"), Key("user", role="user"))
    values = (Value("present", "largest"),)
    resolutions = (DAY,)
    backlog_delta = datetime.timedelta(days=10)

    def rows(self, message: Message) -> list[Row]:
        return [(message.category, user, 1) for user in message.usernames]


class Alone(Aggregate):
    name = "nothing but numbers"
    summary = "no keys"
    description = "No keys, several values, one resolution that divides no hour."
    values = (Value("messages"), Value("topic_length", "largest"), Value("never", "smallest"))
    resolutions = (datetime.timedelta(minutes=7),)

    def rows(self, message: Message) -> list[Row]:
        return [(1, len(message.topic), 0)]


class Picky(Aggregate):
    name = "picky"
    summary = "rejects some messages"
    description = "Raises for a part of the messages."
    topics = ("org.fedoraproject.prod.#", "*.*.stg.*.*")
    keys = (Key("category", role="category"),)
    values = (Value("messages"),)
    resolutions = (DAY,)

    def rows(self, message: Message) -> list[Row]:
        if len(message.topic) % 5 == 0:
            raise ValueError(f"{message.topic} is a topic that it does not like")
        return [(message.category, 1)]


class Failing(Aggregate):
    name = "rejecting all"
    summary = "rejects every message"
    description = "Raises whatever it is given."
    values = (Value("messages"),)
    resolutions = (HOUR,)

    def rows(self, message: Message) -> Iterable[Row]:
        raise KeyError("nothing suits it")


class Empty(Aggregate):
    name = "empty"
    summary = "has no rows"
    description = "Nobody sends its topic."
    topics = ("org.fedoraproject.prod.answers.never",)
    keys = (Key("user", role="user"),)
    values = (Value("messages"),)
    resolutions = (QUARTER,)

    def rows(self, message: Message) -> list[Row]:
        return [(user, 1) for user in message.usernames]


class ScalarOfAnswers(ScalarModel):
    __tablename__ = "data_answers_scalar"


class CategorizedOfAnswers(CategorizedModel):
    __tablename__ = "data_answers_categorized"


class LogOfAnswers(CategorizedLogModel):
    __tablename__ = "data_answers_log"

    detail: Any = sa.Column(sa.UnicodeText, nullable=True)
    weight: Any = sa.Column(sa.Float, nullable=False, default=0.5)
    flag: Any = sa.Column(sa.Boolean, nullable=True)


class ConstrainedOfAnswers(ConstrainedCategorizedLogModel):
    __tablename__ = "data_answers_constrained"


class OwnOfAnswers(BaseModel):
    __tablename__ = "data_answers_own"

    title = sa.Column(sa.UnicodeText, nullable=False, index=True)
    edits = sa.Column(sa.Integer, nullable=False)
    at = sa.Column(sa.DateTime, nullable=True)

    @classmethod
    def to_csv(cls, instances: Any) -> str:
        lines = ["title;edits", *(f"{row.title!r};{row.edits}" for row in instances)]
        return "\n".join(lines) + "\n"


class Remembering(BasePlugin):
    """Counts by window and key, in memory, until it is told to write."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.counts: collections.Counter[tuple[datetime.datetime, str]] = collections.Counter()

    def process(self, message: dict[str, Any]) -> None:
        now = datetime.datetime.fromtimestamp(message["timestamp"], datetime.UTC)
        when = self.schedule.next(now=now.replace(tzinfo=None))
        self.counts[when, message["topic"].split(".")[3]] += 1


class ScalarPlugin(Remembering):
    name = "classic, scalar"
    summary = "messages in each hour"
    description = "A number for each window, labelled by its end."
    interval = HOUR
    model = ScalarOfAnswers
    layout: ClassVar[Any] = ["a", {"list": "of things"}]

    def update(self, session: Any) -> None:
        for (when, _), count in self.counts.items():
            row = session.query(self.model).filter_by(timestamp=when).first()
            row = row or self.model(timestamp=when, scalar=0)
            row.scalar += count
            session.add(row)
            session.flush()
        session.commit()
        self.counts.clear()


class CategorizedPlugin(Remembering):
    name = "classic, categorized"
    summary = "messages of each category in each day"
    description = "A number for each window and category."
    interval = DAY
    model = CategorizedOfAnswers

    def update(self, session: Any) -> None:
        for (when, category), count in self.counts.items():
            same = {"timestamp": when, "category": category}
            row = session.query(self.model).filter_by(**same).first()
            row = row or self.model(scalar=0, **same)
            row.scalar += count
            session.add(row)
            session.flush()
        session.commit()
        self.counts.clear()


class Gathering(BasePlugin):
    """Keeps the messages until it is told to write."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gathered: list[dict[str, Any]] = []

    def process(self, message: dict[str, Any]) -> None:
        if message["topic"] in THINGS:
            self.gathered.append(message)

    def update(self, session: Any) -> None:
        for message in self.gathered:
            when = datetime.datetime.fromtimestamp(message["timestamp"], datetime.UTC)
            for thing, size in things(message["msg"]):
                session.add(self.row(when.replace(tzinfo=None), thing, size))
        self.gathered.clear()

    def row(self, when: datetime.datetime, thing: str, size: int) -> Any:
        raise NotImplementedError


class LogPlugin(Gathering):
    name = "classic, log"
    summary = "a log of things"
    description = "Columns of its own, some of them empty."
    model = LogOfAnswers

    def row(self, when: datetime.datetime, thing: str, size: int) -> Any:
        detail = f"size {size}" if size % 2 else None
        flag = None if size % 3 else size % 2 == 0
        return LogOfAnswers(
            timestamp=when, category=thing, message=f"{thing}: {size}", detail=detail, flag=flag
        )


class ConstrainedPlugin(Gathering):
    name = "classic, constrained log"
    summary = "a log of things with a constraint"
    description = "A log of categories that are constrained."
    model = ConstrainedOfAnswers

    def row(self, when: datetime.datetime, thing: str, size: int) -> Any:
        constraint = "even" if size % 2 == 0 else "odd"
        return ConstrainedOfAnswers(
            timestamp=when, category=thing, message=str(size), category_constraint=constraint
        )


class OwnPlugin(Gathering):
    name = "classic, own"
    summary = "writes CSV in its own way"
    description = "A model with CSV of its own."
    interval = DAY
    model = OwnOfAnswers

    def row(self, when: datetime.datetime, thing: str, size: int) -> Any:
        return OwnOfAnswers(timestamp=when, title=thing, edits=size % 1000, at=when)


class BrokenOfAnswers(ScalarModel):
    __tablename__ = "data_answers_broken"


class BrokenPlugin(ScalarPlugin):
    name = "classic, broken"
    summary = "cannot write"
    description = "Its writes always fail."
    model = BrokenOfAnswers

    def update(self, session: Any) -> None:
        raise RuntimeError("it cannot write")


plugins = (
    Sizes,
    Extremes,
    Latest,
    Totals,
    Everything,
    Distinct,
    Alone,
    Picky,
    Failing,
    Empty,
    ScalarPlugin,
    CategorizedPlugin,
    LogPlugin,
    ConstrainedPlugin,
    OwnPlugin,
    BrokenPlugin,
)


class Slash(Empty):
    name = "a/b"
