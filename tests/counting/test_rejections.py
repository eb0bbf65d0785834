"""What is rejected is counted, all of it, and kept as long as there is room."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from statscache.app import create_app
from statscache.counting.membership.rejections import ROW_BYTES
from statscache.database import migrations
from statscache.database.connection import Database
from statscache.hub.intake import Intake, count_texts
from statscache.message import Message
from tests.support.commands import call
from tests.support.databases import execute
from tests.support.hub_fixture import TODAY, Hits, HubFixture, Picky
from tests.support.hub_steps import settle
from tests.support.messages import NOON, message
from tests.support.prometheus import samples

ROOM = 100_000
FRAME = 2_000


def garbage(number: int, kind: str = "[") -> str:
    return f"{kind}{number} {'x' * FRAME}"


def kept(hub_fixture: HubFixture) -> dict[str, int]:
    """The beginning of a content to the number of those that are kept."""
    found: dict[str, int] = {}
    for row in hub_fixture.rows("statscache_rejected"):
        assert row[8] == sum(map(len, row[1:4])) + ROW_BYTES
        found[row[3][0]] = found.get(row[3][0], 0) + 1
    return found


def total(hub_fixture: HubFixture) -> float:
    client = create_app({"statscache.sqlalchemy.uri": hub_fixture.uri}).test_client()
    return samples(client.get("/metrics").text)["statscache_rejected_total", ()]


def test_a_flood_is_counted_and_leaves_room_for_others(
    hub_fixture: HubFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hub_fixture.open(Hits, Picky, has_history=False, rejected_bytes=ROOM)
    for batch in range(4):
        count_texts(engine, [garbage(batch * 50 + number) for number in range(50)])
        size = sum(row[8] for row in hub_fixture.rows("statscache_rejected"))
        assert ROOM / 2 - 2 * FRAME < size < ROOM / 2
    bad = message(timestamp=TODAY, msg={"place": "bad", "number": 1})
    engine.count([bad])
    assert kept(hub_fixture)["{"] == 1
    (digest,) = [row[0] for row in hub_fixture.rows("statscache_rejected") if row[1]]
    assert total(hub_fixture) == 201
    # Neither a retry, nor success, nor a hand in the table changes what was.
    assert engine.retry(digest) is not None
    assert total(hub_fixture) == 201
    monkeypatch.setattr(Picky, "cannot", "")
    assert engine.retry(digest) is None
    execute(hub_fixture.uri, "DELETE FROM statscache_rejected")
    assert total(hub_fixture) == 201
    client = create_app({"statscache.sqlalchemy.uri": hub_fixture.uri}).test_client()
    found = samples(client.get("/metrics").text)
    assert found["statscache_rejected_by_cause_total", ("", "not JSON")] == 200
    assert found["statscache_rejected_by_cause_total", ("ValueError", "picky-1h picky-1d")] == 1
    assert found["statscache_rejected_bytes", ()] == 0


def test_room_is_made_for_newer_ones(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits, has_history=False, rejected_bytes=ROOM)
    count_texts(engine, ["[]", "[1]"])
    count_texts(engine, [garbage(number) for number in range(50)])
    count_texts(engine, [garbage(50)])
    assert not any("[50 " in row[3] for row in hub_fixture.rows("statscache_rejected"))
    engine.prune()
    left = hub_fixture.rows("statscache_rejected")
    assert ROOM / 4 - 2 * FRAME < sum(row[8] for row in left) <= ROOM / 4
    assert {row[3] for row in left} > {"[]", "[1]"}
    count_texts(engine, [garbage(50)])
    assert any("[50 " in row[3] for row in hub_fixture.rows("statscache_rejected"))
    assert total(hub_fixture) == 54


def test_nothing_is_kept_where_nobody_wants_it(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits, has_history=False, rejected_bytes=0)
    count_texts(engine, ["[]", "[]", "{"])
    assert hub_fixture.rows("statscache_rejected") == []
    assert total(hub_fixture) == 3


def test_what_comes_again_is_one_where_that_says_nothing_new(hub_fixture: HubFixture) -> None:
    engine = hub_fixture.open(Hits, has_history=False)
    intake = Intake(engine, 10, 100)
    for _ in range(2):
        for _ in range(2):
            # The bus brings a message by several ways; nonsense has no identity.
            intake.reject("a refused one", "signature: no", once=True)
            intake.reject("[]", "nonsense")
        intake.flush()
    assert total(hub_fixture) == 5
    assert {row[3]: row[6] for row in hub_fixture.rows("statscache_rejected")} == {
        "a refused one": 1,
        "[]": 4,
    }


def test_an_archive_that_is_asked_again_has_the_same_nonsense(hub_fixture: HubFixture) -> None:
    start = TODAY - 3_600.0
    archive = hub_fixture.archive([message(timestamp=start, msg={"place": "a", "number": 1})])
    hub_fixture.path.write_text(hub_fixture.path.read_text() + "{cut off\n")
    engine = hub_fixture.open(Hits)
    for later in (600, 660, 720):
        settle(engine, archive, start + later)
    assert [row[6] for row in hub_fixture.rows("statscache_rejected")] == [1]
    assert total(hub_fixture) == 1


def test_what_was_rejected_before_the_upgrade_is_counted(database_uri: str) -> None:
    database = Database(database_uri)
    columns = ("digest", "plugin", "reason", "content", "times")
    rows = [
        ("a", "", "not JSON: unexpected", "é" * 10, 3),
        ("b", "", "not JSON: end", "x", 4),
        ("c", "p-1d", "ValueError: no", "{}", 1),
        ("d", "", "/srv/messages.jsonl: not JSON: end", "{", 1),
    ]
    configuration = migrations.configuration()
    with database.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "0006")
        for row in rows:
            connection.execute(
                text(
                    "INSERT INTO statscache_rejected VALUES "
                    "(:digest, :plugin, :reason, :content, 1, 2, :times)"
                ),
                dict(zip(columns, row, strict=True)),
            )
        migrations.upgrade(connection)
        totals = connection.execute(
            text("SELECT plugin, cause, messages, digest FROM statscache_rejected_total")
        ).all()
        kinds = {
            row.digest: row.kind
            for row in connection.execute(text("SELECT digest, kind FROM statscache_rejected"))
        }
        sizes = connection.execute(
            text("SELECT digest, size FROM statscache_rejected ORDER BY digest")
        ).all()
    database.dispose()
    assert {row[:3] for row in totals} == {
        ("", "not JSON", 7),
        ("p-1d", "ValueError", 1),
        ("", "archive", 1),
    }
    by_kind = {row[3]: row[1] for row in totals}
    assert [by_kind[kinds[name]] for name in "abcd"] == [
        *("not JSON", "not JSON", "ValueError", "archive")
    ]
    assert sizes == [(row[0], len(row[3].encode()) + ROW_BYTES) for row in rows]


def test_a_flood_from_the_command_line(tmp_path: Path, migrated_uri: str) -> None:
    config = {"statscache.sqlalchemy.uri": migrated_uri, "statscache.rejected.bytes": ROOM}
    (tmp_path / "config.py").write_text(f"config = {config!r}\n")
    good = Message.from_fedmsg({"topic": "a.b.c.d", "timestamp": NOON, "msg": {}}).raw
    lines = [garbage(number) for number in range(100)] + [json.dumps(good)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    done = call(tmp_path, "--config", "config.py", "replay", "a.jsonl")
    assert "1 counted, 0 counted before, 100 rejected." in done.stdout
    listed = call(tmp_path, "--config", "config.py", "rejected", "list", "--limit", "1").stdout
    number = int(listed.splitlines()[2].split()[0])
    assert ROOM / 2 - 2 * FRAME < number * (FRAME + ROW_BYTES) < ROOM / 2
    assert "    100x  not a message: not JSON\n" in listed
    assert "100 rejected; " in call(tmp_path, "--config", "config.py", "status").stdout
