"""Messages, real ones and made ones."""

from __future__ import annotations

import json
import uuid
from typing import Any

from statscache.message import Message
from tests.support.paths import BUS_MESSAGES

NOON = 1_700_049_600.0
"""2023-11-15 12:00 UTC."""


def message(
    topic: str = "org.fedoraproject.prod.git.receive",
    timestamp: float = NOON,
    msg: Any = None,
    **more: Any,
) -> Message:
    """A message with an id of its own, unless another one (or None) is given."""
    raw = {"topic": topic, "timestamp": timestamp, "msg": {} if msg is None else msg}
    raw |= {"msg_id": f"2023-{uuid.uuid4()}"} | more
    if raw["msg_id"] is None:
        del raw["msg_id"]
    return Message.from_fedmsg(raw)


def bus_messages() -> list[dict[str, Any]]:
    """fedmsg's dicts of real messages; tests/data/README.rst says where they come from."""
    return [json.loads(line) for line in BUS_MESSAGES.read_text().splitlines()]
