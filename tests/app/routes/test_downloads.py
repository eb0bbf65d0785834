"""All rows in one answer: the same as page by page, in the memory of a few, and few at a time."""

from __future__ import annotations

import csv
import gzip
import io
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy import insert, text

from statscache.app.routes import downloads
from statscache.database import tables
from statscache.database.connection import Database
from statscache.database.schema import create_missing
from statscache.plugins import BaseModel
from statscache.plugins.installed import discovery
from tests.support.api_fixture import ApiFixture, Log, api_fixture, links, things, walk
from tests.support.messages import NOON
from tests.support.servers import Server


@pytest.fixture
def api(migrated_uri: str) -> Iterator[ApiFixture]:
    with api_fixture(migrated_uri) as found:
        yield found


def fill(api: ApiFixture, rows: int) -> None:
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
def test_an_export_has_what_the_pages_have(api: ApiFixture, ident: str) -> None:
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


def test_exports_take_columns_and_filters(api: ApiFixture) -> None:
    api.count(things(("a", 1), ("b", 2)), things(("a", 3), at=NOON + 3600))
    address = "/api/sizes-1h?rows_per_page=all&thing=a&select=size,thing"
    answer = api.client.get(f"{address}&format=csv")
    assert answer.get_data(as_text=True) == "size,thing\r\n3,a\r\n1,a\r\n"
    answer = api.client.get(f"{address}&format=ndjson")
    assert answer.get_data(as_text=True) == '{"size":3,"thing":"a"}\n{"size":1,"thing":"a"}\n'


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_large_export_needs_the_memory_of_a_small_one(api: ApiFixture, form: str) -> None:
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


def test_an_export_is_of_one_moment(api: ApiFixture) -> None:
    fill(api, 7_000)
    answer = api.client.get("/api/sizes-1h?format=ndjson&rows_per_page=all", buffered=False)
    chunks = iter(answer.response)
    first = next(chunks)
    with Database(api.uri).begin() as connection:
        connection.execute(text("DELETE FROM sizes_1h"))
    whole = first + b"".join(chunks)
    answer.close()
    assert whole.count(b"\n") == 7_000


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_download_is_all_that_is_asked_for(api: ApiFixture, form: str) -> None:
    fill(api, 5_000)
    header = int(form == "csv")
    for query, rows in (
        ("", 5_000),
        ("&limit=4321", 4_321),
        ("&limit=150", 150),
        ("&limit=9999", 5_000),
        ("&thing=a&not_size=7&start=2023-11-15", 4_999),
        ("&start=2023-11-16", 0),
        ("&rows_per_page=150", 150),
        ("&rows_per_page=4321", 4_321),
        ("&rows_per_page=5000", 5_000),
        ("&rows_per_page=4000&page=2", 1_000),
        ("&rows_per_page=30", 30),
        ("&rows_per_page=3000&limit=2500", 2_500),
        ("&page=3", 100),
    ):
        answer = api.client.get(f"/api/sizes-1h?format={form}{query}")
        assert answer.data.count(b"\n") == rows + header, query
        pages = "rows_per_page" in query or "page" in query
        assert pages or answer.headers["X-Link-Count"] == "1"
        is_all = not pages or rows in (1_000, 2_500, 5_000)
        assert ("next" in links(answer)) == (not is_all), query


def test_large_pages_of_downloads_follow_each_other(api: ApiFixture) -> None:
    fill(api, 7_000)
    for query in ("", "&order=asc", "&limit=6000"):
        whole = api.client.get(f"/api/sizes-1h?format=ndjson{query}").data
        pages = list(walk(api.client, f"/api/sizes-1h?format=ndjson&rows_per_page=2500{query}"))
        assert [answer.headers["X-Link-Number"] for answer in pages] == ["1", "2", "3"]
        assert b"".join(answer.data for answer in pages) == whole


def test_json_has_a_maximum_and_says_when_it_cuts(api: ApiFixture) -> None:
    fill(api, 250)
    for query, rows, is_cut in (
        ("", 100, True),
        ("?limit=1000", 100, True),
        ("?rows_per_page=1000", 100, True),
        ("?page=3", 50, False),
        ("?limit=100", 100, False),
        ("?thing=a&size=1", 1, False),
    ):
        for address in (f"/api/sizes-1h{query}", f"/api/sizes-1h{query or '?'}&callback=f"):
            answer = api.client.get(address)
            assert answer.data.count(b'"size":') == rows
            assert answer.headers.get("X-Maximum-Rows-Per-Page") == ("100" if is_cut else None)
            assert ("next" in links(answer)) == is_cut
            assert "X-Maximum-Rows-Per-Page" in answer.headers["Access-Control-Expose-Headers"]


def test_a_small_download_is_kept(api: ApiFixture) -> None:
    fill(api, 1_500)
    first = api.client.get("/api/sizes-1h?format=csv")
    assert int(first.headers["Content-Length"]) == len(first.data)
    with api.statements() as made:
        assert api.client.get("/api/sizes-1h?format=csv").data == first.data
        assert api.client.head("/api/sizes-1h?format=csv").headers["ETag"] == first.headers["ETag"]
    assert not [statement for statement, _ in made if "sizes_1h" in statement]


class OwnModel(BaseModel):
    __tablename__ = "export_own"

    number: Any = sa.Column(sa.Integer, nullable=False)

    @classmethod
    def to_csv(cls, rows: Any) -> str:
        """A header, and the rows, without an end of the last line."""
        return "\n".join(["no."] + [f"#{row.number}" for row in rows])


class SameModel(BaseModel):
    __tablename__ = "export_same"

    number: Any = sa.Column(sa.Integer, nullable=False)

    @classmethod
    def to_csv(cls, rows: Any) -> str:
        return "no.\n" + "\n".join(f"#{row.number}" for row in rows)


@pytest.mark.parametrize("model", [OwnModel, SameModel])
def test_a_download_that_an_author_writes(migrated_uri: str, model: Any) -> None:
    class Own(Log):
        name = "own"

    Own.model = model
    with api_fixture(migrated_uri, Own) as api:
        for rows in (0, 1, 4_500):
            database = Database(api.uri)
            with database.begin() as connection:
                connection.execute(text(f"DELETE FROM {model.__tablename__}"))
                when = datetime(2023, 11, 15)
                new = [{"timestamp": when, "number": number} for number in range(rows)]
                if new:
                    connection.execute(insert(model), new)
            database.dispose()
            found = api.client.get("/api/own?format=csv&order=asc").text
            assert found.split() == ["no.", *(f"#{number}" for number in range(rows))]


def test_a_page_downloads_several_files_at_once(api: ApiFixture) -> None:
    fill(api, 5_000)
    api.app.extensions["statscache"].runs_in(16)
    address = "/api/sizes-1h?format=csv"
    running = [api.client.get(address, buffered=False) for _ in range(7)]
    assert [answer.status_code for answer in running] == [200] * 6 + [429]
    for answer in running[:6]:
        assert b"".join(answer.response).count(b"\n") == 5_001
        answer.close()


@pytest.mark.long
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_server_sends_several_downloads_at_once(migrated_uri: str, tmp_path: Path) -> None:
    # More than the buffers between hold while the client does not read.
    rows = """
        WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 599999)
        INSERT INTO volume_by_user_1h (timestamp, "user", volume)
        SELECT 1700049600, 'somebody with a name of some length ' || i, 1 FROM n
    """
    with Server("serve", tmp_path, migrated_uri, config={}) as server, ExitStack() as stack:
        with Database(migrated_uri).begin() as connection:
            found = discovery.discover({}).datasets["volume-by-user-1h"]
            create_missing(connection, [found.model.__table__])
            connection.execute(text(rows))
        running = [stack.enter_context(closing(server.connect())) for _ in range(7)]
        answers = []
        for connection in running:
            connection.request("GET", "/api/volume-by-user-1h?format=csv")
            answers.append(connection.getresponse())
        assert [answer.status for answer in answers] == [200] * 6 + [429]


@pytest.mark.parametrize(
    ("threads", "most"), [(1, 3), (4, 3), (8, 3), (16, 6), (24, 9), (100, 10), (None, 10)]
)
def test_how_many_downloads_suit_a_server(threads: int | None, most: int) -> None:
    exports = downloads.Downloads()
    assert exports.maximum == 3
    exports.leave_threads(threads)
    assert exports.maximum == most


def test_few_exports_run_at_a_time(api: ApiFixture) -> None:
    fill(api, 5_000)
    address = "/api/sizes-1h?format=ndjson"
    running = [api.client.get(address, buffered=False) for _ in range(downloads.FEWEST_AT_A_TIME)]
    assert [answer.status_code for answer in running] == [200] * 3
    refused = api.client.get(address)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.content_type == "application/problem+json"
    # Neither pages nor few rows are concerned, and who only asks for the headers takes no room.
    assert api.client.get("/api/sizes-1h").status_code == 200
    assert api.client.get(f"{address}&limit=1000").data.count(b"\n") == 1_000
    running.pop().close()
    for _ in range(3):
        head = api.client.head(address)
        assert (head.status_code, head.data) == (200, b"")
        assert "Content-Length" not in head.headers
    assert api.client.get(address).data.count(b"\n") == 5_000
    for answer in running:
        answer.close()


def test_exports_are_compressed_and_validated(api: ApiFixture) -> None:
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


def test_what_cannot_be_one_answer(api: ApiFixture) -> None:
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


def test_a_table_that_is_not_there_yet(api: ApiFixture) -> None:
    with Database(api.uri).begin() as connection:
        connection.execute(text("DROP TABLE sizes_1h"))
    address = "/api/sizes-1h?rows_per_page=all"
    assert api.client.get(f"{address}&format=ndjson").data == b""
    header: Any = api.client.get(f"{address}&format=csv").data
    assert header == b"timestamp,thing,size,volume\r\n"
