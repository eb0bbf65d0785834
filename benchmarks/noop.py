"""A consumer that does nothing: the floor of everything that runs in the hub."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import fedmsg.consumers

EXPECTED = "STATSCACHE_BENCH_MESSAGES"
RESULT = "STATSCACHE_BENCH_RESULT"
"""Environment variables: how many messages will come, and the file for the time of the last."""


class NoopConsumer(fedmsg.consumers.FedmsgConsumer):
    """Counts in memory, and writes down when the last message came."""

    topic = "*"
    config_key = "statscache.bench.noop"

    def __init__(self, hub: Any) -> None:
        super().__init__(hub)
        self.remaining = int(os.environ[EXPECTED])

    def consume(self, message: Any) -> None:
        """Nothing, but for the last."""
        self.remaining -= 1
        if not self.remaining:
            Path(os.environ[RESULT]).write_text(str(time.time()))
