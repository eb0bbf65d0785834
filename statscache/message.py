"""The value that flows through everything: a message of the bus, checked once at the edge."""

from __future__ import annotations

import hashlib
import json
import math
import time
from types import EllipsisType
from typing import Any

import orjson

from statscache import about, clock
from statscache.errors import InvalidMessage

FUTURE_TOLERANCE = 24 * 60 * 60
"""Seconds by which a timestamp may lie ahead of the clock: more is an error of the sender, and
would stay the newest value for as long as the error is large."""

TIMESTAMP_TOLERANCE = 2.0
"""Seconds by which the times of two copies of a message may differ: bridges restamp them."""

_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


class Message:
    """What a service announced, when, about whom and about what.

    Made once per message by :meth:`from_fedmsg`, shared by all plugins, changed by none.

    Attributes:
        id: the sender's ``msg_id``, or, where there is none, :attr:`digest`.
        topic: dotted, such as ``org.fedoraproject.prod.git.receive``.
        timestamp: seconds since 1970-01-01 UTC, a float.
        category: the fourth token of the topic (``git``), empty where the topic is shorter.
        msg: the body, a dict for all well-behaved services.
        raw: the whole fedmsg dict, to be treated as read-only.
    """

    __slots__ = (
        "_agent",
        "_digest",
        "_packages",
        "_usernames",
        "category",
        "has_own_id",
        "id",
        "msg",
        "raw",
        "timestamp",
        "topic",
    )

    id: str
    topic: str
    timestamp: float
    category: str
    msg: Any
    raw: dict[str, Any]
    has_own_id: bool
    _digest: str | None
    _usernames: frozenset[str] | None
    _packages: frozenset[str] | None
    _agent: str | EllipsisType | None

    @classmethod
    def from_fedmsg(cls, raw: dict[str, Any]) -> Message:
        """Check a fedmsg dict and make a message of it.

        Raises:
            InvalidMessage: it is not a dict, has no topic, or its timestamp is not a finite
                number between 1970 and a day from now.
        """
        if not isinstance(raw, dict):
            raise InvalidMessage(f"not a JSON object but a {type(raw).__name__}")
        topic = raw.get("topic")
        if not isinstance(topic, str) or not topic:
            raise InvalidMessage("no topic: the key 'topic' must be a non-empty string")
        timestamp = raw.get("timestamp")
        if type(timestamp) is not float:
            # bool is an int to Python, but a timestamp of `true` is an error of the sender.
            if type(timestamp) is not int:
                raise InvalidMessage(f"timestamp is not a number of seconds: {timestamp!r:.80}")
            try:
                timestamp = float(timestamp)
            except OverflowError:
                raise InvalidMessage("timestamp is not a finite number") from None
        if not math.isfinite(timestamp):
            raise InvalidMessage("timestamp is not a finite number")
        if timestamp < 0:
            raise InvalidMessage(f"timestamp lies before 1970: {timestamp!r}")
        # By the clock of this machine, as plugin authors and transports make messages without one.
        # The latest time is asked for where the clock may have been put back.
        tolerated = timestamp - FUTURE_TOLERANCE
        if tolerated > time.time() and tolerated > clock.latest():
            raise InvalidMessage(f"timestamp lies more than a day in the future: {timestamp!r}")

        self = cls.__new__(cls)
        self.topic = topic
        self.timestamp = timestamp
        tokens = topic.split(".", 4)
        self.category = tokens[3] if len(tokens) > 3 else ""
        self.msg = raw.get("msg", {})
        self.raw = raw
        self._digest = None
        self._usernames = None
        self._packages = None
        self._agent = ...
        msg_id = raw.get("msg_id")
        if isinstance(msg_id, str) and msg_id:
            self.has_own_id = True
            self.id = msg_id
        else:
            self.has_own_id = False
            self.id = self.digest
        return self

    @property
    def digest(self) -> str:
        """A digest of the content: the topic, the timestamp in whole seconds and the body.

        What transports and archives add or rewrite on the way (``msg_id``, ``i``, ``headers``,
        the signature, fractions of a second) is left out, so that every copy of a message that
        was sent without an id has the same one.
        """
        if self._digest is None:
            self._digest = self.digest_at(int(self.timestamp))
        return self._digest

    def digest_at(self, second: int) -> str:
        """Returns the :attr:`digest` of the same message sent at another time (UNIX seconds)."""
        try:
            content = orjson.dumps([self.topic, second, self.msg], option=_CANONICAL)
        except TypeError:
            # Integers beyond 64 bits and lone surrogates, which JSON allows and orjson refuses.
            content = repr([self.topic, second, _sorted(self.msg)]).encode("utf-8", "surrogatepass")
        return "sha256:" + hashlib.sha256(content).hexdigest()

    @property
    def identity(self) -> str:
        """The id by which two copies of one message are recognised.

        The bridges between fedmsg and fedora-messaging put the year before an id
        (``2026-<uuid>``) or remove it: it is ignored.
        """
        if self.id[4:5] == "-" and self.id[:4].isdecimal():
            return self.id[5:]
        return self.id

    @property
    def usernames(self) -> frozenset[str]:
        """The names of the accounts that the message is about."""
        if self._usernames is None:
            self._usernames = frozenset(about.usernames(self.raw))
        return self._usernames

    @property
    def packages(self) -> frozenset[str]:
        """The names of the source packages that the message is about."""
        if self._packages is None:
            self._packages = frozenset(about.packages(self.raw))
        return self._packages

    @property
    def agent(self) -> str | None:
        """The name of the account that did what the message says; None where nobody is named.

        Somebody acts, and others may be concerned: :attr:`usernames` has both.
        """
        if self._agent is ...:
            self._agent = about.agent(self.raw)
        return self._agent

    def to_json(self) -> str:
        """:attr:`raw` as JSON text, from which :func:`decode` makes the same message."""
        try:
            return orjson.dumps(self.raw, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:
            return json.dumps(self.raw)

    def __repr__(self) -> str:
        return f"<Message {self.id} {self.topic} at {self.timestamp}>"


def decode(text: str | bytes) -> Message:
    """Make a message of its JSON text.

    Raises:
        InvalidMessage: it is not JSON, or not a message.
    """
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidMessage(f"not JSON: {error}") from None
    return Message.from_fedmsg(raw)


def _sorted(value: Any) -> Any:
    """Returns ``value`` with the keys of its dicts in order."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value
