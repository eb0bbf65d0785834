"""Compare what was answered, byte for byte but for what a clock that does not stand still says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

Patterns = Sequence[tuple[re.Pattern[str], str]]

NORMALISED: Patterns = (
    # How long the requests took, in /metrics.
    (
        re.compile(r"^(statscache_request_seconds_(?:sum|bucket)\{[^}]*\}) [0-9.e+-]+", re.M),
        r"\1 ...",
    ),
    # When a listener shall come back: chance, so that not all come at once.
    (re.compile(r"^retry: \d+$", re.M), "retry: ..."),
)
"""Pattern of a body, and what is put in its place."""

FILLED_APART: Patterns = (
    *NORMALISED,
    # A command that fills in history commits what it has when its time is up.
    (re.compile(r"^(statscache_lane_batches_total\{[^}]*\}) [0-9.e+-]+", re.M), r"\1 ..."),
)
"""The same for databases that were filled one by one, at whatever speed."""

_ETAG = re.compile(r"\b(?:[0-9a-f]{32}|\d+\.\d+-\d+-\d+)\b")
_OF_FILES = "Last-Modified"
"""The header that has the time of a file of the checkout."""

SHOWN = 300
"""Characters of a difference that are printed."""


class _Tags:
    """Replaces each ETag by the number of its first appearance.

    They are made of the configuration too, with the address of the database, and of the times of
    files. Which answers have the same one, and which another, is compared all the same.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> str:
        """``text`` with numbers for ETags."""
        return _ETAG.sub(self._of, text)

    def _of(self, match: re.Match[str]) -> str:
        return f"ETag {self._numbers.setdefault(match[0], len(self._numbers))}"


def differences(before: Path, after: Path, may_differ: Patterns = NORMALISED) -> Iterator[str]:
    """A sentence for each request that was answered differently."""
    some_tags, other_tags = _Tags(), _Tags()
    with before.open() as some, after.open() as others:
        for one, other in zip_longest(some, others, fillvalue="[]"):
            # All of them are numbered, so that a difference does not make others.
            first, second = some_tags.number(one), other_tags.number(other)
            if first != second:
                found = _difference(
                    _normal(first, one, may_differ), _normal(second, other, may_differ)
                )
                if found is not None:
                    yield found


def _normal(numbered: str, line: str, may_differ: Patterns) -> list[dict[str, Any]]:
    """The answers of a line, without what may differ."""
    found = []
    for answer, original in zip(json.loads(numbered), json.loads(line), strict=True):
        body = answer["body"]
        for pattern, instead in may_differ:
            body = pattern.sub(instead, body)
        # HEAD has no body that could tell.
        is_measured = "/metrics" in answer["asked"]
        varies = {_OF_FILES} if "/static/" in answer["asked"] else set()
        if body != original["body"] or is_measured:
            varies.add("Content-Length")
        headers = [pair for pair in answer["headers"] if pair[0] not in varies]
        found.append(answer | {"headers": headers, "body": body})
    return found


def _difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str | None:
    for one, other in zip_longest(before, after, fillvalue={}):
        asked = (one or other)["asked"]
        for part in ("asked", "status", "headers", "body"):
            first, second = _written(one.get(part)), _written(other.get(part))
            if first != second:
                return f"{asked[:SHOWN]}: {part}\n{_beside(first, second)}"
    return None


def _written(part: Any) -> str:
    return part if isinstance(part, str) else json.dumps(part)


def _beside(before: str, after: str) -> str:
    """Both, from a little before the place where they part."""
    pairs = zip(before, after, strict=False)
    same = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
    if same is None:
        same = min(len(before), len(after))
    start = max(0, same - 60)
    shown = (text[start : same + SHOWN] for text in (before, after))
    return "\n".join(f"  {sign} {text!r}" for sign, text in zip("-+", shown, strict=True))


def files_that_differ(before: Path, after: Path) -> list[str]:
    """The names of the files below two folders that are not the same."""
    names = {
        str(path.relative_to(folder))
        for folder in (before, after)
        for path in folder.rglob("*")
        if path.is_file()
    }
    return sorted(name for name in names if _bytes(before / name) != _bytes(after / name))


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
