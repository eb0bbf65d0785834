"""The aggregate contract of a plugin: it declares columns, and turns a message into rows.

The framework does the rest: it folds the rows in memory, upserts them, buckets them in time, prunes
them, and serves them. Every merge rule is commutative and associative, so neither the order of
the messages nor the way they are split into batches can change a result.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from difflib import SequenceMatcher, get_close_matches
from inspect import isasyncgenfunction, iscoroutinefunction, signature
from typing import Any, ClassVar, get_args

from sqlalchemy import BigInteger, Column, Double, Index, MetaData, Table
from sqlalchemy.orm import registry

from statscache.errors import InvalidPlugin
from statscache.message import Message
from statscache.plugins.base import make_ident
from statscache.plugins.buckets import bucket_epoch, ceiled, floored
from statscache.plugins.columns import (
    QUERY_PARAMETERS,
    TYPES,
    Key,
    Role,
    Value,
    is_counter,
    keeps_newest_time,
)
from statscache.plugins.merges import NEWEST_AT, RULES, Row
from statscache.plugins.models import Serializable
from statscache.plugins.schedule import Schedule
from statscache.topics import EVERYTHING, matcher

_COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_TABLE_NAME = 63


class Aggregate:
    """A statistic, declared: subclass it, set the attributes and override :meth:`rows`.

    Args:
        config: fedmsg's configuration.

    Raises:
        InvalidPlugin: the declaration breaks the contract; the text says where.
    """

    contract: ClassVar[int] = 1
    """The version of this contract that the plugin is written for."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    description: ClassVar[str] = ""
    topics: ClassVar[tuple[str, ...]] = EVERYTHING
    """The topics it subscribes to: ``*`` is one token, ``#`` any number of them."""
    keys: ClassVar[tuple[Key, ...]] = ()
    values: ClassVar[tuple[Value, ...]] = ()
    resolutions: ClassVar[tuple[timedelta, ...]] = ()
    """The widths of its buckets, each a table and an ident of its own. Empty: one row per
    key, whose ``timestamp`` is that of the newest message (a table of latest values)."""
    retention: ClassVar[Mapping[timedelta, timedelta]] = {}
    """Resolution to the age at which its rows are deleted; others are never deleted."""
    backlog_delta: ClassVar[timedelta | None] = None
    """How far back history is filled in; None is unlimited."""
    counts_messages: ClassVar[bool] = False
    """Whether its value is the number of the messages under its topics, all of them: a message adds
    one to the row of its category, its topic, and each user and package that it is about, as the
    roles of the keys say, and to no other. The API then promises that the archive has precisely
    the messages behind a number."""
    version: ClassVar[int] = 1
    """Of the meaning of its rows: raise it, and all of them are rebuilt from the archive.
    A change of columns, topics or resolutions is noticed anyway."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        _check(self)
        self._make(config)

    def _make(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.subscribes = matcher(self.topics)
        self.columns: tuple[Key | Value, ...] = (*self.keys, *self.values)
        widths = sorted(self.resolutions)
        self.tables = tuple(
            AggregateTable(self, Schedule(width, bucket_epoch(width))) for width in widths
        ) or (AggregateTable(self, None),)
        finest = self.tables[0]
        for table in self.tables[1:]:
            if not fits(finest, table):
                raise InvalidPlugin(
                    f"{self.name!r}: the buckets of {table.schedule} are not made of whole "
                    f"buckets of {finest.schedule}"
                )

    def rows(self, message: Message) -> Iterable[Row]:
        """The rows that ``message`` adds: tuples of the keys, then the values, as declared.

        Called once per message that the plugin subscribes to. It must depend on nothing but the
        message. An exception rejects the message for this plugin alone.
        """
        raise NotImplementedError


def accepted_before(declaration: type[Aggregate], config: Mapping[str, Any]) -> Aggregate:
    """An instance of a declaration that an earlier release has accepted; it is not checked."""
    plugin = declaration.__new__(declaration)
    plugin._make(config)
    return plugin


class AggregateTable:
    """One table of an aggregate: one resolution, or the latest values.

    Attributes:
        plugin: the aggregate that declares it.
        ident: the identifier under which the API serves it.
        schedule: its buckets; None for latest values.
        width: of a bucket, whole seconds; None for latest values.
        offset: seconds from 1970 to the start of the first bucket.
        table: the SQL table; the columns are ``timestamp``, the keys, the values.
        model: the mapped class.
    """

    def __init__(self, plugin: Aggregate, schedule: Schedule | None) -> None:
        self.plugin = plugin
        self.schedule = schedule
        self.ident = make_ident(plugin.name, schedule)
        self.width = schedule.width if schedule else None
        self.offset = schedule.offset if schedule else 0
        self.retention = plugin.retention.get(schedule.interval) if schedule else None
        self.table = _make_table(plugin, self.ident, bucketed=schedule is not None)
        self.model = _make_model(plugin, self.ident, self.table)

    def floored(self, moment: float) -> int:
        """Returns the start of the bucket that ``moment``, UNIX seconds, is in."""
        assert self.width is not None
        return floored(math.floor(moment), self.width, self.offset)

    def ceiled(self, moment: float) -> int:
        """Returns the first start of a bucket at ``moment``, UNIX seconds, or later."""
        assert self.width is not None
        return ceiled(math.ceil(moment), self.width, self.offset)


def fits(finer: AggregateTable, coarser: AggregateTable) -> bool:
    """Whether each bucket of ``coarser`` is made of whole buckets of ``finer``."""
    if finer.width is None or coarser.width is None:
        return False
    return coarser.width % finer.width == 0 == (coarser.offset - finer.offset) % finer.width


def table_name(ident: str) -> str:
    """The name of the table behind an ident, short enough for PostgreSQL."""
    name = re.sub(r"\W+", "_", ident)
    if len(name) <= _LONGEST_TABLE_NAME:
        return name
    digest = hashlib.sha256(ident.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_TABLE_NAME - 9]}_{digest}"


def _make_table(plugin: Aggregate, ident: str, *, bucketed: bool) -> Table:
    timestamp = Column(
        "timestamp",
        BigInteger() if bucketed else Double(),
        primary_key=bucketed,
        autoincrement=False,
        nullable=False,
    )
    keys = [
        Column(key.name, TYPES[key.type], primary_key=True, autoincrement=False)
        for key in plugin.keys
    ]
    if not bucketed and not keys:
        raise InvalidPlugin(f"{plugin.name!r} has neither keys nor resolutions: give it one")
    values = [Column(v.name, TYPES[v.type], nullable=False) for v in plugin.values]
    if keeps_newest_time(plugin.values, bucketed):
        values.append(Column(NEWEST_AT, Double(), nullable=False))
    name = table_name(ident)
    table = Table(name, MetaData(), timestamp, *keys, *values, sqlite_with_rowid=False)
    if bucketed:
        # Of one user, say, over all times; and which users there are.
        for key in plugin.keys:
            Index(table_name(f"ix_{name}_{key.name}"), table.c[key.name], timestamp)
    else:
        # Clients read latest values newest first as well. The primary key finds the first key.
        Index(f"ix_{name[:56]}_time", timestamp)
        for key in plugin.keys[1:]:
            Index(table_name(f"ix_{name}_{key.name}_key"), table.c[key.name])
    return table


def _make_model(plugin: Aggregate, ident: str, table: Table) -> Any:
    def served_columns(cls: type[Serializable]) -> list[str]:
        return [name for name in cls.columns() if name != NEWEST_AT]

    model = type(
        "".join(word.title() for word in re.split(r"\W+", ident)),
        (Serializable,),
        {
            "__doc__": f"The rows of {ident}.",
            "__module__": type(plugin).__module__,
            "served_columns": classmethod(served_columns),
        },
    )
    # A registry for each: two plugins cannot disturb each other, nor one that is loaded twice.
    registry(metadata=table.metadata).map_imperatively(model, table)
    return model


def _check(plugin: Aggregate) -> None:
    """Refuse a declaration that breaks the contract."""
    for attribute in ("name", "summary", "description"):
        if not getattr(plugin, attribute):
            raise InvalidPlugin(f"{type(plugin).__name__} must define {attribute!r}")
    refuse = _refuser(plugin)
    if plugin.contract != Aggregate.contract:
        refuse(
            f"is written for version {plugin.contract} of the aggregate contract; this "
            f"statscache has version {Aggregate.contract}: install a matching release"
        )
    _check_spelling(plugin, refuse)
    _check_shapes(plugin, refuse)
    if not plugin.values:
        refuse("declares no value columns")
    names = [*(key.name for key in plugin.keys), *(value.name for value in plugin.values)]
    for name in names:
        if not isinstance(name, str) or not _COLUMN_NAME.fullmatch(name):
            refuse(f"column {name!r}: use lower-case letters, digits and underscores")
        if names.count(name) > 1 or name == "timestamp":
            refuse(f"declares the column {name!r} twice (timestamp is there anyway)")
        if name in QUERY_PARAMETERS or name.startswith("not_"):
            refuse(f"column {name!r} is a parameter of the API's queries: call it another name")
    for key in plugin.keys:
        if key.type not in (str, int):
            refuse(f"key column {key.name!r} must be of type str or int")
        if key.role is not None and key.role not in get_args(Role):
            refuse(f"key column {key.name!r}: the roles are {', '.join(get_args(Role))}")
    for value in plugin.values:
        if value.merge not in list(RULES):
            refuse(f"value column {value.name!r}: the rules are {', '.join(RULES)}")
        if value.type not in TYPES:
            refuse(f"value column {value.name!r} must be of type int, float or str")
        if value.type not in value.rule.types:
            refuse(f"value column {value.name!r}: {value.rule.refusal}")
    roles = [key.role for key in plugin.keys if key.role is not None]
    if plugin.counts_messages and (not is_counter(plugin.values) or len(set(roles)) < len(roles)):
        refuse("counts messages: it must have one column that is added, and no role twice")
    for width in (*plugin.resolutions, *plugin.retention):
        if width < timedelta(seconds=1) or width.microseconds:
            refuse(f"the resolution {width!r} is not a whole number of seconds")
    if len(set(plugin.resolutions)) != len(plugin.resolutions):
        refuse("declares a resolution twice")
    for width in plugin.retention:
        if width not in plugin.resolutions:
            refuse(f"declares a retention for {width!r}, which is not one of its resolutions")
    _check_rows(plugin, refuse)


_SHAPES: Mapping[str, type] = {
    "topics": str,
    "keys": Key,
    "values": Value,
    "resolutions": timedelta,
}
"""What is in the tuples that a plugin declares."""

_OPTIONAL = (*_SHAPES, "retention", "backlog_delta", "counts_messages", "rows")
"""What is optional: a plugin that misspells it would load, and count wrongly."""

_SPELT = (*_OPTIONAL, "summary", "description", "version", "layout")
"""Names of which a misspelling is refused even beside the right one. Not ``name``, without which
nothing loads, nor ``contract``: authors use ``names`` and ``contact`` for other things."""

_ALIKE = 0.8
"""The similarity of two names from which on one is taken for a misspelling of the other."""


def _check_spelling(plugin: Aggregate, refuse: Callable[[str], None]) -> None:
    """Refuse attributes whose names are misspelt names of the contract."""
    own: dict[str, Any] = {}
    for ancestor in type(plugin).__mro__:
        if ancestor not in Aggregate.__mro__:
            own = dict(vars(ancestor)) | own
    unused = [name for name in _OPTIONAL if name not in own]
    for name, given in sorted(own.items(), key=lambda item: item[0]):
        if name.startswith("_") or hasattr(Aggregate, name) or name in _SPELT:
            continue
        similar = get_close_matches(name, unused, n=1, cutoff=_ALIKE)
        if similar:
            refuse(
                f"has {name!r}, which nothing reads, and no {similar[0]!r}: write {similar[0]!r}, "
                f"or _{name} where it is a name of your own"
            )
        # A method may well be called row, or key.
        is_method = hasattr(type(given), "__get__")
        meant = next((known for known in _SPELT if _is_slip(name, known)), None)
        if meant is not None and not is_method:
            refuse(
                f"has {name!r}, which nothing reads: write {meant!r}, "
                f"or _{name} where it is a name of your own"
            )


def _is_slip(name: str, known: str) -> bool:
    """Whether ``name`` is ``known`` with a typing error: one letter, or two in a long name."""
    blocks = SequenceMatcher(None, name, known, autojunk=False).get_matching_blocks()
    wrong = max(len(name), len(known)) - sum(block.size for block in blocks)
    return name[0] == known[0] and wrong <= max(1, len(known) // 6)


def _check_rows(plugin: Aggregate, refuse: Callable[[str], None]) -> None:
    """Refuse ``rows`` that cannot be called with a message."""
    if type(plugin).rows is Aggregate.rows:
        refuse("has no rows(self, message), which says what a message adds")
    rows: Any = plugin.rows
    if not callable(rows):
        refuse(f"declares rows = {rows!r:.80}: it must be a method, rows(self, message)")
    if iscoroutinefunction(rows) or isasyncgenfunction(rows):
        refuse("has rows that are async: nobody awaits them, write def rows(self, message)")
    try:
        signature(rows).bind(None)
    except TypeError:
        refuse("has rows that do not take one message: write def rows(self, message)")
    except ValueError:
        # Python does not know the parameters of what is written in C.
        return


def _check_shapes(plugin: Aggregate, refuse: Callable[[str], None]) -> None:
    """Refuse attributes that are not tuples of the declared types."""
    for name, kind in _SHAPES.items():
        given = getattr(plugin, name)
        what = "texts" if kind is str else f"{kind.__name__}s"
        if isinstance(given, kind):
            refuse(
                f"declares {name} = {given!r:.80}, which is no tuple: write {name} = (...,), with "
                "a comma before the bracket"
            )
        if not isinstance(given, tuple | list | set | frozenset):
            refuse(f"declares {name} = {given!r:.80}: it must be a tuple of {what}")
        for each in given:
            if not isinstance(each, kind):
                refuse(f"declares {each!r:.80} among its {name}: they must be {what}")
    if not isinstance(plugin.retention, Mapping):
        refuse(
            f"declares retention = {plugin.retention!r:.80}: it must be a dict of timedeltas, "
            "resolution to age"
        )
    for each in (*plugin.retention, *plugin.retention.values()):
        if not isinstance(each, timedelta):
            refuse(f"declares {each!r:.80} in its retention: resolutions and ages are timedeltas")
    if plugin.backlog_delta is not None and not isinstance(plugin.backlog_delta, timedelta):
        refuse(f"declares backlog_delta = {plugin.backlog_delta!r:.80}: it must be a timedelta")


def _refuser(plugin: Aggregate) -> Callable[[str], None]:
    def refuse(reason: str) -> None:
        raise InvalidPlugin(f"{plugin.name!r} {reason}")

    return refuse
