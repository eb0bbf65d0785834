"""``statscache rejected``: list what could not be counted, and count it after all."""

from __future__ import annotations

import json
from pathlib import Path

from statscache.database import tables
from statscache.database.connection import Database
from statscache.rejection import Rejection
from tests.support.commands import call
from tests.support.databases import execute, table
from tests.support.messages import NOON

EDIT = {
    "topic": "org.fedoraproject.prod.wiki.article.edit",
    "timestamp": NOON,
    "msg": {"title": "Flock"},
    "msg_id": "2023-edit",
}


def test_retry(tmp_path: Path, migrated_uri: str) -> None:
    bad = {**EDIT, "timestamp": "yesterday"}
    (tmp_path / "a.jsonl").write_text(json.dumps(bad) + "\n" + json.dumps(EDIT) + "\n")
    assert call(tmp_path, "replay", "a.jsonl", uri=migrated_uri).returncode == 0
    listed = call(tmp_path, "rejected", "list", uri=migrated_uri).stdout
    digest = listed.split()[0]
    again = call(tmp_path, "rejected", "retry", digest, uri=migrated_uri)
    assert again.returncode == 1
    assert "timestamp is not a number" in again.stdout
    assert "0 counted, 1 rejected again." in again.stdout
    # The sender's mistake is mended by hand.
    database = Database(migrated_uri)
    with database.begin() as connection:
        good = json.dumps(EDIT | {"msg_id": "2023-another"})
        connection.exec_driver_sql(f"UPDATE statscache_rejected SET content = '{good}'")
    database.dispose()
    done = call(tmp_path, "rejected", "retry", "--all", uri=migrated_uri)
    assert (done.returncode, done.stdout) == (0, "1 counted, 0 rejected again.\n")
    assert [row[-1] for row in table(migrated_uri, "volume_1d")] == [2]
    assert table(migrated_uri, "statscache_rejected") == []


def test_what_is_shown_cannot_steer_a_terminal(tmp_path: Path, migrated_uri: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{\x1b[2J\x1b]0;title\x07\rforged \xe2\x80\xaegpj.exe\n")
    assert call(tmp_path, "replay", "a.jsonl", uri=migrated_uri).returncode == 0
    listed = call(tmp_path, "rejected", "list", uri=migrated_uri).stdout
    assert listed.replace("\n", "").isprintable()
    assert "\\x1b[2J" in listed
    assert "\\u202egpj.exe" in listed
    # Text of plugins and of the archive as well, wherever it is shown.
    columns = "id, sweeps, position, checked_at, messages, mismatches, repaired, last_mismatch"
    values = "1, 1, 0, 0, 1, 1, 0, '\x1b[2J'"
    execute(migrated_uri, f"INSERT INTO statscache_audit ({columns}) VALUES ({values})")
    status = call(tmp_path, "status", uri=migrated_uri).stdout
    assert "the newest: \\x1b[2J" in status
    assert status.replace("\n", "").isprintable()


def test_what_to_retry_must_be_said(tmp_path: Path, migrated_uri: str) -> None:
    for arguments in ((), ("abc", "--all"), ("--plugin", "x", "--all")):
        done = call(tmp_path, "rejected", "retry", *arguments, uri=migrated_uri)
        assert done.returncode == 2
        assert "say what to retry" in done.stderr
    unknown = call(tmp_path, "rejected", "retry", "abc", uri=migrated_uri)
    assert unknown.returncode == 1
    assert "'statscache rejected list' shows" in unknown.stderr
    unknown = call(tmp_path, "rejected", "retry", "--plugin", "volume", uri=migrated_uri)
    assert "nothing that is kept was rejected by 'volume'" in unknown.stderr


def test_retry_for_one_plugin(tmp_path: Path, migrated_uri: str) -> None:
    database = Database(migrated_uri)
    with database.begin() as connection:
        for digest, plugin in (("a", "volume-1h volume-1d"), ("b", "volume-by-category-1d")):
            row = Rejection(json.dumps(EDIT), "ValueError: at that time", plugin)
            connection.execute(
                tables.rejected.insert().values(
                    digest=digest,
                    plugin=row.plugin,
                    reason=row.reason,
                    content=row.content,
                    first_seen=NOON,
                    last_seen=NOON,
                    times=1,
                )
            )
    database.dispose()
    done = call(tmp_path, "rejected", "retry", "--plugin", "Volume", uri=migrated_uri)
    assert done.stdout == "1 counted, 0 rejected again.\n", done.stderr
    for name, number in (("volume_1h", 1), ("volume_1d", 1), ("volume_15s", 0)):
        assert len(table(migrated_uri, name)) == number
    assert [row[0] for row in table(migrated_uri, "statscache_rejected")] == ["b"]
    done = call(
        tmp_path, "rejected", "retry", "--plugin", "volume-by-category-1d", uri=migrated_uri
    )
    assert done.stdout == "1 counted, 0 rejected again.\n", done.stderr
