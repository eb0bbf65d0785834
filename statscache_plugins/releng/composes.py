"""Composes: the making of the trees of rawhide and of the releases that branched off it.

Topics are ``compose.<branch>.<action>`` for a whole compose, and for one step of it
``compose.<branch>.<step>.<action>``. The branch was the word ``rawhide`` or ``branched`` at first;
later the number of the release (``compose.28.rsync.start``) took the place of ``branched``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from statscache.plugins import Message
from statscache_plugins.releng.entry import DONE, RUNNING, Entry, Status

TOPICS = ("org.fedoraproject.prod.compose.#",)

_COMPLETE = Status("complete", "completed", DONE)
STATUSES = {
    "start": Status("start", "started", RUNNING),
    "complete": _COMPLETE,
    "done": _COMPLETE,
}
"""The last token of the topic, to what it means."""

BRANCHES = ("rawhide", "branched", "epelbeta")
ARCHITECTURES = ("primary", "arm", "ppc", "s390")
"""Those that composes were made of: ``primary`` is all the first-class ones together."""

_TOPIC = re.compile(
    r"org\.fedoraproject\.prod\.compose"
    r"\.(?P<branch>[^.]+)(?:\.(?P<step>.+))?\.(?P<action>start|complete|done)"
)
_NO_VARIANT = re.compile(r"fedora|rawhide|branched|f?[0-9].*", re.IGNORECASE)
"""The parts of a compose's id that do not tell it from the main compose of the branch."""


def entries(message: Message) -> Iterator[Entry]:
    """At most one."""
    topic = _TOPIC.fullmatch(message.topic)
    if topic is None:
        return
    branch, step = topic["branch"], topic["step"]
    status = STATUSES[topic["action"]]
    if branch.isdecimal():
        # The dashboard has one place for all branched releases. There may be several at a time,
        # and the number keeps them apart.
        kind = "branched"
        work = f"{branch}-{step}" if step else branch
    else:
        kind = branch
        work = step or branch
    variant = _variant(message, branch)
    yield Entry(
        category=f"compose-{kind}_{_text(message, 'arch') or 'primary'}",
        # A colon is in no step: the step atomic-lorax is not the step lorax of the variant Atomic.
        constraint=f"{variant.lower()}:{work}" if variant else work,
        name=f"{work.title()} ({variant})" if variant else work.title(),
        status=status,
        link=_location(message) if status is _COMPLETE else "",
    )


def _variant(message: Message, branch: str) -> str:
    """``Modular`` or ``Atomic``; empty for the main compose.

    Such composes share the topics of the main one, whose log they must not overwrite. Newer
    messages say it in ``short`` (``Fedora-Modular``), older ones in the id or the branch.
    """
    for key in ("short", "compose_id", "branch"):
        if text := _text(message, key):
            words = (word for word in text.split("-") if word and word != branch)
            return "-".join(word for word in words if not _NO_VARIANT.fullmatch(word))
    return ""


def _location(message: Message) -> str:
    location = _text(message, "location")
    return location if location.startswith(("https://", "http://")) else ""


def _text(message: Message, key: str) -> str:
    text = message.msg.get(key)
    return text if isinstance(text, str) else ""
