"""What the tables must hold: each message counted once, all in one pass, in the order of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, select

from statscache.counting.engine import Engine
from statscache.database import tables
from statscache.database.connection import Database
from statscache.message import Message
from statscache.plugins.installed.discovery import Dataset, Installed
from tests.support.databases import upgrade

_MOST_TOLD = 5


class Oracle:
    """A database that nothing disturbed.

    Args:
        path: of a SQLite file that does not exist yet.
        raws: fedmsg's dicts, each once.
        installed: the plugins that count them.
    """

    def __init__(self, path: Path, raws: Iterable[dict[str, Any]], installed: Installed) -> None:
        self._installed = installed
        upgrade(f"sqlite:///{path}")
        self._database = Database(f"sqlite:///{path}")
        engine = Engine(self._database, installed)
        engine.open()
        messages = sorted(map(Message.from_fedmsg, raws), key=lambda message: message.timestamp)
        self.counted = engine.count(messages).counted
        engine.close()

    def differences(self, uri: str) -> list[str]:
        """What the tables of a database hold too much and too little, in words."""
        database = Database(uri, read_only=True)
        found = []
        with database.begin() as other, self._database.begin() as ours:
            pruned = {r.ident: r.pruned_until for r in other.execute(select(tables.plugin))}
            existing = set(inspect(other).get_table_names())
            for ident, dataset in self._installed.datasets.items():
                if dataset.model.__table__.name not in existing:
                    found.append(f"{ident}: its table is not there")
                    continue
                wanted = _rows(ours, dataset, pruned.get(ident))
                is_there = _rows(other, dataset, None)
                found += _told(ident, "too much", is_there - wanted)
                found += _told(ident, "too little", wanted - is_there)
        database.dispose()
        return found


def _rows(connection: Any, dataset: Dataset, since: float | None) -> Counter[tuple[Any, ...]]:
    """All but the row numbers of classic plugins."""
    table = dataset.model.__table__
    columns = [column for column in table.columns if column.name != "id"]
    query = select(*columns)
    if since is not None:
        query = query.where(table.c.timestamp >= since)
    return Counter(tuple(row) for row in connection.execute(query))


def _told(ident: str, what: str, rows: Counter[tuple[Any, ...]]) -> list[str]:
    if not rows:
        return []
    shown = [f"{row}" + (f" x{times}" if times > 1 else "") for row, times in rows.items()]
    more = f" and {len(shown) - _MOST_TOLD} more" if len(shown) > _MOST_TOLD else ""
    return [f"{ident}: {what}: {'; '.join(sorted(shown)[:_MOST_TOLD])}{more}"]
