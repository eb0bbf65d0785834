"""An endless stream of messages with the contents of real ones."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime
from typing import Any

from tests.support.messages import bus_messages


class Stream:
    """Yields fedmsg's dicts; the same ones for the same seed and times.

    Args:
        seed: of what is random.
        without_id: the share of messages, 0 to 1, that have no id.
    """

    def __init__(self, seed: int = 0, without_id: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._without_id = without_id
        self._samples = bus_messages()
        self._number = 0

    def message(self, timestamp: float) -> dict[str, Any]:
        """The next one, sent at a time in UNIX seconds."""
        sample = self._samples[self._random.randrange(len(self._samples))]
        self._number += 1
        raw: dict[str, Any] = sample | {"timestamp": round(timestamp, 6), "i": self._number}
        if self._random.random() < self._without_id and isinstance(raw.get("msg"), dict):
            # Two that are the same in all that counts would be one.
            raw["msg"] = raw["msg"] | {"number": self._number}
            raw.pop("msg_id", None)
        else:
            ident = uuid.UUID(int=self._random.getrandbits(128), version=4)
            raw["msg_id"] = f"{datetime.fromtimestamp(timestamp, UTC).year}-{ident}"
        return raw
