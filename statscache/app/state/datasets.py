"""The datasets as their tables are, which need not be as the installed plugins declare them.

When the definition of a plugin changes, its table is rebuilt in another one, which replaces it when
it is complete. Until then the served table is of the definition that is stored with it; and an API
that still runs the former release finds a table of the next one. So the tables are read by the
stored definitions, whichever release of a plugin this process has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
)
from sqlalchemy.orm import registry

from statscache.app.state.digest import digest
from statscache.app.state.memo import Memo
from statscache.app.state.revisions import Snapshot
from statscache.app.state.row_reader import RowReaders
from statscache.database.definitions import columns_of, definition_of
from statscache.plugins.aggregate import Aggregate, accepted_before, table_name
from statscache.plugins.base import BasePlugin
from statscache.plugins.collation import PLAIN_TEXT
from statscache.plugins.columns import Key, Value
from statscache.plugins.installed.discovery import Dataset, Installed
from statscache.plugins.merges import NEWEST_AT
from statscache.plugins.models import Serializable

MOST_REMEMBERED = 8
"""Sets of definitions: one thread may still read by a set that another has replaced."""

_TYPES: Mapping[str, type] = {"str": str, "int": int, "float": float}
_COLUMN_TYPES: Mapping[str, Any] = {
    "bool": Boolean(),
    "bytes": LargeBinary(),
    "datetime": DateTime(),
    "Decimal": Numeric(),
    "float": Double(),
    "int": BigInteger(),
}

Definitions = tuple[tuple[str, str], ...]
"""Idents and the stored definitions of their tables, where they are not as installed."""


@dataclass(frozen=True)
class ServedDatasets:
    """What there is to serve.

    Attributes:
        installed: the plugins, with the datasets as their tables are.
        definitions: of the tables that are not as installed.
    """

    installed: Installed
    definitions: Definitions = ()

    @cached_property
    def rows(self) -> RowReaders:
        """The readers of the datasets."""
        return RowReaders(self.installed)

    @cached_property
    def validator(self) -> str:
        """Equal validators, equal tables; empty where all are as installed."""
        return digest(self.definitions) if self.definitions else ""


class StoredDatasets:
    """Finds the datasets by the definitions that are stored; for all threads.

    Args:
        installed: the plugins.
    """

    def __init__(self, installed: Installed) -> None:
        self._installed = installed
        self._own = {ident: definition_of(dataset) for ident, dataset in installed.datasets.items()}
        self._known: Memo[Definitions, ServedDatasets] = Memo(MOST_REMEMBERED)
        self._last: tuple[Snapshot | None, ServedDatasets] = (None, ServedDatasets(installed))
        self._known.put((), self.last)

    @property
    def last(self) -> ServedDatasets:
        """What was found last."""
        return self._last[1]

    def at(self, snapshot: Snapshot) -> ServedDatasets:
        """What there is to serve at the moment of ``snapshot``: the same object, if it is equal."""
        seen, served = self._last
        if seen is snapshot:
            return served
        definitions = tuple(
            (ident, row.definition)
            for ident, row in sorted(snapshot.plugins.items())
            if row.definition not in (None, self._own.get(ident)) and ident in self._own
        )
        known = self._known.get(definitions)
        if known is None:
            known = ServedDatasets(self._as_stored(dict(definitions)), definitions)
            self._known.put(definitions, known)
        self._last = (snapshot, known)
        return known

    def _as_stored(self, definitions: Mapping[str, str]) -> Installed:
        by_plugin: dict[int, list[Dataset]] = {}
        for dataset in self._installed.datasets.values():
            by_plugin.setdefault(id(dataset.plugin), []).append(dataset)
        found = dict(self._installed.datasets)
        for datasets in by_plugin.values():
            if any(dataset.ident in definitions for dataset in datasets):
                for dataset in self._by_definitions(datasets, definitions):
                    found[dataset.ident] = dataset
        return replace(self._installed, datasets=found)

    def _by_definitions(
        self, datasets: Iterable[Dataset], definitions: Mapping[str, str]
    ) -> list[Dataset]:
        """The datasets of one plugin: tables that are alike are of one statistic."""
        alike: dict[bytes, list[tuple[Dataset, str]]] = {}
        for dataset in datasets:
            definition = definitions.get(dataset.ident, self._own[dataset.ident])
            content = orjson.loads(definition)
            del content["schedule"]
            alike.setdefault(orjson.dumps(content), []).append((dataset, definition))
        found: list[Dataset] = []
        for group in alike.values():
            content = orjson.loads(group[0][1])
            if "merge" in content:
                found += _aggregate([dataset for dataset, _ in group], content)
            else:
                found += [_classic(dataset, definition) for dataset, definition in group]
        return found


def _aggregate(datasets: list[Dataset], content: Mapping[str, Any]) -> list[Dataset]:
    """Datasets of one aggregate with a stored definition, one for each of its windows."""
    first = datasets[0]
    plugin: Any = first.plugin
    widths = tuple(each.schedule.interval for each in datasets if each.schedule is not None)
    is_as_meant = content["version"] == plugin.version
    is_as_meant &= content["topics"] == list(getattr(plugin, "topics", ()))
    columns = [(name, _TYPES[type_]) for name, type_ in content["columns"] if name != NEWEST_AT]
    declaration = _declare(
        Aggregate,
        plugin,
        topics=tuple(content["topics"]),
        keys=tuple(_keys(plugin, [pair for pair in columns if pair[0] in content["key"]])),
        values=tuple(
            _as_declared(getattr(plugin, "values", ()), Value(name, content["merge"][name], type_))
            for name, type_ in columns
            if name in content["merge"]
        ),
        resolutions=widths,
        retention={
            width: age for width, age in getattr(plugin, "retention", {}).items() if width in widths
        },
        counts_messages=is_as_meant and getattr(plugin, "counts_messages", False),
        version=content["version"],
    )
    stored = accepted_before(declaration, plugin.config)
    tables = {table.ident: table for table in stored.tables}
    label = "start" if widths else "message"
    return [
        replace(
            each,
            plugin=stored,
            model=tables[each.ident].model,
            label=label,
            declaration=tables[each.ident],
        )
        for each in datasets
    ]


def _as_declared(values: Iterable[Value], stored: Value) -> Value:
    """The value of a table as it is declared now, with what no definition says, if it is alike."""
    alike = (
        value
        for value in values
        if (value.name, value.merge, value.type) == (stored.name, stored.merge, stored.type)
    )
    return next(alike, stored)


def _keys(plugin: Any, columns: Iterable[tuple[str, type]]) -> list[Key]:
    """The keys of a table, with the roles that they have in ``plugin``.

    One that has none of that name has been renamed, if the plugin has another one in its place.
    """
    declared: tuple[Key, ...] = getattr(plugin, "keys", ())
    roles = {key.name: key.role for key in declared}
    same = {(key.name, key.type): key for key in declared}
    columns = [pair for pair in columns if pair[0] != "timestamp"]
    names = {name for name, _ in columns}
    found = []
    for place, (name, type_) in enumerate(columns):
        role = roles.get(name)
        if name not in roles and place < len(declared) and declared[place].name not in names:
            role = declared[place].role
        # One of bins tells their error.
        found.append(same.get((name, type_)) or Key(name, role, type_))
    return found


def _classic(dataset: Dataset, definition: str) -> Dataset:
    """A dataset of a classic plugin, with a model that has the stored columns."""
    key = orjson.loads(definition)["key"]
    plugin, ident = dataset.plugin, dataset.ident
    is_classic = isinstance(plugin, BasePlugin)
    now = dataset.model.__table__
    indexed = {column.name for column in now.columns if is_classic and column.index}
    table = Table(
        now.name if is_classic else table_name(ident),
        MetaData(),
        *(
            Column(
                name,
                _COLUMN_TYPES.get(type_, PLAIN_TEXT),
                primary_key=name in key,
                index=name in indexed,
            )
            for name, type_ in columns_of(definition)
        ),
    )
    model = type("Stored", (Serializable,), {"__doc__": f"The rows of {ident}, as they are."})
    registry(metadata=table.metadata).map_imperatively(model, table)
    if not is_classic:
        plugin = _declare(BasePlugin, plugin)(dataset.schedule, plugin.config, model)
    label = "end" if dataset.schedule else "message"
    return replace(dataset, plugin=plugin, model=model, label=label, declaration=None)


def _declare(base: type[Any], plugin: Any, **more: Any) -> Any:
    """A class of plugins that says of itself what ``plugin`` says, and ``more``."""
    same = ("name", "summary", "description", "backlog_delta", "layout")
    attributes = {name: getattr(plugin, name) for name in same if hasattr(plugin, name)}
    return type(f"Stored{base.__name__}", (base,), attributes | more)
