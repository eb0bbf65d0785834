"""Parse a row of an archive: the shapes in which archives have a message become one."""

from __future__ import annotations

import contextlib
from typing import Any

from dateutil import parser

from statscache.errors import InvalidMessage
from statscache.message import Message
from statscache.times import unix_seconds

MICROSECONDS = 1_000_000
"""In a second: archives have their times in them."""


def message_of(row: Any) -> Message:
    """Returns the message of a row that is shaped as fedmsg's, or as fedora-messaging's.

    The latter has ``id``, ``topic``, ``body``, ``headers`` and ``sent_at`` (ISO 8601, UTC where
    it names no zone).

    Raises:
        InvalidMessage: it is neither.
    """
    if isinstance(row, dict) and "body" in row and "msg" not in row:
        row = _as_fedmsg(row)
    return Message.from_fedmsg(row)


def key_of(row: Any) -> tuple[str, int | None]:
    """Returns what is unique in the archive, whichever shape a row has: its id, and its time.

    The time is in UNIX microseconds, and None where the row has none. Where it has no id, the
    text of the row stands for one.
    """
    ident = when = None
    if isinstance(row, dict):
        ident = row.get("id", row.get("msg_id"))
        with contextlib.suppress(InvalidMessage, TypeError, ValueError, OverflowError):
            seconds: Any = _timestamp(row) if "body" in row else row.get("timestamp")
            when = round(seconds * MICROSECONDS)
    return (repr(row) if ident is None or when is None else str(ident)), when


def _as_fedmsg(row: dict[str, Any]) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "topic": row.get("topic"),
        "timestamp": _timestamp(row),
        "msg": row["body"],
    }
    ident = row.get("id", row.get("msg_id"))
    if ident:
        raw["msg_id"] = ident
    headers = row.get("headers")
    if isinstance(headers, dict):
        raw["headers"] = headers
    return raw


def _timestamp(row: dict[str, Any]) -> Any:
    headers = row.get("headers")
    sent = row.get("sent_at", row.get("sent-at"))
    if sent is None and isinstance(headers, dict):
        sent = headers.get("sent-at")
    if sent is None or isinstance(sent, int | float):
        return row.get("timestamp", sent)
    try:
        moment = parser.isoparse(str(sent))
    except (ValueError, OverflowError):
        raise InvalidMessage(f"sent_at is not a time: {sent!r:.80}") from None
    return unix_seconds(moment)
