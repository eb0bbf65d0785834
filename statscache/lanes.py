"""Lanes: sets of plugins that share a checkpoint, and which messages each has counted."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, select, update

from statscache import tables
from statscache.message import Message
from statscache.upsert import Upsert

MAIN = "main"
"""The lane of all the plugins that have seen everything that the others have."""

_IDS_PER_QUERY = 10_000


@dataclass(frozen=True)
class Lane:
    """A lane, by which claims and checkpoints are kept apart."""

    id: int
    name: str


class Lanes:
    """Claims messages for lanes and moves their checkpoints, inside the engine's transaction."""

    def __init__(self, backend: str) -> None:
        self._insert = Upsert(tables.claim, backend, {})

    def open(self, connection: Connection, name: str) -> Lane:
        """The lane of this name; made when there is none yet."""
        lane = tables.lane
        query = select(lane.c.id, lane.c.name).where(lane.c.name == name)
        row = connection.execute(query).one_or_none()
        if row is None:
            number = len(connection.execute(select(lane.c.id)).all()) + 1
            connection.execute(lane.insert().values(id=number, name=name, messages=0, batches=0))
            return Lane(number, name)
        return Lane(*row)

    def claim(
        self, connection: Connection, lane: Lane, messages: Sequence[Message]
    ) -> list[Message]:
        """Those of ``messages`` that the lane has not counted before, each once.

        From then on they are claimed, if the transaction is committed. Of several copies the
        first one stands. Two processes that claim the same message at the same time wait for
        each other, and one of them gets it.
        """
        first_copies: dict[bytes, Message] = {}
        for message in messages:
            first_copies.setdefault(claim_digest(message.identity), message)
        # Names this claim, so that what it got can be told from what others had before.
        batch = secrets.randbits(62)
        rows = [
            (lane.id, digest, message.timestamp, batch)
            for digest, message in sorted(first_copies.items())
        ]
        if self._insert.run(connection, rows) == len(rows):
            return list(first_copies.values())
        claimed = self._claimed_by(connection, lane, batch, list(first_copies))
        return [message for digest, message in first_copies.items() if digest in claimed]

    def _claimed_by(
        self, connection: Connection, lane: Lane, batch: int, digests: list[bytes]
    ) -> set[bytes]:
        claim = tables.claim
        claimed: set[bytes] = set()
        for first in range(0, len(digests), _IDS_PER_QUERY):
            query = select(claim.c.identity).where(
                claim.c.lane == lane.id,
                claim.c.identity.in_(digests[first : first + _IDS_PER_QUERY]),
                claim.c.batch == batch,
            )
            claimed.update(bytes(digest) for digest in connection.scalars(query))
        return claimed

    def advance(self, connection: Connection, lane: Lane, counted: Sequence[Message]) -> None:
        """Move the checkpoint of the lane past the messages that were just counted."""
        lane_row = tables.lane.c
        values: dict[str, Any] = {
            "messages": lane_row.messages + len(counted),
            "batches": lane_row.batches + 1,
            "committed_at": time.time(),
        }
        if counted:
            newest = max(message.timestamp for message in counted)
            values["newest"] = case((lane_row.newest > newest, lane_row.newest), else_=newest)
        connection.execute(update(tables.lane).where(lane_row.id == lane.id).values(values))


def claim_digest(identity: str) -> bytes:
    """The 16 bytes under which a message is claimed."""
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).digest()
