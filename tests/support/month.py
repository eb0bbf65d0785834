"""A month of messages, made of the real ones: what rebuilds are compared with."""

from __future__ import annotations

import gzip
import json
import random
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard

from tests.support.messages import bus_messages

EPOCH = datetime(2023, 11, 1, tzinfo=UTC)
STOP = datetime(2023, 12, 1, tzinfo=UTC)


def make_month(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Messages of November 2023, in an order by chance; every ninth came without an id."""
    chance = random.Random(seed)
    originals = bus_messages()
    messages = []
    for number in range(count):
        raw = dict(originals[number % len(originals)])
        raw["timestamp"] = chance.randrange(int(EPOCH.timestamp()), int(STOP.timestamp()))
        raw["msg_id"] = f"2023-{uuid.UUID(int=chance.getrandbits(128), version=4)}"
        if number % 9 == 0:
            del raw["msg_id"]
        messages.append(raw)
    return messages


MONTH = make_month(900)


def write_month(folder: Path, messages: list[dict[str, Any]], seed: int) -> None:
    """Write files that have each message at least once, in an order of their own."""
    chance = random.Random(seed)
    folder.mkdir()
    for number in range(3):
        # All of them, and again some of them, and in the last file some of them twice.
        size = len(messages) if number == 0 else chance.randrange(1, len(messages))
        some = chance.sample(messages, size) * (2 if number == 2 else 1)
        chance.shuffle(some)
        content = "".join(json.dumps(raw) + "\n" for raw in some).encode()
        path = folder / f"{chance.randrange(10**6)}.jsonl"
        if number == 1:
            path.with_suffix(".gz").write_bytes(gzip.compress(content))
        elif number == 2:
            path.with_suffix(".zst").write_bytes(zstandard.compress(content))
        else:
            path.write_bytes(content)
