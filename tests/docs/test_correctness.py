"""The example of late messages in the documents is what the program computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import xor
from pathlib import Path

import pytest
from sqlalchemy import select

from statscache.counting.lanes.digests import claim_digest
from statscache.database import tables
from statscache.database.connection import Database
from statscache.message import Message
from tests.support.documents import cells, document, section
from tests.support.hub_fixture import TODAY, Hits, HubFixture
from tests.support.hub_steps import settle
from tests.support.messages import message

LATE = section("docs/correctness.rst", "Late messages")
EXAMPLES = cells(LATE, "Messages arrive")
START = int(TODAY - 86_400 + 10 * 3600)
"""The quarter of an hour from 10:00 of the example, of a day whose claims are pruned."""

BITS = 8
"""Of a digest, in the document."""


def example(letter: str) -> Message:
    at = START + 60.0 * "abcdef".index(letter)
    return message(timestamp=at, msg={"place": letter}, msg_id=f"2026-{letter}")


def shortened(number: int) -> str:
    return f"{number >> 128 - BITS:0{BITS}b}"


def digest(letter: str) -> int:
    return int.from_bytes(claim_digest(example(letter).identity))


def checksum(letters: str) -> str:
    return shortened(reduce(xor, map(digest, letters), 0))


def places(hub_fixture: HubFixture) -> list[str]:
    return sorted(place for _, place, hits in hub_fixture.rows("hits_1d") for _ in range(hits))


def test_the_digests_and_sums_are_those_of_the_program() -> None:
    digests = dict(cells(LATE, "Message"))
    assert digests == {letter: shortened(digest(letter)) for letter in "abcdef"}
    text = " ".join(document("docs/correctness.rst").astext().split())
    for phrase in (
        f"a ⊕ b ⊕ c ⊕ d = {checksum('abcd')}",
        f"The others, a c d, have the exclusive or {checksum('acd')}",
        f"the rest of the checksum is {checksum('abcd')} ⊕ {checksum('acd')} = {digests['b']}",
        f"(e would be {digests['e']}, and both {checksum('be')})",
        f"The rest of the checksum is {digests['d']}, which neither",
    ):
        assert phrase in text, phrase


@pytest.mark.parametrize("line", EXAMPLES, ids=lambda line: f"{line[0]} of {line[1]}")
def test_late_messages_are_decided_as_in_the_example(
    line: list[str], new_database: Callable[[str], str], tmp_path: Path
) -> None:
    arrive, has, counted, now = (cell.replace(" ", "") for cell in line)
    hub_fixture = HubFixture(new_database("sqlite"), tmp_path / "archive.jsonl")
    engine = hub_fixture.open(Hits)
    settle(engine, hub_fixture.archive([example(each) for each in "abcd"]), START + 7_200.0)
    with Database(hub_fixture.uri).begin() as connection:
        row = connection.execute(select(tables.claim_checksum)).one()
    assert (row.start, row.messages) == (START, 4)
    assert shortened(int.from_bytes(row.checksum)) == checksum("abcd")

    outcome = engine.count([example(each) for each in arrive])
    assert (outcome.counted, outcome.late) == (0, len(arrive))
    settle(engine, hub_fixture.archive([example(each) for each in has]), START + 7_200.0)
    assert places(hub_fixture) == sorted("abcd" + now)
    rejected = len(hub_fixture.rows("statscache_rejected"))
    if counted == "cannotbedecided":
        assert (now, rejected) == ("", len(arrive))
    else:
        assert (sorted(counted + now), rejected) == (sorted(arrive), 0)
    engine.close()
