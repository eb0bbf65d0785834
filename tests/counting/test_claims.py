"""Claims: what a lane has counted, and what the archive has of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from statscache.counting.lanes.claims import claim, claim_folded
from statscache.counting.lanes.digests import claim_digest
from statscache.counting.lanes.lane import Lane
from statscache.database import tables
from statscache.database.connection import Database
from statscache.message import Message
from tests.support.messages import message

LANE = Lane(1, "main")


def without_id(item: Message) -> Message:
    return Message.from_fedmsg({key: v for key, v in item.raw.items() if key != "msg_id"})


def claims(connection: Connection) -> list[tuple[Any, ...]]:
    """Of each claim the number of who made it, and whether it has no id, and is archived."""
    row = tables.claim.c
    query = select(row.batch, row.anonymous, row.archived).order_by(row.timestamp)
    return [tuple(found) for found in connection.execute(query)]


def test_what_the_bus_brought_is_claimed_until_the_archive_has_it(migrated_uri: str) -> None:
    item = message()
    with Database(migrated_uri).begin() as connection:
        claimed = claim(connection, LANE, [item, item])
        assert claimed.messages == [item]
        assert claims(connection) == [(*claimed.batches, 0, 0)]
        later = claim(connection, LANE, [item], [item])
        assert (later.messages, later.archived) == ([], 0)
        assert claims(connection) == [(*claimed.batches, 0, 1)]


def test_a_claim_without_id_is_put_under_the_id_of_the_archive(migrated_uri: str) -> None:
    copy = message()
    with Database(migrated_uri).begin() as connection:
        claimed = claim(connection, LANE, [without_id(copy)], [copy])
        assert len(claimed.messages) == 1
        assert not claimed.archived
        # Of this transaction still: who is quarantined in it is given the message again.
        assert claims(connection) == [(claimed.batches[0], 0, 1)]
        assert claim(connection, LANE, [], [copy]).messages == []


def test_what_was_folded_elsewhere_is_claimed_as_a_whole(migrated_uri: str) -> None:
    items = [message(timestamp=float(second)) for second in range(3)]
    digests = [(claim_digest(item.identity), item.timestamp, True) for item in items]
    with Database(migrated_uri).begin() as connection:
        claim(connection, LANE, items[:1])
        assert claim_folded(connection, LANE, digests, 0.0, 3.0) is None
        assert len(claims(connection)) == 1
        assert claim_folded(connection, LANE, digests[1:], 0.0, 3.0) is not None
        # Of a message without id it cannot be told whether it is among them.
        claim(connection, LANE, [without_id(message(timestamp=4.0))])
        assert claim_folded(connection, LANE, [(b"x" * 16, 5.0, True)], 3.0, 6.0) is None
