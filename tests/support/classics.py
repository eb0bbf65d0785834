"""What classic plugins of the tests have in common."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from statscache.plugins import BasePlugin


def moment_of(raw: dict[str, Any]) -> datetime:
    """The time of a message, as classic plugins write it: UTC, without saying so."""
    return datetime.fromtimestamp(raw["timestamp"], UTC).replace(tzinfo=None)


class KeepsMessages(BasePlugin):
    """Keeps what it gets until it is updated; ``write`` adds the row of a message."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.seen: list[dict[str, Any]] = []

    def process(self, message: dict[str, Any]) -> None:
        self.seen.append(message)

    def update(self, session: Any) -> None:
        for raw in self.seen:
            self.write(session, raw)
        session.commit()
        self.seen.clear()

    def write(self, session: Any, raw: dict[str, Any]) -> None:
        raise NotImplementedError


class CountsDays(BasePlugin):
    """Counts in windows of a day, as plugins did in 2015."""

    interval = timedelta(days=1)

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.counts: dict[datetime, int] = {}

    def process(self, message: dict[str, Any]) -> None:
        assert self.schedule is not None
        when = self.schedule.next(moment_of(message))
        self.counts[when] = self.counts.get(when, 0) + 1

    def update(self, session: Any) -> None:
        for when, count in self.counts.items():
            row = session.query(self.model).filter_by(timestamp=when).first()
            row = row or self.model(timestamp=when, scalar=0)
            row.scalar += count
            session.add(row)
        session.commit()
        self.counts.clear()
