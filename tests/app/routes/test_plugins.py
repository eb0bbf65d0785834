"""Discovery: what is installed, what it covers, how much there is, and where to go from here."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, text, update

from statscache.app.application import build_app
from statscache.app.routes.plugins import ENTRY_SCHEMA
from statscache.app.state import table_sizes
from statscache.app.state.table_sizes import Size
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.database import tables
from statscache.database.connection import Database
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed
from tests.support.databases import execute
from tests.support.distributions import DISTRIBUTION
from tests.support.messages import NOON, message
from tests.support.routes import ROUTES

DAY = 86_400
BUNDLED = discovery.discover({})
YES, NO = {"filter": True}, {"filter": False}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """The bundled plugins and those of others, some of which are broken."""
    monkeypatch.syspath_prepend(DISTRIBUTION)
    return discovery.discover({})


def app_of(uri: str, installed: Installed, **config: Any) -> flask.Flask:
    return build_app(Settings.from_config({"statscache.sqlalchemy.uri": uri} | config), installed)


def get(client: FlaskClient, address: str) -> Any:
    answer = client.get(address)
    assert answer.status_code == 200, (address, answer.text)
    return answer.json


def count(uri: str, installed: Installed, *, beat_at: float | None = None) -> None:
    engine = Engine(Database(uri), installed)
    engine.open()
    if beat_at is not None:
        engine.beat(beat_at - 600)
    engine.count([message(timestamp=NOON + hour * 3600) for hour in range(5)])
    if beat_at is not None:
        engine.beat(beat_at)
    engine.close()


def test_all_there_is_to_know_of_one(migrated_uri: str) -> None:
    now = time.time()
    # Ahead, so that it does not matter how long this takes.
    count(migrated_uri, BUNDLED, beat_at=now + 3600)
    found = get(app_of(migrated_uri, BUNDLED).test_client(), "/api/plugins/volume-by-category-1h")
    revision, covered, freshness = (
        found.pop(name) for name in ("revision", "coverage", "freshness")
    )
    source = BUNDLED.datasets["volume-by-category-1h"].source
    links = found.pop("links")
    assert found == {
        "ident": "volume-by-category-1h",
        "name": "volume, by category",
        "summary": "the number of messages by the service that sent them",
        "description": BUNDLED.datasets["volume-by-category-1h"].plugin.description,
        "contract": "aggregate",
        "state": "active",
        "error": None,
        "columns": [
            {"name": "timestamp", "kind": "time", "type": "time", "label": "start"} | NO,
            {"name": "category", "kind": "key", "type": "text", "role": "category"} | YES,
            {"name": "volume", "kind": "value", "type": "integer", "merge": "add"}
            | {"optional": False}
            | NO,
        ],
        "people": None,
        "source": None,
        "answers": {"count": ["category"], "quantile": [], "hour_of_week": True},
        "topics": ["#"],
        "counts_messages": True,
        "resolution": {"ident": "volume-by-category-1h", "schedule": "1h", "seconds": 3600},
        "resolutions": [
            {"ident": f"volume-by-category-{schedule}", "schedule": schedule, "seconds": seconds}
            for schedule, seconds in [
                ("15s", 15),
                ("1m", 60),
                ("15m", 900),
                ("1h", 3600),
                ("1d", DAY),
            ]
        ],
        "retention": None,
        "label": "start",
        "audit": {"until": None, "mismatches": 0},
        "missed": 0,
        "rows": {"count": 5, "accuracy": "exact"},
        "distribution": {
            "name": "statscache",
            "version": source.version,
            "entry_point": "volume = statscache_plugins.volume:plugins",
        },
        "example": "/api/volume-by-category-1h?start=-7d&limit=10",
        "examples": {
            "count": "/api/volume-by-category-1h/series?count=category&points=12",
            "hour_of_week": "/api/volume-by-category-1h/series?resolution=hour-of-week",
            "top": "/api/volume-by-category-1h/top?by=category&limit=5&compare=previous&points=12",
        },
    }
    assert revision["number"] == 1
    assert now <= revision["changed_at"] <= time.time()
    assert covered["since"] == now + 3000
    assert covered["until"] == (now + 3600) // 60 * 60
    assert freshness == {"live": True, "lag": 0, "newest": NOON + 4 * 3600}
    assert links["rows"] == "/api/volume-by-category-1h"
    assert links["values/category"] == "/api/volume-by-category-1h/values/category"
    # It has no layout, and there is no archive.
    assert not {"layout", "messages"} & set(links)


def test_every_entry_has_what_the_schema_says(migrated_uri: str, installed: Installed) -> None:
    client = app_of(migrated_uri, installed).test_client()
    everything = get(client, "/api/plugins")
    assert [entry["ident"] for entry in everything["plugins"]] == list(installed.datasets)
    for entry in everything["plugins"]:
        assert set(entry) == set(ENTRY_SCHEMA["properties"]) == set(ENTRY_SCHEMA["required"])
        assert get(client, f"/api/plugins/{entry['ident']}") == entry
        assert {column["name"] for column in entry["columns"]} == set(
            installed.datasets[entry["ident"]].model.served_columns()
        )


def test_all_links_and_examples_work(migrated_uri: str, installed: Installed) -> None:
    count(migrated_uri, installed)
    config = {"statscache.datagrepper.endpoint": "http://localhost/"}
    client = app_of(migrated_uri, installed, **config).test_client()
    seen = set()
    for entry in get(client, "/api/plugins")["plugins"]:
        if entry["ident"].endswith(("-1m", "-15m")):
            continue  # as the hours
        for name, address in entry["links"].items():
            seen.add(name)
            if name != "events":  # which never end
                get(client, address)
        get(client, entry["example"])
    names = {
        route.name for route in ROUTES if "<ident>" in route.rule and "<column>" not in route.rule
    }
    assert names <= seen


def test_links_do_not_lead_to_rankings_of_people(migrated_uri: str) -> None:
    rankings = {"top", "values/user"}
    for config, people in (
        ({}, {"lists": True, "rankings": True}),
        ({"rankings": False}, {"lists": True, "rankings": False}),
        ({"lists": False, "rankings": True}, {"lists": False, "rankings": False}),
    ):
        keys = {f"statscache.people.{name}": value for name, value in config.items()}
        client = app_of(migrated_uri, BUNDLED, **keys).test_client()
        found = get(client, "/api/plugins/volume-by-user-1d")
        assert found["people"] == {"columns": ["user"]} | people
        assert rankings & set(found["links"]) == (rankings if people["rankings"] else set())
        get(client, found["example"])
    assert get(client, "/api/plugins/volume-by-category-1d")["people"] is None


def test_links_begin_with_where_the_service_is(migrated_uri: str) -> None:
    client = app_of(migrated_uri, BUNDLED).test_client()
    for prefix in ("/stats", "", "/stats"):
        answer = client.get("/api/plugins/volume-1d", base_url=f"http://localhost{prefix}")
        assert answer.json is not None
        assert answer.json["links"]["rows"] == f"{prefix}/api/volume-1d"
        assert answer.json["example"].startswith(f"{prefix}/api/volume-1d?")


def test_classic_plugins_show_what_their_models_have(
    migrated_uri: str, installed: Installed
) -> None:
    client = app_of(migrated_uri, installed).test_client()
    found = get(client, "/api/plugins/wiki-edits-by-title-1d")
    assert found["columns"] == [
        {"name": "timestamp", "kind": "time", "type": "time", "label": "end"} | NO,
        {"name": "edits", "kind": "value", "type": "integer"} | YES,
        {"name": "title", "kind": "key", "type": "text"} | YES,
    ]
    assert (found["contract"], found["label"], found["topics"]) == ("classic", "end", ["#"])
    assert found["state"] == "installed"
    assert found["rows"] == {"count": 0, "accuracy": "exact"}
    assert found["revision"] is None
    assert found["distribution"]["name"] == "stranger-statistics"
    siblings = get(client, "/api/plugins/messages-per-window-1h")["resolutions"]
    assert [sibling["schedule"] for sibling in siblings] == ["1m", "1h"]


def test_broken_plugins_appear_with_their_errors(migrated_uri: str, installed: Installed) -> None:
    broken = get(app_of(migrated_uri, installed).test_client(), "/api/plugins")["broken"]
    assert {entry["state"] for entry in broken} == {"broken"}
    errors = {
        entry["distribution"]["entry_point"].partition(" ")[0]: entry["error"] for entry in broken
    }
    assert "slash" in errors["slash"]
    assert "ModuleNotFoundError" in errors["missing"]


def test_plugins_that_are_gone_appear(migrated_uri: str, installed: Installed) -> None:
    count(migrated_uri, installed)
    count(migrated_uri, BUNDLED)
    gone = get(app_of(migrated_uri, BUNDLED).test_client(), "/api/plugins")["gone"]
    assert {entry["ident"]: entry["state"] for entry in gone} == dict.fromkeys(
        set(installed.datasets) - set(BUNDLED.datasets), "gone"
    )


def test_what_fails_says_why(migrated_uri: str) -> None:
    count(migrated_uri, BUNDLED)
    values = {"state": "failing", "error": "ZeroDivisionError: by zero\n[SQL: ...]", "missed": 7}
    row = tables.plugin
    execute(
        migrated_uri,
        update(row)
        .where(row.c.ident == "volume-1d")
        .values(values | {"audited_until": 1000.0, "mismatches": 2}),
    )
    found = get(app_of(migrated_uri, BUNDLED).test_client(), "/api/plugins/volume-1d")
    assert (found["state"], found["error"]) == ("failing", "ZeroDivisionError: by zero")
    assert found["missed"] == 7
    assert found["audit"] == {"until": 1000, "mismatches": 2}


def test_a_hub_that_is_silent_for_long_is_not_live(migrated_uri: str) -> None:
    count(migrated_uri, BUNDLED, beat_at=time.time() - 300)
    client = app_of(migrated_uri, BUNDLED).test_client()
    assert get(client, "/api/plugins/volume-1d")["freshness"]["live"] is False
    # Unless it is one that seldom says anything.
    config = {"statscache.producer.frequency": timedelta(minutes=10)}
    client = app_of(migrated_uri, BUNDLED, **config).test_client()
    assert get(client, "/api/plugins/volume-1d")["freshness"]["live"] is True


def test_retention_is_that_of_the_configuration(migrated_uri: str) -> None:
    for config, days in (
        ({}, {"15s": 7, "1m": 31, "1h": None}),
        ({"15s": timedelta(days=8), "1h": timedelta(days=9)}, {"15s": 8, "1m": 31, "1h": 9}),
        ({"15s": None, "1m": None}, {"15s": None, "1m": None, "1h": None}),
    ):
        client = app_of(migrated_uri, BUNDLED, **{"statscache.retention": config}).test_client()
        for schedule, age in days.items():
            expected = None if age is None else age * DAY
            assert get(client, f"/api/plugins/volume-{schedule}")["retention"] == expected


def test_an_unknown_plugin_is_a_404(migrated_uri: str) -> None:
    answer = app_of(migrated_uri, BUNDLED).test_client().get("/api/plugins/volume-2d")
    assert answer.status_code == 404
    assert "volume-1d" in (answer.json or {})["allowed"]


# How many rows there are.

FEW = 50


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_sizes, "MOST_COUNTED", FEW)


def size(uri: str, ident: str, installed: Installed = BUNDLED) -> Size:
    table = installed.datasets[ident].model.__table__
    with Database(uri, read_only=True).begin() as connection:
        return table_sizes.sizes(connection, [table])[table.name]


def fill(uri: str, ident: str, rows: list[dict[str, Any]]) -> None:
    execute(uri, insert(BUNDLED.datasets[ident].model.__table__).values(rows))


@pytest.mark.usefixtures("few")
def test_few_rows_are_counted_exactly(migrated_uri: str) -> None:
    assert size(migrated_uri, "volume-1d") == Size(0, "exact")
    fill(migrated_uri, "volume-1d", [{"timestamp": n * DAY, "volume": 1} for n in range(FEW)])
    assert size(migrated_uri, "volume-1d") == Size(FEW, "exact")


@pytest.mark.usefixtures("few")
def test_many_rows_are_estimated(migrated_uri: str) -> None:
    rows = [{"timestamp": n // 3 * DAY, "user": f"u{n}", "volume": 1} for n in range(3000)]
    fill(migrated_uri, "volume-by-user-1d", rows)
    if migrated_uri.startswith("postgresql"):
        # The planner has no statistics yet.
        execute(migrated_uri, text("ANALYZE volume_by_user_1d"))
    found = size(migrated_uri, "volume-by-user-1d")
    assert found.accuracy == "estimate"
    assert 2400 < found.rows < 3600


def test_rows_are_estimated_where_most_are_of_one_time(migrated_uri: str) -> None:
    # Few at both ends, as of a history whose middle was counted by itself.
    days = [*range(1_250), *(1_250 + n // 20 for n in range(10_000)), *range(1_750, 3_000)]
    rows = [{"timestamp": day * DAY, "user": f"u{n}", "volume": 1} for n, day in enumerate(days)]
    fill(migrated_uri, "volume-by-user-1d", rows)
    found = size(migrated_uri, "volume-by-user-1d")
    assert found.accuracy == "estimate"
    assert len(rows) / 1.5 < found.rows < len(rows) * 1.5


@pytest.mark.usefixtures("few")
def test_where_nothing_can_be_estimated_it_says_so(migrated_uri: str) -> None:
    rows = [
        {"timestamp": 1.0 * n, "category": "a", "category_constraint": f"{n}", "message": ""}
        for n in range(200)
    ]
    fill(migrated_uri, "release-engineering-event-logs", rows)
    assert size(migrated_uri, "release-engineering-event-logs") == Size(FEW + 1, "at least")


@pytest.mark.usefixtures("few")
def test_all_in_one_second_is_at_least(migrated_uri: str) -> None:
    rows = [{"timestamp": 0, "user": f"u{n}", "volume": 1} for n in range(200)]
    fill(migrated_uri, "volume-by-user-1d", rows)
    assert size(migrated_uri, "volume-by-user-1d") == Size(FEW + 1, "at least")


@pytest.mark.usefixtures("few")
def test_numbered_rows_are_estimated_by_their_numbers(
    migrated_uri: str, installed: Installed
) -> None:
    engine = Engine(Database(migrated_uri), installed)
    assert size(migrated_uri, "wiki-edits-by-title-1d", installed) == Size(0, "exact")
    engine.open()
    edit = "org.fedoraproject.prod.wiki.article.edit"
    engine.count([message(edit, NOON, {"title": f"Page {n}"}) for n in range(200)])
    engine.close()
    assert size(migrated_uri, "wiki-edits-by-title-1d", installed) == Size(200, "estimate")


def test_every_example_is_answered(migrated_uri: str, installed: Installed) -> None:
    count(migrated_uri, installed)
    client = app_of(migrated_uri, installed).test_client()
    shown = set()
    for entry in get(client, "/api/plugins")["plugins"]:
        for name, address in entry["examples"].items():
            assert client.get(address).status_code == 200, address
            shown.add(name)
    assert {"count", "hour_of_week", "top"} <= shown
