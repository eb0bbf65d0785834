"""Cursors: the same cost at any depth, and no row skipped or doubled while rows arrive."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from statscache.app.http import cursors
from statscache.app.http.cursors import Position
from statscache.app.state import row_reader
from statscache.database.connection import Database
from tests.support.api_fixture import ApiFixture, api_fixture, links, things, walk
from tests.support.messages import NOON

KEYS = {"sizes-1h": ("timestamp", "thing", "size"), "log": ("timestamp", "category", "detail")}


@pytest.fixture
def api(migrated_uri: str) -> Iterator[ApiFixture]:
    with api_fixture(migrated_uri, maximum_rows_per_page=10_000) as found:
        yield found


def fill(api: ApiFixture, hours: int = 6) -> None:
    api.count(
        *(things(*(("abc"[n % 3], n) for n in range(5)), at=NOON + h * 3600) for h in range(hours))
    )


def rows_of(answers: Any, ident: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in KEYS[ident]) for answer in answers for row in answer.json]


@pytest.mark.parametrize("ident", KEYS)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_links_lead_through_all_rows(api: ApiFixture, ident: str, order: str) -> None:
    fill(api)
    whole = rows_of([api.client.get(f"/api/{ident}?order={order}&rows_per_page=1000")], ident)
    assert len(whole) == 30
    for size in (1, 4, 7, 30):
        answers = list(walk(api.client, f"/api/{ident}?order={order}&rows_per_page={size}"))
        assert rows_of(answers, ident) == whole
        numbers = [int(answer.headers["X-Link-Number"]) for answer in answers]
        assert numbers == list(range(1, len(answers) + 1))
        counts = {int(answer.headers["X-Link-Count"]) for answer in answers}
        assert counts == {len(answers)} == {-(-30 // size)}


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_no_row_is_skipped_or_doubled_while_rows_arrive(api: ApiFixture, order: str) -> None:
    dice = random.Random(5)
    fill(api)
    before = set(rows_of([api.client.get("/api/sizes-1h?rows_per_page=1000")], "sizes-1h"))
    seen: list[tuple[Any, ...]] = []
    for answer in walk(api.client, f"/api/sizes-1h?order={order}&rows_per_page=4"):
        seen += rows_of([answer], "sizes-1h")
        # In front of what was read, behind it, and in the midst of it.
        hours = [dice.randrange(-3, 9) for _ in range(3)]
        api.count(*(things(("new", dice.randrange(10**6)), at=NOON + h * 3600) for h in hours))
        if len(seen) > 200:
            break
    assert len(seen) == len(set(seen))
    assert before <= set(seen)
    assert seen == sorted(seen, reverse=order == "desc")


def test_filters_ranges_limits_and_columns_are_kept(api: ApiFixture) -> None:
    fill(api)
    address = "/api/sizes-1h?thing=a&not_size=0&limit=5&rows_per_page=2&start=2023-11-15T13"
    address += ":00&select=timestamp,size&_=99"
    answers = list(walk(api.client, address))
    rows = [row for answer in answers for row in answer.json]
    assert rows == [{"timestamp": NOON + h * 3600, "size": 3} for h in (5, 4, 3, 2, 1)]
    assert {answer.headers["X-Link-Count"] for answer in answers} == {"3"}
    assert "_=" not in links(answers[0])["next"]


def test_a_page_by_cursor_leads_back_by_number(api: ApiFixture) -> None:
    fill(api)
    answers = list(walk(api.client, "/api/sizes-1h?rows_per_page=4"))
    back = api.client.get(links(answers[3])["previous"])
    assert back.json == answers[2].json
    assert back.headers["X-Link-Number"] == "3"
    assert "previous" not in links(answers[0])
    assert "next" not in links(answers[-1])


def test_csv_and_ndjson_have_cursors_too(api: ApiFixture) -> None:
    fill(api, 2)
    for form, heads in (("csv", 1), ("ndjson", 0)):
        found: list[str] = []
        for answer in walk(api.client, f"/api/sizes-1h?format={form}&rows_per_page=3"):
            found += answer.get_data(as_text=True).splitlines()[heads:]
        whole = api.client.get(f"/api/sizes-1h?format={form}&rows_per_page=1000")
        assert found == whole.get_data(as_text=True).splitlines()[heads:]


def test_what_is_no_cursor_is_refused(api: ApiFixture) -> None:
    fill(api)
    cursor = links(api.client.get("/api/sizes-1h?rows_per_page=4"))["next"].split("cursor=")[1]
    octets = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    forged = [
        octets[:6] + orjson.dumps([4, NOON, "a", 0]),
        octets[:-1],
        octets[:6],
        b"",
        b"\xff" * 40,
    ]
    texts = [base64.urlsafe_b64encode(piece).decode().rstrip("=") for piece in forged]
    texts += [
        "x",
        "%20",
        "%F0%9F%90%9F",
        cursor[:-1],
        cursor + "AAAA",
        "A" * 2_000,
        "*",
        cursor[1:],
    ]
    addresses = [f"/api/sizes-1h?rows_per_page=4&cursor={text}" for text in texts]
    addresses += [
        f"/api/sizes-1h?cursor={cursor}&order=asc",
        f"/api/latest-sizes?cursor={cursor}",
        f"/api/sizes-1h?cursor={cursor}&page=2",
    ]
    for address in addresses:
        answer = api.client.get(address)
        assert answer.status_code == 400, address
        problem = answer.get_json(force=True)
        assert problem["parameter"] == "cursor"
        assert "Link" in problem["detail"] or "page" in problem["detail"]
    assert api.client.get(f"/api/sizes-1h?cursor={cursor}").status_code == 200


def test_pages_are_numbered_up_to_a_bound(api: ApiFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "MOST_NUMBERED_ROWS", 20)
    monkeypatch.setattr("statscache.app.routes.rows.MOST_NUMBERED_ROWS", 20)
    fill(api)
    answer = api.client.get("/api/sizes-1h?rows_per_page=4&page=5")
    assert answer.headers["X-Link-Count"] == "5"
    assert len(answer.json) == 4
    # Cursors go on where numbers end.
    answers = list(walk(api.client, "/api/sizes-1h?rows_per_page=4"))
    assert len(answers) == 8
    assert "previous" not in links(answers[-1])
    beyond = api.client.get("/api/sizes-1h?rows_per_page=4&page=6")
    assert beyond.status_code == 400
    problem = beyond.get_json(force=True)
    assert problem["parameter"] == "page"
    assert 'rel="next"' in problem["detail"]
    # A filter that leaves less than that has all its pages.
    answer = api.client.get("/api/sizes-1h?rows_per_page=4&thing=a&page=9")
    assert (answer.status_code, answer.json) == (200, [])
    assert answer.headers["X-Link-Count"] == "3"


TABLES = {"sizes-1h": "sizes_1h", "latest-sizes": "latest_sizes", "log": "served_log"}


@pytest.mark.parametrize("ident", TABLES)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_cursors_are_read_from_an_index(api: ApiFixture, ident: str, order: str) -> None:
    """Neither a scan nor a sort of the table, whose size must not matter."""
    fill(api, 50)
    address = f"/api/{ident}?order={order}&rows_per_page=2"
    following = links(api.client.get(address))["next"]
    table = TABLES[ident]
    with api.statements() as made:
        assert api.client.get(following).status_code == 200
    ((statement, parameters),) = [
        each for each in made if f"FROM {table}" in each[0] and "count(" not in each[0]
    ]
    sqlite = api.uri.startswith("sqlite")
    with Database(api.uri).begin() as connection:
        if not sqlite:
            connection.execute(text(f"ANALYZE {table}"))
            for way in ("seqscan", "bitmapscan", "sort"):
                connection.exec_driver_sql(f"SET enable_{way} = off")
        explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        plan = str(connection.exec_driver_sql(explain + statement, parameters).all())
    assert "TEMP B-TREE" not in plan
    assert "SCAN" not in plan
    assert "Seq Scan" not in plan
    assert sqlite or "Index Cond" in plan
    # Rows of one moment may be sorted (an incremental sort), the table may not.
    assert "->  Sort " not in plan


NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(
    st.integers(0, 2**63 - 1),
    NUMBERS,
    TEXTS,
    st.floats(allow_nan=False, allow_infinity=False),
    st.datetimes(),
)
def test_positions_are_read_back(
    seen: int, number: int, word: str, real: float, moment: datetime
) -> None:
    position = Position(seen, (number, word, real, moment))
    cursor = cursors.write(position, "ident", "desc")
    if cursor is None:
        assert len(word) > 500
        return
    types = (int, str, float, datetime)
    assert cursors.read(cursor, "ident", "desc", types) == position
    for ident, order, kinds in (
        ("other", "desc", types),
        ("ident", "asc", types),
        ("ident", "desc", types[:3]),
        ("ident", "desc", (str, int, float, datetime)),
    ):
        with pytest.raises(ValueError, match="is no cursor"):
            cursors.read(cursor, ident, order, kinds)


@given(st.text(max_size=100))
def test_any_text_is_refused(nonsense: str) -> None:
    with pytest.raises(ValueError, match="is no cursor"):
        cursors.read(nonsense, "ident", "desc", (int, str))
