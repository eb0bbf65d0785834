"""The classic contract of a plugin: it keeps its own state and writes its own rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from statscache.errors import InvalidPlugin
from statscache.plugins.schedule import Schedule
from statscache.times import naive_now

_DROPPED_FROM_IDENTS = str.maketrans({" ": "-"} | dict.fromkeys("\"'()*&?,"))


def make_ident(name: str, schedule: Schedule | None) -> str:
    """The identifier under which the API serves a statistic, such as ``volume-by-topic-1h``."""
    ident = name.lower().translate(_DROPPED_FROM_IDENTS)
    return f"{ident}-{schedule}" if schedule is not None else ident


class BasePlugin:
    """A new thing to know about the bus.

    A subclass sets ``name``, ``summary`` and ``description``, sets a ``model`` (a subclass of
    :class:`~statscache.plugins.BaseModel`), and overrides :meth:`process` and :meth:`update`.
    It may have a ``layout``, any JSON value, that tells pages how to draw it.

    For each batch the engine calls :meth:`process` once per message, in the order of the
    messages' timestamps, and then :meth:`update` once, in one transaction and one thread.

    Args:
        schedule: repeats every ``interval``; None when there is no interval.
        config: fedmsg's configuration.
        model: replaces the ``model`` of the class.

    Raises:
        InvalidPlugin: ``name``, ``summary`` or ``description`` is missing.
    """

    name: ClassVar[str | None] = None
    summary: ClassVar[str | None] = None
    description: ClassVar[str | None] = None
    interval: ClassVar[timedelta | None] = None
    """The width of a window in time, for plugins that count in windows."""
    backlog_delta: ClassVar[timedelta | None] = None
    """How far back history is filled in; None is unlimited."""
    version: ClassVar[int] = 1
    """Of the meaning of its rows: raise it, and all of them are rebuilt from the archive.
    A change of columns, topics or resolutions is noticed anyway."""
    model: Any = None
    launched: bool = False
    """Whether :meth:`launch` has been called."""

    def __init__(
        self, schedule: Schedule | None, config: Mapping[str, Any], model: Any = None
    ) -> None:
        for attribute in ("name", "summary", "description"):
            if not getattr(self, attribute):
                raise InvalidPlugin(f"{type(self).__name__} must define {attribute!r}")
        self.schedule = schedule
        self.config = config
        if model is not None:
            self.model = model

    @property
    def ident(self) -> str:
        """The identifier under which the API serves the plugin's rows."""
        return make_ident(str(self.name), self.schedule)

    def process(self, message: dict[str, Any]) -> None:
        """Called once for each message, a plain fedmsg dict that must not be changed.

        An exception rejects the message for this plugin alone.
        """

    def update(self, session: Session) -> None:
        """Called after each batch, to write what :meth:`process` has gathered.

        ``session.commit()`` is allowed and ends nothing but the plugin's own part: all of the
        batch is committed together, or, when anything fails, nothing of it is.
        """

    def latest(self, session: Session) -> datetime | None:
        """Called before history is filled in: the time (naive UTC) up to which it is there."""
        newest = session.scalar(
            select(self.model.timestamp).order_by(self.model.timestamp.desc()).limit(1)
        )
        if self.backlog_delta is None:
            return newest
        limit = naive_now() - self.backlog_delta
        return limit if newest is None else max(newest, limit)

    def revert(self, when: datetime, session: Session) -> None:
        """Called before history is filled in again from ``when`` (naive UTC) on."""
        session.execute(delete(self.model).where(self.model.timestamp >= when))

    def launch(self, session: Session) -> None:
        """Called once, when the hub has started and before the first message."""
        self.launched = True

    def stop(self) -> None:
        """Called once, after the last batch, when the hub stops."""
