"""What a route says, before it is written in a format."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Links = tuple[tuple[str, tuple[tuple[str, str | None], ...]], ...]
"""Relation to what differs in the query there; None is left out."""


class Lifetime(enum.Enum):
    """How long others may keep an answer without asking again."""

    OPEN = "it may change with the next message: seconds, by the resolution"
    RECONCILED = "its range agrees with the archive, and only very late messages change it: an hour"
    STATIC = "it changes with an upgrade only: five minutes"
    NONE = "it must not be kept"


@dataclass(frozen=True)
class Table:
    """Rows for CSV and newline-delimited JSON; ``rows`` are tuples in the order of ``columns``."""

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]


@dataclass
class Answer:
    """What a route says. One of ``value``, ``table``, ``body`` and ``chunks`` is enough.

    Attributes:
        value: for JSON; times are UNIX seconds.
        table: for CSV and NDJSON, and for JSON where there is no ``value``: an array of objects.
        body: finished, in the format that was asked for.
        chunks: the finished body, piece by piece: it is not kept, and the transaction of the call
            stays open until the last piece is sent.
        headers: more headers.
        links: of the header ``Link``: relation to the parameters of the query that differ from the
            present ones there, None for those to be left out.
        lifetime: how long others may keep it.
        status: of HTTP.
        content_type: where it is not that of the format.
    """

    value: Any = None
    table: Table | None = None
    body: str | bytes | None = None
    chunks: Iterator[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    links: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    lifetime: Lifetime = Lifetime.OPEN
    status: int = 200
    content_type: str | None = None
