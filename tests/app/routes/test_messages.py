"""From a number to the messages behind it: they are as many as the number says."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from flask.testing import FlaskClient

from statscache.app import create_app
from statscache.app.routes.messages import LONGEST_KEY, MOST_TOPICS, ROWS_PER_PAGE, query_of
from statscache.app.state.filters import Filter
from statscache.archive.rows import message_of
from statscache.counting.engine import Engine
from statscache.counting.folding import fold
from statscache.database.connection import Database
from statscache.message import Message
from statscache.people import KNOWN_BOTS
from statscache.plugins import Aggregate, BaseModel, BasePlugin, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Dataset, Source
from statscache.testing import rows_of
from statscache.topics import matcher
from tests.support.datagrepper import Datagrepper
from tests.support.messages import NOON

BUNDLED = discovery.discover({})
DAY = 86_400

CELLS = 4
"""Of each table."""


@pytest.fixture(scope="module")
def messages(corpus: list[Message]) -> list[Message]:
    """Three days of the messages of the corpus, some of them at the very edge of a bucket."""
    generator = random.Random(1)
    found = []
    for number in range(1500):
        when = NOON + generator.random() * 3 * DAY
        if number % 10 == 0:
            when = when // 900 * 900
        elif number % 10 == 1:
            when = when // 900 * 900 - 1e-6
        # The archive has no more than microseconds.
        more = {"timestamp": round(when, 6), "msg_id": str(uuid.uuid4())}
        found.append(Message.from_fedmsg(generator.choice(corpus).raw | more))
    return found


@pytest.fixture(scope="module")
def archive(messages: list[Message]) -> Iterator[Datagrepper]:
    with Datagrepper() as server:
        server.add(messages)
        yield server


@pytest.fixture
def client(migrated_uri: str, archive: Datagrepper, messages: list[Message]) -> FlaskClient:
    engine = Engine(Database(migrated_uri), BUNDLED)
    engine.open()
    engine.count(messages)
    engine.close()
    return create_app(
        {
            "statscache.sqlalchemy.uri": migrated_uri,
            "statscache.datagrepper.endpoint": archive.url,
        }
    ).test_client()


def ask(client: FlaskClient, address: str, **query: Any) -> Any:
    answer = client.get(address, query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json


def fetch(address: str) -> list[Message]:
    """All that the archive has under an address, page by page, each message once."""
    rows: dict[str, Any] = {}
    while True:
        # Pages overlap where seconds are cut by them.
        page, total = 1, 0
        while page == 1 or (page - 1) * ROWS_PER_PAGE < total:
            answer = requests.get(address.removesuffix("page=1") + f"page={page}", timeout=10)
            answer.raise_for_status()
            total = answer.json()["total"]
            rows |= {row.get("id", row.get("msg_id")): row for row in answer.json()["raw_messages"]}
            page += 1
        if len(rows) == total:
            return [message_of(row) for row in rows.values()]


def test_the_messages_behind_random_cells_of_every_table(client: FlaskClient) -> None:
    generator = random.Random(2)
    seen = set()
    for ident, dataset in BUNDLED.datasets.items():
        assert isinstance(dataset.plugin, Aggregate)
        rows = ask(client, f"/api/{ident}", limit=100)
        for row in generator.sample(rows, min(CELLS, len(rows))):
            keys = {key.name: row[key.name] for key in dataset.plugin.keys}
            start = row["timestamp"]
            width = dataset.schedule.interval.total_seconds() if dataset.schedule else 0.001
            found = ask(client, f"/api/{ident}/messages", start=start, stop=start + width, **keys)
            behind = fetch(found["search"])
            assert {m.id for m in behind} == {m.id for m in fetch(found["raw"])}
            if found["exact"]:
                assert len(behind) == row["volume"], (ident, row, found)
            assert row in narrowed(dataset, found, behind), (ident, row, found)
            seen.add(ident)
            is_counter = ident.startswith("volume")
            assert found["exact"] == is_counter, (ident, found)
    assert seen == set(BUNDLED.datasets)


def narrowed(dataset: Dataset, found: Any, behind: list[Message]) -> list[dict[str, Any]]:
    """The rows of the messages that are left when a client has done what it is told."""
    assert isinstance(dataset.plugin, Aggregate)
    for entry in found["narrow"]:
        if "topics" in entry:
            wanted = matcher(entry["topics"])
            behind = [message for message in behind if wanted(message.topic)]
    rows = rows_of(dataset.plugin, behind)[dataset.ident]
    names = ["timestamp", *(column.name for column in dataset.plugin.columns)]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_the_messages_behind_random_filters(client: FlaskClient, messages: list[Message]) -> None:
    generator = random.Random(3)
    values = {
        "category": sorted({message.category for message in messages}),
        "topic": sorted({message.topic for message in messages}),
    }
    for _ in range(12):
        column = generator.choice(list(values))
        query: dict[str, Any] = {
            "start": NOON + 900 * generator.randrange(96),
            "stop": NOON + 2 * DAY,
        }
        for name in (column, f"not_{column}"):
            if generator.random() < 0.7:
                query[name] = generator.sample(values[column], generator.randint(1, 3))
        number = 0
        for page in range(1, 100):
            rows = ask(client, f"/api/volume-by-{column}-15m", page=page, **query)
            number += sum(row["volume"] for row in rows)
            if not rows:
                break
        found = ask(client, f"/api/volume-by-{column}-15m/messages", **query)
        assert found["exact"], (query, found)
        behind = fetch(found["search"]) if found["search"] else []
        assert len(behind) == number, (query, found)


def test_what_is_not_exact_finds_no_message_too_few(client: FlaskClient) -> None:
    users = [row["user"] for row in ask(client, "/api/volume-by-user-1d", limit=100)]
    query = {"user": sorted(set(users))[:3], "start": NOON - DAY, "stop": NOON + 4 * DAY}
    found = ask(client, "/api/volume-by-user-1d/messages", **query)
    assert not found["exact"]
    number = sum(row["volume"] for row in ask(client, "/api/volume-by-user-1d", **query))
    behind = fetch(found["search"])
    assert len(behind) <= number
    assert sum(len(message.usernames & set(query["user"])) for message in behind) == number


def test_an_answer(client: FlaskClient, archive: Datagrepper) -> None:
    midnight = int(NOON // DAY * DAY)
    query = {"user": "ralph", "start": midnight, "stop": midnight + DAY}
    found = ask(client, "/api/volume-by-user-1d/messages", **query)
    pairs = [
        ("start", str(midnight)),
        ("end", f"{midnight + DAY - 1}.999999"),
        ("user", "ralph"),
        ("order", "asc"),
        ("rows_per_page", "100"),
        ("page", "1"),
    ]
    assert found["search"].startswith(f"{archive.url}v2/search?")
    assert found["raw"].startswith(f"{archive.url}raw?")
    assert parse_qsl(urlsplit(found["search"]).query) == pairs
    assert parse_qsl(urlsplit(found["raw"]).query) == pairs
    del found["search"], found["raw"]
    assert found == {
        "ident": "volume-by-user-1d",
        "start": midnight,
        "stop": midnight + DAY,
        "archive": archive.url,
        "exact": True,
        "why": None,
        "narrow": [],
        "assumes": ["users are found by the archive's own index of whom a message is about"],
        "coverage": {
            "state": "active",
            "since": None,
            "until": None,
            "reconciled_until": None,
            "gaps": [],
        },
    }


def test_times(client: FlaskClient) -> None:
    day = int(NOON // DAY * DAY)
    found = ask(client, "/api/volume-1d/messages", start=day + 1, stop=day + 1.5)
    query = dict(parse_qsl(urlsplit(found["search"]).query))
    assert (query["start"], query["end"]) == (f"{day + 1}", f"{day + 1}.499999")
    found = ask(client, "/api/volume-1d/messages", start=day, stop=day)
    assert (found["search"], found["raw"], found["exact"]) == (None, None, True)
    assert found["why"] == "no message can be behind it"
    # A start of 0 would mean none at all to the archive.
    found = ask(client, "/api/volume-1d/messages", start=0, stop=day)
    assert dict(parse_qsl(urlsplit(found["search"]).query))["start"] == "1"
    # By default it is all that is there, today included.
    now = time.time()
    found = ask(client, "/api/volume-1d/messages")
    assert (found["start"], found["stop"] % DAY) == (0, 0)
    assert now < found["stop"] <= time.time() + DAY


def test_without_an_archive_there_is_nothing_to_lead_to(migrated_uri: str) -> None:
    client = create_app({"statscache.sqlalchemy.uri": migrated_uri}).test_client()
    answer = client.get("/api/volume-1d/messages")
    assert answer.status_code == 404
    assert "statscache.datagrepper.endpoint" in (answer.json or {})["detail"]


def test_passwords_of_the_archive_are_not_told(migrated_uri: str) -> None:
    config = {
        "statscache.sqlalchemy.uri": migrated_uri,
        "statscache.datagrepper.endpoint": "https://me:secret@example.org/datagrepper?key=secret",
    }
    found = ask(create_app(config).test_client(), "/api/volume-1d/messages", start="-1d")
    assert found["archive"] == "https://example.org/datagrepper/"
    assert found["raw"].startswith("https://example.org/datagrepper/raw?")
    assert "secret" not in str(found)


# What can be asked, and what cannot.


class Ends(BaseModel):
    __tablename__ = "messages_ends"


class Classic(BasePlugin):
    name, summary, description = "classic", "classic", "For tests."
    interval = timedelta(hours=1)
    model = Ends


def dataset_of(plugin_class: type) -> Dataset:
    source = Source("test", "test-distribution", "1.0")
    installed = discovery.load([(source, lambda: plugin_class)], {})
    assert not installed.broken
    return next(iter(installed.datasets.values()))


def counter(*topics: str, keys: tuple[Key, ...] = (), **more: Any) -> Dataset:
    attributes = {
        "name": "counter",
        "summary": "s",
        "description": "d",
        "keys": keys,
        "values": (Value("volume"),),
        "resolutions": (timedelta(days=1),),
        "counts_messages": True,
        "rows": lambda self, message: [],
    }
    if topics:
        attributes["topics"] = topics
    return dataset_of(type("Counter", (Aggregate,), attributes | more))


BY_CATEGORY = (Key("category", role="category"),)
BY_TOPIC = (Key("topic", role="topic"),)
BY_USER = (Key("who", role="user"),)
BY_PACKAGE_AND_TOPIC = (Key("package", role="package"), Key("topic", role="topic"))
GIT, WIKI = "org.fedoraproject.prod.git.receive", "org.fedoraproject.prod.wiki.article.edit"


@pytest.mark.parametrize(
    ("dataset", "filters", "pairs"),
    [
        (counter(), [], []),
        (counter(GIT, WIKI), [], [("topic", GIT), ("topic", WIKI)]),
        (counter("*.*.*.git.#"), [], [("category", "git")]),
        (
            counter("*.*.*.git.#", keys=BY_CATEGORY),
            [Filter("category", False, ("git", "wiki"))],
            [("category", "git")],
        ),
        (
            counter("#", keys=BY_CATEGORY),
            [Filter("category", False, ("", "git"))],
            [("category", "Unclassified"), ("category", "git")],
        ),
        (
            counter("#", keys=BY_CATEGORY),
            [Filter("category", True, ("git",))],
            [("not_category", "git")],
        ),
        (
            counter(GIT, WIKI, keys=BY_CATEGORY),
            [Filter("category", True, ("git",))],
            [("topic", WIKI)],
        ),
        (
            counter("#", keys=BY_TOPIC),
            [Filter("topic", False, (GIT, WIKI)), Filter("topic", True, (WIKI,))],
            [("topic", GIT)],
        ),
        (counter("#", keys=BY_TOPIC), [Filter("topic", True, (GIT,))], [("not_topic", GIT)]),
        (
            counter("*.*.*.git.#", keys=BY_TOPIC),
            [Filter("topic", False, (GIT, WIKI))],
            [("topic", GIT)],
        ),
        (counter("#", keys=BY_USER), [Filter("who", False, ("ralph",))], [("user", "ralph")]),
        (
            counter("#", keys=BY_USER),
            [Filter("who", False, ("ralph", "toshio")), Filter("who", True, ("toshio",))],
            [("user", "ralph")],
        ),
        (
            counter("#", keys=BY_PACKAGE_AND_TOPIC),
            [Filter("package", False, ("nano",)), Filter("topic", False, (GIT,))],
            [("topic", GIT), ("package", "nano")],
        ),
    ],
)
def test_what_the_archive_can_be_asked(
    dataset: Dataset, filters: list[Filter], pairs: list[tuple[str, str]]
) -> None:
    found = query_of(dataset, tuple(filters))
    assert (found.pairs, found.narrow, found.is_empty) == (pairs, [], False)


@pytest.mark.parametrize(
    ("dataset", "filters", "pairs", "narrow"),
    [
        # Whom it is about: several people, or none.
        (counter(keys=BY_USER), [], [], [{"column": "who", "leave_out": [*KNOWN_BOTS]}]),
        (
            counter(keys=BY_USER),
            [Filter("who", True, ("ralph",))],
            [],
            [{"column": "who", "leave_out": ["ralph", *KNOWN_BOTS]}],
        ),
        (
            counter(keys=BY_USER),
            [Filter("who", False, ("ralph", "toshio"))],
            [("user", "ralph"), ("user", "toshio")],
            [{"column": "who", "keep": ["ralph", "toshio"]}],
        ),
        # Patterns.
        (
            counter("io.pagure.#"),
            [],
            [],
            [{"topics": ["io.pagure.#"]}],
        ),
        (
            counter("io.pagure.prod.pagure.#", "*.*.*.git.#"),
            [],
            [("category", "git"), ("category", "pagure")],
            [{"topics": ["io.pagure.prod.pagure.#", "*.*.*.git.#"]}],
        ),
        # No role.
        (
            counter(GIT, keys=(Key("branch"), Key("year", type=int))),
            [Filter("branch", False, ("main",)), Filter("year", True, (2015,))],
            [("topic", GIT)],
            [{"column": "branch", "keep": ["main"]}, {"column": "year", "leave_out": [2015]}],
        ),
        # Values that are not what the messages had.
        (
            counter(keys=BY_TOPIC),
            [Filter("topic", False, ("x" * fold.LONGEST_KEY,))],
            [],
            [{"column": "topic", "keep": ["x" * fold.LONGEST_KEY]}],
        ),
        (
            counter(keys=BY_USER),
            [Filter("who", False, ("\ufffd",))],
            [],
            [{"column": "who", "keep": ["\ufffd"]}],
        ),
        # Plugins that do not say what they count.
        (counter(GIT, counts_messages=False), [], [("topic", GIT)], [{"plugin": "counter-1d"}]),
        (dataset_of(Classic), [], [], [{"plugin": "classic-1h"}]),
        # One role twice.
        (
            counter(
                GIT,
                counts_messages=False,
                keys=(Key("author", role="user"), Key("reviewer", role="user")),
            ),
            [Filter("author", False, ("ralph",)), Filter("reviewer", False, ("toshio",))],
            [("topic", GIT), ("user", "ralph")],
            [{"plugin": "counter-1d"}, {"column": "reviewer", "keep": ["toshio"]}],
        ),
    ],
)
def test_what_the_archive_cannot_be_asked(
    dataset: Dataset,
    filters: list[Filter],
    pairs: list[tuple[str, str]],
    narrow: list[dict[str, Any]],
) -> None:
    found = query_of(dataset, tuple(filters))
    assert found.pairs == pairs
    assert all(entry.pop("why") for entry in found.narrow)
    assert found.narrow == narrow


@pytest.mark.parametrize(
    ("dataset", "filters"),
    [
        (
            counter(keys=BY_TOPIC),
            [Filter("topic", False, (GIT,)), Filter("topic", True, (GIT,))],
        ),
        (counter(GIT, keys=BY_TOPIC), [Filter("topic", False, (WIKI,))]),
        (counter(keys=BY_USER), [Filter("who", False, ("zodbot",))]),
        (counter(GIT, keys=BY_CATEGORY), [Filter("category", False, ("wiki",))]),
        (counter("*.*.*.git.#", keys=BY_CATEGORY), [Filter("category", True, ("git",))]),
    ],
)
def test_what_nothing_can_be_behind(dataset: Dataset, filters: list[Filter]) -> None:
    assert query_of(dataset, tuple(filters)).is_empty


def test_who_is_not_counted_is_not_repeated(migrated_uri: str) -> None:
    config = {
        "statscache.sqlalchemy.uri": migrated_uri,
        "statscache.datagrepper.endpoint": "http://localhost/",
        "statscache.people.hidden": ["ralph"],
    }
    client = create_app(config).test_client()
    for ident, query in (
        ("volume-by-user-1d", {"user": ["ralph", "toshio"]}),
        ("volume-by-user-1d", {"not_user": "Ralph"}),
        ("number-of-contribution-per-project-to-pagure.io-1d", {"project": "forks/ralph/x"}),
    ):
        answer = client.get(f"/api/{ident}/messages", query_string=query)
        assert answer.status_code == 200
        assert "ralph" not in answer.text.lower()


def test_very_many_topics_are_told_by_their_categories() -> None:
    topics = [f"org.fedoraproject.prod.{'ab'[n % 2]}.{n}" for n in range(MOST_TOPICS + 1)]
    found = query_of(counter(*topics), ())
    assert found.pairs == [("category", "a"), ("category", "b")]
    assert found.narrow[0]["topics"] == sorted(topics)


def test_shortened_keys_are_known_as_such() -> None:
    assert LONGEST_KEY == fold.LONGEST_KEY
