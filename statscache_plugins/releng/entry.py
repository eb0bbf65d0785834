"""What one line of the dashboard says, and how it is written down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

RUNNING = "text-warning"
DONE = "text-primary"
FAILED = "text-danger"
STOPPED = "text-muted"
"""The classes that Bootstrap has for the text of a line."""


class Status(NamedTuple):
    """How far a piece of work has come."""

    word: str
    """The status of an entry, by which clients look up the other two in the layout."""
    verb: str
    """What a person reads."""
    text_class: str


@dataclass(frozen=True)
class Entry:
    """The latest that is known of one piece of work.

    Attributes:
        category: the component of the layout that shows it.
        constraint: which of the pieces of work of its category it is about.
        name: what a person calls it.
        status: how far it has come.
        link: where its result is, empty where there is none.
        extra_text: a remark, empty where there is none.
        extra_link: where the remark leads.
    """

    category: str
    constraint: str
    name: str
    status: Status
    link: str = ""
    extra_text: str = ""
    extra_link: str = ""

    def message(self) -> str:
        """The JSON object that clients get, without the keys that are empty.

        The timestamps of the bus are whole seconds, and of two messages of one second the larger
        text is kept. That should be the end of a piece of work rather than its start, so the
        order of the keys, which means nothing to a client, is made to say so.
        """
        name, status = ("name", self.name), ("status", self.status.word)
        running = self.status.text_class == RUNNING
        first = (name, status) if running else (status, name)
        links = (
            ("link", self.link),
            ("extra_text", self.extra_text),
            ("extra_link", self.extra_link),
        )
        return json.dumps(dict(first) | {key: text for key, text in links if text})
