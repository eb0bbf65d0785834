"""Realistic messages: the real ones of the demonstration, over and over, at the bus's density."""

from __future__ import annotations

import json
import random
import uuid

from statscache.demo import sample_messages

START = 1_700_000_000.0
PER_SECOND = 5.0
"""About what Fedora's bus carries in a busy hour."""


def texts(count: int, seed: int = 0) -> list[bytes]:
    """``count`` messages as JSON texts, with ids of their own, one after the other in time."""
    generator = random.Random(seed)
    samples = sample_messages()
    found = []
    for number in range(count):
        raw = dict(generator.choice(samples))
        raw["timestamp"] = START + number / PER_SECOND
        raw["msg_id"] = f"2023-{uuid.UUID(int=generator.getrandbits(128))}"
        found.append(json.dumps(raw).encode())
    return found
