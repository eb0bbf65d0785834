"""Patterns of topics, as AMQP has them: ``*`` is one token, ``#`` any number of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from statscache.errors import InvalidPlugin

EVERYTHING = ("#",)


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Returns a function that says whether a topic matches one of ``patterns``.

    Raises:
        InvalidPlugin: a pattern is not dotted tokens, ``*`` and ``#``.
    """
    patterns = tuple(patterns)
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise InvalidPlugin(f"topics must be non-empty strings such as '#', not {patterns!r}")
    if "#" in patterns:
        return lambda topic: True
    expression = re.compile("|".join(_regular_expression(pattern) for pattern in patterns))
    return lambda topic: expression.fullmatch(topic + ".") is not None


def _regular_expression(pattern: str) -> str:
    """Returns the expression of a pattern, for topics with a dot after each token."""
    words = {"*": r"[^.]+\.", "#": r"(?:[^.]+\.)*"}
    return "".join(words.get(word, re.escape(word) + r"\.") for word in pattern.split("."))
