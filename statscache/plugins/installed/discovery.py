"""Find the installed plugins, refuse those that cannot work, and say why."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import EntryPoint, entry_points
from typing import Any
from weakref import WeakKeyDictionary

from statscache import about
from statscache.errors import InvalidPlugin, described, is_interrupt
from statscache.plugins.aggregate import Aggregate, AggregateTable, table_name
from statscache.plugins.base import BasePlugin, make_ident
from statscache.plugins.buckets import bucket_epoch
from statscache.plugins.columns import Key, Value
from statscache.plugins.installed import bundled, surroundings
from statscache.plugins.installed.disabled import Disabled, pattern_for
from statscache.plugins.schedule import Schedule
from statscache.topics import EVERYTHING

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "statscache.plugin"

_GENERATED: WeakKeyDictionary[Any, tuple[type, ...]] = WeakKeyDictionary()

ROUTE_WORDS = frozenset({"plugins", "batch", "events"})
"""What follows ``/api/`` in routes of the framework: no ident may be one of these."""


@dataclass(frozen=True)
class Source:
    """Where a plugin was found; ``module`` is what its entry point imports."""

    entry_point: str
    distribution: str
    version: str
    module: str = ""


@dataclass(frozen=True)
class Dataset:
    """What the API serves under one ident: one table of a plugin.

    What aggregates declare and classic plugins do not is asked here, so that the rest of the
    program need not know which of the two a plugin is.

    Attributes:
        label: what the ``timestamp`` of a row is: the ``start`` or the ``end`` of its window, or
            the time of a ``message``.
        declaration: the table as an aggregate declares it; None for a classic plugin.
    """

    ident: str
    plugin: BasePlugin | Aggregate
    model: Any
    schedule: Schedule | None
    label: str
    source: Source
    declaration: AggregateTable | None = None

    @property
    def aggregate(self) -> Aggregate | None:
        """The plugin, where it is an aggregate; None for a classic one."""
        return self.declaration.plugin if self.declaration is not None else None

    @property
    def is_classic(self) -> bool:
        """Whether the plugin is a classic one, which declares neither columns nor topics."""
        return self.declaration is None

    @property
    def contract(self) -> str:
        """The contract that the plugin is written for: ``aggregate`` or ``classic``."""
        return "classic" if self.is_classic else "aggregate"

    @property
    def declared_tables(self) -> tuple[AggregateTable, ...]:
        """The tables of the plugin, one for each resolution; a classic plugin declares none."""
        return self.aggregate.tables if self.aggregate is not None else ()

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the plugin subscribes to: all, for a classic one."""
        return self.aggregate.topics if self.aggregate is not None else EVERYTHING

    @property
    def keys(self) -> tuple[Key, ...]:
        """The declared key columns; a classic plugin declares none."""
        return self.aggregate.keys if self.aggregate is not None else ()

    @property
    def values(self) -> tuple[Value, ...]:
        """The declared value columns; a classic plugin declares none."""
        return self.aggregate.values if self.aggregate is not None else ()

    @property
    def counts_messages(self) -> bool:
        """Whether its numbers are numbers of messages; see :attr:`Aggregate.counts_messages`."""
        return self.aggregate is not None and self.aggregate.counts_messages

    def subscribes(self, topic: str) -> bool:
        """Whether the plugin gets the messages of ``topic``."""
        return self.aggregate is None or self.aggregate.subscribes(topic)

    @property
    def layout(self) -> Any:
        """How pages may draw it; None where the plugin does not say."""
        return getattr(self.plugin, "layout", None)


@dataclass(frozen=True)
class Broken:
    """A plugin that is installed and cannot be used."""

    source: Source
    error: str


@dataclass
class Installed:
    """All plugins that were found."""

    aggregates: list[Aggregate] = field(default_factory=list)
    classics: list[Callable[[], BasePlugin]] = field(default_factory=list)
    """Each makes a new instance of a classic plugin, with nothing in its memory."""
    datasets: dict[str, Dataset] = field(default_factory=dict)
    """By ident, in the order of the idents."""
    broken: list[Broken] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    """The names of the plugins that the operator has turned off."""


def discover(config: Mapping[str, Any]) -> Installed:
    """Load what the entry points of :data:`ENTRY_POINT_GROUP` name.

    A plugin that cannot be imported or breaks its contract is logged and listed as broken, as is an
    entry point of statscache that loads another package. A plugin that
    ``statscache.plugins.disabled`` names is skipped.

    Raises:
        ConfigurationError: that key cannot be used.
    """
    found = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: (e.name, e.value))
    return load(((_source(point), point.load) for point in found), config)


def load(
    sources: Iterable[tuple[Source, Callable[[], Any]]], config: Mapping[str, Any]
) -> Installed:
    """Load the classes, or iterables of classes, that each of ``sources`` returns."""
    installed = Installed()
    disabled = Disabled.from_config(config)
    for source, get in sources:
        if disabled.covers_all(source.distribution):
            installed.disabled.append(source.entry_point)
            continue
        try:
            classes = list(_classes(get()))
        except BaseException as error:
            if is_interrupt(error):
                raise
            _report(installed, source, bundled.overwritten(source.distribution, error) or error)
            continue
        modules = [source.module, *(c.__module__ for c in classes if isinstance(c, type))]
        replaced = bundled.replaced(source.distribution, modules)
        if replaced is not None:
            _report(installed, source, replaced)
        for plugin_class in classes:
            name, idents = _names(plugin_class)
            if disabled.covers(source.distribution, name, idents):
                installed.disabled.append(name)
                continue
            try:
                _add(installed, source, plugin_class, config)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                _report(installed, source, error)
    disabled.warn_of_unused()
    installed.datasets = dict(sorted(installed.datasets.items()))
    return installed


def _source(point: EntryPoint) -> Source:
    distribution = point.dist
    return Source(
        entry_point=f"{point.name} = {point.value}",
        distribution=distribution.name if distribution else "unknown",
        version=distribution.version if distribution else "unknown",
        module=point.module,
    )


def _names(plugin_class: Any) -> tuple[str, list[str]]:
    """Returns the name and the idents of a plugin, as far as its class has them."""
    name = str(getattr(plugin_class, "name", None) or "")
    widths = getattr(plugin_class, "resolutions", None) or (
        getattr(plugin_class, "interval", None),
    )
    if not isinstance(widths, Iterable):
        return name, []
    good = [w for w in widths if isinstance(w, timedelta) and w > timedelta(0)]
    return name, [make_ident(name, Schedule(w)) for w in good] or [make_ident(name, None)]


def _report(installed: Installed, source: Source, error: BaseException) -> None:
    text = str(error) if isinstance(error, InvalidPlugin) else described(error)
    log.error(
        "plugin %r of %s %s is not used: %s",
        source.entry_point,
        source.distribution,
        source.version,
        text,
        exc_info=None if isinstance(error, InvalidPlugin) else error,
    )
    installed.broken.append(Broken(source, text))


def _classes(loaded: Any) -> Iterator[type]:
    if isinstance(loaded, type):
        yield loaded
        return
    try:
        iterator = iter(loaded)
    except TypeError:
        raise InvalidPlugin(
            f"the entry point gives {loaded!r}: it must be a plugin class or an iterable of them"
        ) from None
    if iterator is not loaded:
        yield from iterator
        return
    # A generator yields its classes once, and a process may load its plugins several times.
    if loaded not in _GENERATED:
        _GENERATED[loaded] = tuple(iterator)
    yield from _GENERATED[loaded]


def _add(
    installed: Installed, source: Source, plugin_class: Any, config: Mapping[str, Any]
) -> None:
    if isinstance(plugin_class, type) and issubclass(plugin_class, Aggregate):
        if "fedmsg.meta" in sys.modules:
            # A plugin asks it, in a worker as well.
            about.make_processors(config)
        aggregate = plugin_class(config)
        label = "start" if aggregate.resolutions else "message"
        datasets = [
            Dataset(table.ident, aggregate, table.model, table.schedule, label, source, table)
            for table in aggregate.tables
        ]
        _register(installed, datasets)
        installed.aggregates.append(aggregate)
    elif isinstance(plugin_class, type) and issubclass(plugin_class, BasePlugin):
        surroundings.prepare(config)
        make = _maker(plugin_class, config)
        classic = make()
        if classic.model is None:
            raise InvalidPlugin(f"{plugin_class.__name__} has no model: set it to a BaseModel")
        delta = classic.backlog_delta
        if delta is not None and not isinstance(delta, timedelta):
            raise InvalidPlugin(f"backlog_delta = {delta!r:.80} must be a timedelta")
        label = "end" if classic.interval else "message"
        _register(
            installed,
            [Dataset(classic.ident, classic, classic.model, classic.schedule, label, source)],
        )
        installed.classics.append(make)
    else:
        raise InvalidPlugin(
            f"{plugin_class!r} is neither a subclass of statscache.plugins.BasePlugin "
            "nor of statscache.plugins.Aggregate"
        )


def _maker(plugin_class: type[BasePlugin], config: Mapping[str, Any]) -> Callable[[], BasePlugin]:
    interval = plugin_class.interval
    schedule = Schedule(interval, bucket_epoch(interval)) if interval else None
    return lambda: plugin_class(schedule, config)


def _register(installed: Installed, datasets: list[Dataset]) -> None:
    for dataset in datasets:
        ident = dataset.ident
        if "/" in ident:
            raise InvalidPlugin(f"the ident {ident!r} has a slash: choose another name")
        if ident in ROUTE_WORDS:
            raise InvalidPlugin(f"the ident {ident!r} is a route of the API: choose another name")
        if not ident.strip("-"):
            raise InvalidPlugin(f"the name {dataset.plugin.name!r} leaves no ident")
        name = dataset.model.__table__.name
        for other in installed.datasets.values():
            if other.ident == ident:
                raise InvalidPlugin(
                    f"the ident {ident!r} is taken by {other.source.entry_point!r} of "
                    f"{other.source.distribution}: {_cure(other, dataset)}"
                )
            if other.model.__table__.name == name:
                raise InvalidPlugin(
                    f"the table {name!r} is taken by the plugin {other.ident!r}: "
                    f"{_cure(other, dataset)}"
                )
    installed.datasets.update((dataset.ident, dataset) for dataset in datasets)


def _cure(one: Dataset, two: Dataset) -> str:
    """Returns what to do about two plugins that cannot both be used."""
    rename = "one of the two must change its name"
    patterns = [pattern_for(each.source.distribution, str(each.plugin.name)) for each in (one, two)]
    if one.source.distribution == two.source.distribution:
        return rename
    return (
        f"statscache.plugins.disabled = [{patterns[0]!r}] turns off that of "
        f"{one.source.distribution}, and [{patterns[1]!r}] that of {two.source.distribution}; "
        f"or {rename}"
    )


__all__ = ["Broken", "Dataset", "Installed", "Source", "discover", "load", "table_name"]
