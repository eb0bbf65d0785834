"""Cursors: where a page of rows ended, by the keys of its last row.

A page that begins there costs the same at any depth, and no row is skipped or doubled while others
arrive. A cursor is opaque; one that was not made here, for this ident and order, is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from statscache.app.state.row_reader import Position

LONGEST = 4_000
"""Characters; a cursor is longer than the key of its row by a third."""

_DIGEST_BYTES = 6
_LARGEST_INTEGER = 2**63 - 1


def write(position: Position, ident: str, order: str) -> str | None:
    """Returns the cursor; None where a key has a type that cursors cannot hold."""
    keys = [[key.isoformat()] if isinstance(key, datetime) else key for key in position.keys]
    if not all(isinstance(key, int | float | str | list) for key in keys):
        return None
    content = orjson.dumps([position.seen, *keys])
    text = base64.urlsafe_b64encode(_digest(content, ident, order) + content).rstrip(b"=").decode()
    return text if len(text) <= LONGEST else None


def read(text: str, ident: str, order: str, types: Sequence[type]) -> Position:
    """Returns the position that a cursor stands for.

    Args:
        types: of the keys.

    Raises:
        ValueError: it is no cursor of this ident and order.
    """
    try:
        octets = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is no cursor") from None
    digest, content = octets[:_DIGEST_BYTES], octets[_DIGEST_BYTES:]
    if digest != _digest(content, ident, order):
        raise ValueError("is no cursor, or one of another ident or order")
    values = orjson.loads(content)
    if not isinstance(values, list) or len(values) != len(types) + 1 or not _is_count(values[0]):
        raise ValueError("is no cursor of this version")
    keys = [_key(value, type_) for value, type_ in zip(values[1:], types, strict=True)]
    return Position(values[0], tuple(keys))


def _digest(content: bytes, ident: str, order: str) -> bytes:
    return hashlib.blake2b(
        content, digest_size=_DIGEST_BYTES, key=f"{order} {ident}".encode()[:64]
    ).digest()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_INTEGER


def _key(value: Any, type_: type) -> Any:
    if type_ is datetime and isinstance(value, list) and len(value) == 1 and type(value[0]) is str:
        moment = datetime.fromisoformat(value[0])
        # Cursors have times of UTC only; not all databases know other offsets.
        if not moment.utcoffset():
            return moment
    is_number = type(value) in (int, float) and math.isfinite(value)
    if type_ is float and is_number:
        return value
    if type_ is int and type(value) is int and abs(value) <= _LARGEST_INTEGER:
        return value
    if type_ is str and isinstance(value, str) and "\0" not in value:
        return value
    raise ValueError("is no cursor of this version")
