"""A refusal: what could not be counted, why, and by whom.

Transports, archives and plugins make them. They are written to the
database by :mod:`statscache.counting.membership.rejections`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import orjson

from statscache.errors import described
from statscache.message import Message

LONGEST_CONTENT = 1_000_000
"""Characters of a rejected message that are kept."""

SIGNATURE = "signature"
"""How the reason begins for a message whose signature was refused."""


@dataclass(frozen=True)
class Rejection:
    """A refusal: of what, why, and by which plugin (empty if it is not a message).

    Attributes:
        plugin: the idents of the tables that lack the message, with spaces between.
        cause: under which it is counted, one of a few; default: the reason up to its first colon.
        once: whether the same rejection may occur again, and is counted only once.
        times: how many messages these are.
    """

    content: str
    reason: str
    plugin: str = ""
    cause: str = ""
    once: bool = False
    times: int = 1

    @classmethod
    def by_plugin(cls, message: Message, plugin: str, error: BaseException) -> Rejection:
        """A message on which the code of a plugin failed."""
        try:
            text = orjson.dumps(message.raw, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:
            # Integers beyond 64 bits and lone surrogates.
            text = json.dumps(message.raw, default=repr)
        return cls(text, described(error), plugin)

    @classmethod
    def of_frame(
        cls, content: str | bytes, reason: str, *, once: bool = False, times: int = 1
    ) -> Rejection:
        """Something from a transport that is not a message."""
        return cls(_text(content), reason, once=once, times=times)

    @classmethod
    def of_archive(cls, content: str | bytes, reason: str) -> Rejection:
        """Something that an archive returns each time that window is read."""
        return cls(_text(content), reason, cause="archive", once=True)


def _text(content: str | bytes) -> str:
    return content.decode("utf-8", "backslashreplace") if isinstance(content, bytes) else content
