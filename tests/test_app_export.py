"""All rows in one answer: the same as page by page, in the memory of a few, and few at a time."""

from __future__ import annotations

import csv
import gzip
import io
import tracemalloc
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from sqlalchemy import insert, text

from statscache import tables
from statscache.app import export
from statscache.database import Database
from tests.conftest import NOON
from tests.served import Served, served, things, walk


@pytest.fixture
def api(migrated_uri: str) -> Iterator[Served]:
    with served(migrated_uri) as found:
        yield found


def fill(api: Served, rows: int) -> None:
    """Write so many rows of one table without the engine, and say that it has changed."""
    database = Database(api.uri)
    columns = {"timestamp": int(NOON), "thing": "a", "volume": 1}
    table = api.installed.datasets["sizes-1h"].model.__table__
    with database.begin() as connection:
        for start in range(0, rows, 10_000):
            sizes = range(start, min(rows, start + 10_000))
            connection.execute(insert(table), [columns | {"size": size} for size in sizes])
        revision = {"ident": "sizes-1h", "revision": 1, "changed_at": NOON}
        connection.execute(insert(tables.revision).values(revision))
    database.dispose()


@pytest.mark.parametrize("ident", ["sizes-1h", "latest-sizes", "log"])
def test_an_export_has_what_the_pages_have(api: Served, ident: str) -> None:
    pairs = [(word, n) for n in range(20) for word in ("a", 'odd, "one"\n')]
    api.count(*(things(*pairs, at=NOON + h * 3600 + 0.25) for h in range(4)))
    for query in ("", "&order=asc", "&start=2023-11-15T14:00", "&limit=7", "&limit=0"):
        pages = walk(api.client, f"/api/{ident}?rows_per_page=9{query}")
        rows = [row for answer in pages for row in answer.json]
        answer = api.client.get(f"/api/{ident}?format=ndjson&rows_per_page=all{query}")
        assert answer.content_type == "application/x-ndjson"
        assert [orjson.loads(line) for line in answer.data.splitlines()] == rows
        answer = api.client.get(f"/api/{ident}?rows_per_page=all{query}&format=csv")
        assert answer.mimetype == "text/csv"
        read = csv.reader(io.StringIO(answer.get_data(as_text=True), newline=""))
        names = list(api.installed.datasets[ident].model.served_columns())
        texts = [["" if row[name] is None else str(row[name]) for name in names] for row in rows]
        assert list(read) == [names, *texts]


def test_exports_take_columns_and_filters(api: Served) -> None:
    api.count(things(("a", 1), ("b", 2)), things(("a", 3), at=NOON + 3600))
    address = "/api/sizes-1h?rows_per_page=all&thing=a&select=size,thing"
    answer = api.client.get(f"{address}&format=csv")
    assert answer.get_data(as_text=True) == "size,thing\r\n3,a\r\n1,a\r\n"
    answer = api.client.get(f"{address}&format=ndjson")
    assert answer.get_data(as_text=True) == '{"size":3,"thing":"a"}\n{"size":1,"thing":"a"}\n'


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_large_export_needs_the_memory_of_a_small_one(api: Served, form: str) -> None:
    peaks = []
    for rows in (5_000, 30_000):
        # The first run is not measured: it imports and prepares.
        with Database(api.uri).begin() as connection:
            connection.execute(text("DELETE FROM sizes_1h"))
            connection.execute(text("DELETE FROM statscache_revision"))
        fill(api, rows)
        for measured in (False, True):
            if measured:
                tracemalloc.start()
            address = f"/api/sizes-1h?format={form}&rows_per_page=all"
            answer = api.client.get(address, buffered=False)
            lines = sum(chunk.count(b"\n") for chunk in answer.response)
            answer.close()
            assert lines == rows + (form == "csv")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_an_export_is_of_one_moment(api: Served) -> None:
    fill(api, 7_000)
    answer = api.client.get("/api/sizes-1h?format=ndjson&rows_per_page=all", buffered=False)
    chunks = iter(answer.response)
    first = next(chunks)
    with Database(api.uri).begin() as connection:
        connection.execute(text("DELETE FROM sizes_1h"))
    whole = first + b"".join(chunks)
    answer.close()
    assert whole.count(b"\n") == 7_000


def test_few_exports_run_at_a_time(api: Served) -> None:
    fill(api, 10)
    address = "/api/sizes-1h?format=ndjson&rows_per_page=all"
    running = [api.client.get(address, buffered=False) for _ in range(export.MOST_AT_A_TIME)]
    refused = api.client.get(address)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.content_type == "application/problem+json"
    # Pages are not concerned, and who only asks for the headers takes no room.
    assert api.client.get("/api/sizes-1h").status_code == 200
    running.pop().close()
    for _ in range(3):
        head = api.client.head(address)
        assert (head.status_code, head.data) == (200, b"")
        assert "Content-Length" not in head.headers
    assert api.client.get(address).data.count(b"\n") == 10
    for answer in running:
        answer.close()


def test_an_export_that_takes_too_long_is_broken_off(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(api, 10_000)
    monkeypatch.setattr(export, "LONGEST_SECONDS", -1.0)
    answer = api.client.get("/api/sizes-1h?format=csv&rows_per_page=all", buffered=False)
    with pytest.raises(TimeoutError):
        list(answer.response)
    answer.close()
    monkeypatch.undo()
    assert api.client.get("/api/sizes-1h?format=csv&rows_per_page=all").status_code == 200


def test_exports_are_compressed_and_validated(api: Served) -> None:
    fill(api, 5_000)
    address = "/api/sizes-1h?format=csv&rows_per_page=all"
    plain = api.client.get(address)
    zipped = api.client.get(address, headers={"Accept-Encoding": "gzip"})
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert len(zipped.data) < len(plain.data) / 4
    assert gzip.decompress(zipped.data) == plain.data
    again = {"If-None-Match": plain.headers["ETag"]}
    with api.statements() as made:
        assert api.client.get(address, headers=again).status_code == 304
    assert not [statement for statement, _ in made if "sizes_1h" in statement]


def test_what_cannot_be_one_answer(api: Served) -> None:
    for address, parameter in (
        ("/api/sizes-1h?rows_per_page=all", "rows_per_page"),
        ("/api/sizes-1h?rows_per_page=all&format=json", "rows_per_page"),
        ("/api/sizes-1h?rows_per_page=All&format=csv", "rows_per_page"),
        ("/api/sizes-1h?rows_per_page=all&format=csv&page=2", "page"),
        ("/api/sizes-1h?rows_per_page=all&format=csv&cursor=x", "cursor"),
    ):
        answer = api.client.get(address)
        assert answer.status_code == 400
        assert answer.get_json(force=True)["parameter"] == parameter


def test_a_table_that_is_not_there_yet(api: Served) -> None:
    with Database(api.uri).begin() as connection:
        connection.execute(text("DROP TABLE sizes_1h"))
    address = "/api/sizes-1h?rows_per_page=all"
    assert api.client.get(f"{address}&format=ndjson").data == b""
    header: Any = api.client.get(f"{address}&format=csv").data
    assert header == b"timestamp,thing,size,volume\r\n"
