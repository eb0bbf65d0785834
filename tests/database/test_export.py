"""Exports: the same rows give the same bytes, and nothing that is not ours is overwritten."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from statscache.config import URI_VARIABLE
from statscache.counting.engine import Engine
from statscache.database.connection import Database
from statscache.database.definitions import create_shadow, shadow_name, swap
from statscache.database.export import Export, export
from statscache.errors import DatabaseUnavailable, StatscacheError
from statscache.message import Message
from statscache.plugins import Aggregate, BaseModel, Key, Value
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Installed, Source
from tests.support.classics import KeepsMessages, moment_of
from tests.support.databases import BACKENDS, execute
from tests.support.messages import NOON, message

DAY = 86_400.0
DECEMBER = datetime(2023, 12, 1, tzinfo=UTC).timestamp()


class Newest(Aggregate):
    name, summary, description = "newest", "newest", "For tests."
    keys = (Key("place"), Key("number", type=int))
    values = (
        Value("text", "newest", str),
        Value("share", "largest", float),
        Value("visits", "add"),
    )

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        body = message.msg
        return [(body["place"], body["number"], body["text"], body["share"], 1)]


class Visits(Newest):
    name = "visits"
    resolutions = (timedelta(days=1),)


class LogModel(BaseModel):
    __tablename__ = "export_log"

    # How it is compared is left to the locale of the server, or is another order altogether.
    title: Any = sa.Column(
        sa.Text().with_variant(sqlite.TEXT(collation="NOCASE"), "sqlite"), nullable=True
    )
    share: Any = sa.Column(sa.Float, nullable=True)
    exact: Any = sa.Column(sa.Numeric(12, 3), nullable=True)
    is_good: Any = sa.Column(sa.Boolean, nullable=False)
    extra: Any = sa.Column(sa.JSON(none_as_null=True), nullable=True)


class Log(KeepsMessages):
    name, summary, description = "log", "log", "For tests."
    model = LogModel

    def write(self, session: Any, raw: dict[str, Any]) -> None:
        body = raw["msg"]
        exact = body.get("exact")
        session.add(
            LogModel(
                timestamp=moment_of(raw),
                title=body["text"],
                share=body["share"],
                exact=None if exact is None else Decimal(exact),
                is_good=body["number"] > 0,
                extra=body.get("extra"),
            )
        )


def install(*classes: type) -> Installed:
    installed = discovery.load([(Source("test", "test-distribution", "1.0"), lambda: classes)], {})
    assert not installed.broken
    return installed


def count(uri: str, messages: list[Message], *classes: type, batch: int = 100) -> None:
    engine = Engine(Database(uri), install(*classes))
    engine.open()
    for first in range(0, len(messages), batch):
        engine.count(messages[first : first + batch])
    engine.close()


def write(uri: str, folder: Path, *classes: type, **options: Any) -> Export:
    database = Database(uri, read_only=True)
    try:
        return export(database, list(install(*classes).datasets.values()), folder, **options)
    finally:
        database.dispose()


def body(place: str = "a", number: int = 1, text: str = "", share: float = 0.5, **more: Any) -> Any:
    return {"place": place, "number": number, "text": text, "share": share} | more


MESSAGES = [
    message(timestamp=NOON + 0.25, msg=body("b", 2, 'say "x", y\r\nz', 1 / 3)),
    message(timestamp=NOON + 1, msg=body("b", 10, "", 1e300)),
    message(
        timestamp=NOON + 2.5, msg=body("é", -1, "ä\N{SNOWMAN}", -0.0, extra={"b": [1.5], "a": 2})
    ),
    message(timestamp=NOON, msg=body("Z", 3, "z", 5e-324, exact="1.500")),
    message(timestamp=NOON, msg=body("Z", 4, "Z", 2.0, exact="100000000.001")),
    message(timestamp=NOON, msg=body("Z", 5, "Z", 2.0)),
    message(timestamp=NOON, msg=body("a", 5, "a", 2.0**53, exact="0.000")),
    message(timestamp=DECEMBER - 0.5, msg=body("a", 6, "last", 0.1)),
    message(timestamp=DECEMBER, msg=body("a", 6, "first", 0.1)),
    message(timestamp=DECEMBER + DAY, msg=body("c", 7, "\N{COMBINING ACUTE ACCENT}", 0.1)),
]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_both_databases_give_the_same_bytes_in_any_order_of_messages(
    tmp_path: Path, new_database: Callable[[str], str], form: str
) -> None:
    manifests = []
    for number, backend in enumerate(BACKENDS):
        uri = new_database(backend)
        shuffled = list(MESSAGES)
        random.Random(number).shuffle(shuffled)
        count(uri, shuffled, Newest, Visits, Log, batch=number + 2)
        folder = tmp_path / backend
        made = write(uri, folder, Newest, Visits, Log, format_=form)
        manifests.append((folder / "manifest.json").read_bytes())
        assert manifests[-1].decode() == made.manifest()
        for file in made.files:
            content = (folder / file.name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            ["manifest.json", *(file.name for file in made.files)]
        )
    assert manifests[0] == manifests[1]


def test_what_csv_looks_like(tmp_path: Path, migrated_uri: str) -> None:
    count(migrated_uri, MESSAGES, Newest, Visits, Log)
    made = write(migrated_uri, tmp_path / "out", Newest, Visits, Log)

    def read(name: str) -> str:
        return (tmp_path / "out" / name).read_bytes().decode()

    # Latest values: one row a key, in the month of its newest message; by code points.
    assert read("newest-2023-11.csv") == (
        "timestamp,place,number,text,share,visits\r\n"
        "1700049600,Z,3,z,5e-324,1\r\n"
        "1700049600,Z,4,Z,2,1\r\n"
        "1700049600,Z,5,Z,2,1\r\n"
        "1700049600,a,5,a,9007199254740992.0,1\r\n"
        '1700049600.25,b,2,"say ""x"", y\r\nz",0.3333333333333333,1\r\n'
        '1700049601,b,10,"",1e+300,1\r\n'
        "1700049602.5,é,-1,ä\N{SNOWMAN},0,1\r\n"
    )
    assert read("newest-2023-12.csv") == (
        "timestamp,place,number,text,share,visits\r\n"
        "1701388800,a,6,first,0.1,2\r\n"
        "1701475200,c,7,\N{COMBINING ACUTE ACCENT},0.1,1\r\n"
    )
    # Buckets: by time first; what decides which value is the newest is there too.
    assert read("visits-1d-2023-12.csv") == (
        "timestamp,place,number,text,share,visits,_newest_at\r\n"
        "1701388800,a,6,first,0.1,1,1701388800\r\n"
        "1701475200,c,7,\N{COMBINING ACUTE ACCENT},0.1,1,1701475200\r\n"
    )
    # Classic: without the row number, by all columns; NULL is not the same as empty text.
    assert read("log-2023-11.csv") == (
        "timestamp,title,share,exact,is_good,extra\r\n"
        "1700049600,Z,2,,true,\r\n"
        "1700049600,Z,2,100000000.001,true,\r\n"
        "1700049600,a,9007199254740992.0,0,true,\r\n"
        "1700049600,z,5e-324,1.5,true,\r\n"
        '1700049600.25,"say ""x"", y\r\nz",0.3333333333333333,,true,\r\n'
        '1700049601,"",1e+300,,true,\r\n'
        '1700049602.5,ä\N{SNOWMAN},0,,false,"{""a"":2,""b"":[1.5]}"\r\n'
        "1701388799.5,last,0.1,,true,\r\n"
    )
    manifest = json.loads(read("manifest.json"))
    assert [each["ident"] for each in manifest["datasets"]] == ["log", "newest", "visits-1d"]
    first = manifest["datasets"][0]
    assert first["columns"] == ["timestamp", "title", "share", "exact", "is_good", "extra"]
    assert first["files"][0] == {
        "name": "log-2023-11.csv",
        "month": "2023-11",
        "first": 1700049600,
        "last": 1701388799.5,
        "rows": 8,
        "bytes": made.files[0].bytes,
        "sha256": made.files[0].sha256,
    }


def test_what_json_looks_like(tmp_path: Path, migrated_uri: str) -> None:
    count(migrated_uri, MESSAGES, Log)
    write(migrated_uri, tmp_path, Log, format_="ndjson", start=NOON + 1, stop=DECEMBER)
    lines = (tmp_path / "log-2023-11.ndjson").read_text().split("\n")
    assert lines[0] == (
        '{"timestamp":1700049601,"title":"","share":1e+300,"exact":null,"is_good":true,'
        '"extra":null}'
    )
    assert json.loads(lines[1]) == {
        "timestamp": 1700049602.5,
        "title": "ä\N{SNOWMAN}",
        "share": 0,
        "exact": None,
        "is_good": False,
        "extra": {"a": 2, "b": [1.5]},
    }
    assert lines[3:] == [""]
    assert not (tmp_path / "log-2023-12.ndjson").exists()


def test_a_range_is_half_open_and_months_are_those_of_utc(
    tmp_path: Path, migrated_uri: str
) -> None:
    count(migrated_uri, MESSAGES, Visits, Log)
    made = write(migrated_uri, tmp_path, Visits, Log, start=NOON + 0.25, stop=DECEMBER + DAY)
    assert {file.name: file.rows for file in made.files} == {
        "log-2023-11.csv": 4,
        "log-2023-12.csv": 1,
        "visits-1d-2023-11.csv": 1,
        "visits-1d-2023-12.csv": 1,
    }
    # The buckets of the 15th began before.
    assert "1701302400" in (tmp_path / "visits-1d-2023-11.csv").read_text()


def test_an_earlier_export_is_replaced_and_what_it_had_more_is_removed(
    tmp_path: Path, migrated_uri: str
) -> None:
    count(migrated_uri, MESSAGES, Newest, Visits)
    (tmp_path / "notes.txt").write_text("mine")
    write(migrated_uri, tmp_path, Newest, Visits)
    execute(migrated_uri, "UPDATE visits_1d SET visits = 1000")
    again = write(migrated_uri, tmp_path, Visits, stop=DECEMBER)
    assert again.removed == ["newest-2023-11.csv", "newest-2023-12.csv", "visits-1d-2023-12.csv"]
    assert ",1000," in (tmp_path / "visits-1d-2023-11.csv").read_text()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".db") == [
        "manifest.json",
        "notes.txt",
        "visits-1d-2023-11.csv",
    ]


@pytest.mark.parametrize("name", ["manifest.json", "visits-1d-2023-12.csv"])
def test_files_of_others_are_not_overwritten(tmp_path: Path, migrated_uri: str, name: str) -> None:
    count(migrated_uri, MESSAGES, Visits)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(StatscacheError, match=f"{name}.*choose another folder with --output"):
        write(migrated_uri, folder, Visits)
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "mine"


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, migrated_uri: str) -> None:
    count(migrated_uri, MESSAGES, Visits)
    outside = tmp_path / "outside.csv"
    outside.write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    files = [{"name": "../outside.csv"}]
    (folder / "manifest.json").write_text(json.dumps({"datasets": [{"files": files}]}))
    write(migrated_uri, folder, Visits)
    assert outside.read_text() == "mine"


def test_one_that_was_killed_while_it_replaced_files_is_repeated(
    tmp_path: Path, migrated_uri: str
) -> None:
    count(migrated_uri, MESSAGES, Visits)
    write(migrated_uri, tmp_path / "whole", Visits)
    folder = tmp_path / "killed"
    unfinished = folder / ".statscache-export"
    unfinished.mkdir(parents=True)
    # As it is behind the first file: that is in its place, and the rest is not.
    for name in ("manifest.json", "visits-1d-2023-12.csv"):
        (unfinished / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    (folder / "visits-1d-2023-11.csv").write_text("an old one")
    write(migrated_uri, folder, Visits)
    for path in (tmp_path / "whole").iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert not unfinished.exists()


def test_two_exports_do_not_write_into_one_folder(tmp_path: Path, migrated_uri: str) -> None:
    count(migrated_uri, MESSAGES, Visits)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(StatscacheError, match="another export is writing"):
        write(migrated_uri, tmp_path, Visits)
    os.close(descriptor)
    write(migrated_uri, tmp_path, Visits)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path, migrated_uri: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StatscacheError, match=r"cannot write .*file/out: Not a directory"):
        write(migrated_uri, tmp_path / "file" / "out", Visits)


def test_a_plugin_whose_table_is_not_there_yet_has_no_rows(
    tmp_path: Path, migrated_uri: str
) -> None:
    made = write(migrated_uri, tmp_path, Visits)
    assert made.files == []
    assert [each.ident for each in made.datasets] == ["visits-1d"]


class Changed(Newest):
    name = "visits"
    resolutions = (timedelta(days=1),)
    keys = (Key("place"), Key("number", type=int), Key("more"))


def test_a_table_of_an_earlier_definition_is_refused(tmp_path: Path, migrated_uri: str) -> None:
    count(migrated_uri, MESSAGES, Visits)
    with pytest.raises(StatscacheError, match="visits-1d are still those of an earlier release"):
        write(migrated_uri, tmp_path / "out", Changed)


def test_all_is_of_one_moment(tmp_path: Path, migrated_uri: str) -> None:
    count(migrated_uri, MESSAGES, Newest, Visits)
    before = write(migrated_uri, tmp_path / "before", Newest, Visits)
    visits = install(Visits).datasets["visits-1d"]
    seen: list[bool] = []

    def meanwhile(ident: str, _: int) -> None:
        if ident != "newest" or seen:
            return
        # The other table is not read yet: rows come in, and a new table takes its place.
        count(migrated_uri, [message(timestamp=NOON, msg=body("new", 99))], Newest, Visits)
        other = Database(migrated_uri)
        shadow = shadow_name(visits)
        with other.begin() as connection:
            create_shadow(connection, visits.model.__table__, shadow)
        try:
            with other.begin() as connection:
                swap(connection, visits.model.__table__, shadow)
        except DatabaseUnavailable:
            # On PostgreSQL it waits for readers, but not for long.
            seen.append(False)
        else:
            seen.append(True)
        other.dispose()

    during = write(migrated_uri, tmp_path / "during", Newest, Visits, report=meanwhile)
    assert seen == [migrated_uri.startswith("sqlite")]
    assert during.manifest() == before.manifest()
    after = write(migrated_uri, tmp_path / "after", Newest, Visits)
    assert after.manifest() != before.manifest()


class Edits(Aggregate):
    name, summary, description = "edits", "edits", "For tests."
    keys = (Key("user", role="user"),)
    values = (Value("edits"),)
    resolutions = (timedelta(days=1),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["user"], 1)]


def test_hidden_people_are_in_no_export(tmp_path: Path, migrated_uri: str) -> None:
    edits = [
        message(timestamp=NOON, msg={"user": "Alice"}),
        message(timestamp=NOON, msg={"user": "bodhi"}),
        message(timestamp=DECEMBER, msg={"user": "alice"}),
    ]
    count(migrated_uri, edits, Edits)
    assert len(write(migrated_uri, tmp_path / "before", Edits).files) == 2
    # Before the hub has had the time to delete her rows.
    source = Source("test", "test-distribution", "1.0")
    config = {"statscache.people.hidden": ["alice"]}
    datasets = discovery.load([(source, lambda: [Edits])], config).datasets
    database = Database(migrated_uri, read_only=True)
    made = export(database, list(datasets.values()), tmp_path / "after")
    database.dispose()
    assert [(file.month, file.rows) for file in made.files] == [("2023-11", 1)]
    assert "bodhi" in (tmp_path / "after" / made.files[0].name).read_text()


FEW, MANY = 10_000, 60_000
MEASURED = """
from statscache.cli import statscache
statscache(standalone_mode=False)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, migrated_uri: str) -> None:
    peaks = []
    for rows in (FEW, MANY):
        long_text = "'" + "x" * 500 + "'"
        series = (
            f"WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series "
            f"WHERE n < {rows}) SELECT n AS n FROM series"
            if migrated_uri.startswith("sqlite")
            else f"SELECT n FROM generate_series(1, {rows}) AS n"
        )
        execute(migrated_uri, "DELETE FROM volume_by_topic_1m")
        execute(
            migrated_uri,
            "INSERT INTO volume_by_topic_1m (timestamp, topic, volume) "
            f"SELECT {int(NOON)} + 60 * (n % 1000), {long_text} || n, 1 FROM ({series}) AS s",
        )
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, "export", "volume-by-topic-1m", "--output", "out"],
            cwd=tmp_path,
            env=os.environ | {URI_VARIABLE: migrated_uri},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"{rows} rows of 1 idents" in done.stdout
        peaks.append(int(done.stdout.split()[-2]) / 1024)
    size = (tmp_path / "out" / "volume-by-topic-1m-2023-11.csv").stat().st_size / 2**20
    assert size > 25
    assert peaks[1] - peaks[0] < 15, peaks
