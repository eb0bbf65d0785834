"""What is installed, and all there is to know of it: ``/api/plugins``, ``/api/plugins/<ident>``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from sqlalchemy import Column, DateTime, Float, Integer, Numeric, inspect

from statscache import people
from statscache.app.charts import sources
from statscache.app.dispatch import rankings
from statscache.app.dispatch.route import Call, Route, Scope, no_people
from statscache.app.http.answer import Answer
from statscache.app.routes import answerable, values
from statscache.app.state import coverage, filters, table_sizes
from statscache.app.state.coverage import LIVE_WITHIN, Coverage
from statscache.app.state.revisions import Snapshot
from statscache.app.state.steps import MINUTES
from statscache.app.state.table_sizes import Size
from statscache.config import Settings
from statscache.plugins.columns import Value
from statscache.plugins.installed.discovery import Broken, Dataset, Installed, Source
from statscache.plugins.merges import RULES
from statscache.plugins.models import plain
from statscache.plugins.schedule import format_interval

BROKEN = "broken"
"""The state of what is installed and cannot be used."""

_TYPES = {str: "text", int: "integer", float: "number"}


def entry_of(call: Call) -> dict[str, Any]:
    """All there is to know of the dataset of ``call``."""
    dataset = call.dataset
    return _entry(call, dataset, table_sizes.sizes(call.connection, [dataset.model.__table__]))


def _one(call: Call) -> Answer:
    return Answer(entry_of(call))


def _all(call: Call) -> Answer:
    installed = call.installed
    datasets = installed.datasets.values()
    found = table_sizes.sizes(call.connection, [dataset.model.__table__ for dataset in datasets])
    gone = [
        {"ident": ident, "state": row.state, "coverage": _coverage(call.snapshot, ident).to_json()}
        for ident, row in sorted(call.snapshot.plugins.items())
        if ident not in installed.datasets
    ]
    return Answer(
        {
            "plugins": [_entry(call, dataset, found) for dataset in datasets],
            "broken": [_broken(broken) for broken in installed.broken],
            "gone": gone,
        }
    )


def _entry(call: Call, dataset: Dataset, found: Mapping[str, Size]) -> dict[str, Any]:
    ident, plugin = dataset.ident, dataset.plugin
    service, snapshot = call.service, call.snapshot
    covered = _coverage(snapshot, ident)
    revision = snapshot.revisions.get(ident)
    size = found[dataset.model.__table__.name]
    width = None if dataset.schedule is None else dataset.schedule.interval
    links = _links(call, dataset)
    answers = answerable.answers(dataset)
    return {
        "ident": ident,
        "name": plugin.name,
        "summary": plugin.summary,
        "description": plugin.description,
        "contract": dataset.contract,
        "state": covered.state,
        "error": covered.error,
        "columns": _columns(dataset),
        "people": _people(service.settings, dataset),
        "source": _source(dataset),
        "answers": answers,
        "topics": list(dataset.topics),
        "counts_messages": dataset.counts_messages,
        "resolution": None if width is None else _resolution(ident, width),
        "resolutions": _siblings(call.installed, dataset),
        "retention": _seconds(_retention(service.settings, dataset)),
        "label": dataset.label,
        "coverage": covered.to_json(),
        "freshness": _freshness(covered, service.settings, call.now),
        "audit": {
            "until": plain(covered.audited_until),
            "mismatches": covered.mismatches,
        },
        "missed": covered.missed,
        "rows": {"count": size.rows, "accuracy": size.accuracy},
        "revision": None
        if revision is None
        else {"number": revision.number, "changed_at": plain(revision.changed_at)},
        "distribution": _distribution(dataset.source),
        "links": links,
        "example": f"{links['rows']}?{_example(service.settings, dataset)}",
        "examples": answerable.examples(service.settings.people, dataset, links, answers),
    }


def _broken(broken: Broken) -> dict[str, Any]:
    return {
        "state": BROKEN,
        "error": broken.error,
        "distribution": _distribution(broken.source),
    }


def _distribution(source: Source) -> dict[str, str]:
    return {
        "name": source.distribution,
        "version": source.version,
        "entry_point": source.entry_point,
    }


# What its author has declared.


def _columns(dataset: Dataset) -> list[dict[str, Any]]:
    filterable = filters.columns(dataset)
    found: list[dict[str, Any]]
    if not dataset.is_classic:
        found = [
            {"name": key.name, "kind": "key", "type": _TYPES[key.type], "role": key.role}
            | ({"error": getattr(key, "error", 0.0)} if key.type is float else {})
            for key in dataset.keys
        ] + [_value(value) for value in dataset.values]
    else:
        found = _columns_of_model(dataset)
    timestamp: dict[str, Any] = {
        "name": "timestamp",
        "kind": "time",
        "type": "time",
        "label": dataset.label,
    }
    return [column | {"filter": column["name"] in filterable} for column in (timestamp, *found)]


def _value(value: Value) -> dict[str, Any]:
    is_set = getattr(value.rule, "is_set", False)
    type_ = _TYPES[value.type]
    found = {
        "name": value.name,
        "kind": "value",
        "type": f"set of {type_}" if is_set else type_,
        "merge": value.merge,
        "optional": getattr(value, "optional", False),
    }
    return found | {"most": getattr(value, "most", 0)} if is_set else found


def _source(dataset: Dataset) -> str | None:
    """The ident of what a derived statistic is derived from."""
    table = getattr(dataset.plugin, "source_table", None)
    return None if table is None else str(table.ident)


def _people(settings: Settings, dataset: Dataset) -> dict[str, Any] | None:
    """Of which columns the values are people, and whether they are listed."""
    found = people.columns(dataset)
    if not found:
        return None
    who = settings.people
    return {
        "columns": list(found),
        "lists": who.lists,
        "rankings": who.lists and who.rankings,
    }


def _example(settings: Settings, dataset: Dataset) -> str:
    """A query of rows that works: where people are not listed it names one."""
    names = () if settings.people.lists else people.columns(dataset)
    return "".join(f"{name}=somebody&" for name in names) + "start=-7d&limit=10"


def _columns_of_model(dataset: Dataset) -> list[dict[str, Any]]:
    """A classic plugin has only a model: that columns of text are keys is a guess."""
    attributes = inspect(dataset.model).column_attrs
    filterable = filters.columns(dataset)
    found = []
    for name in dataset.model.served_columns():
        if name != "timestamp":
            type_ = _type(attributes[name].columns[0])
            kind = "key" if type_ == "text" and name in filterable else "value"
            found.append({"name": name, "kind": kind, "type": type_})
    return found


def _type(column: Column[Any]) -> str:
    if isinstance(column.type, DateTime):
        return "time"
    if isinstance(column.type, Integer):
        return "integer"
    return "number" if isinstance(column.type, Numeric | Float) else "text"


def _siblings(installed: Installed, dataset: Dataset) -> list[dict[str, Any]]:
    """The idents of the same statistic, finest first."""

    def statistic(one: Dataset) -> tuple[str, str]:
        return str(one.plugin.name), one.source.distribution

    return [
        _resolution(other.ident, other.schedule.interval)
        for other in sorted(installed.datasets.values(), key=_width)
        if other.schedule is not None and statistic(other) == statistic(dataset)
    ]


def _width(dataset: Dataset) -> timedelta:
    return timedelta(0) if dataset.schedule is None else dataset.schedule.interval


def _resolution(ident: str, width: timedelta) -> dict[str, Any]:
    return {
        "ident": ident,
        "schedule": format_interval(width),
        "seconds": plain(width.total_seconds()),
    }


def _retention(settings: Settings, dataset: Dataset) -> timedelta | None:
    """The age at which the hub deletes rows."""
    table = dataset.declaration
    if table is None or table.schedule is None:
        return None
    return settings.retention.get(str(table.schedule), table.retention)


def _seconds(age: timedelta | None) -> float | int | None:
    seconds: float | int | None = None if age is None else plain(age.total_seconds())
    return seconds


# What the hub has done.


def _coverage(snapshot: Snapshot, ident: str) -> Coverage:
    return coverage.measure(snapshot, ident).floored(MINUTES)


def _freshness(covered: Coverage, settings: Settings, now: float) -> dict[str, Any]:
    # A hub that flushes rarely says rarely that it listens.
    within = max(LIVE_WITHIN, 2 * settings.frequency.total_seconds())
    return {
        "live": covered.is_live(now, within),
        "lag": plain(covered.lag(now)),
        "newest": plain(covered.newest),
    }


# Where to go from here.


def _links(call: Call, dataset: Dataset) -> dict[str, str]:
    # A prefix under which the service is mounted comes first.
    root = quote(call.request.root.encode("latin-1"))
    ident = quote(dataset.ident, safe="")
    found = {}
    for route in call.subrequests.routes:
        if "<ident>" not in route.rule or not _leads_somewhere(call, dataset, route):
            continue
        rule = route.rule.replace("<ident>", ident)
        if "<column>" not in rule:
            found[route.name] = root + rule
            continue
        for column in values.columns(dataset):
            if rankings.may_list(call.service.settings.people, dataset, column):
                found[f"{route.name}/{column}"] = root + rule.replace("<column>", column)
    return found


def _leads_somewhere(call: Call, dataset: Dataset, route: Route) -> bool:
    settings = call.service.settings
    if not route.is_offered(settings):
        return False
    if rankings.always_refuses(settings.people, dataset, route):
        return False
    if route.name == "top" and not any(
        rankings.may_list(settings.people, dataset, column) for column in sources.keys(dataset)
    ):
        return False
    return route.applies(dataset)


def _state(call: Call, snapshot: Snapshot) -> Any:
    return call.request.root, _coverage(snapshot, call.dataset.ident)


def _state_of_all(call: Call, snapshot: Snapshot) -> Any:
    found = [(ident, _coverage(snapshot, ident)) for ident in sorted(snapshot.plugins)]
    return call.request.root, tuple(found)


# What it looks like.


def _object(*optional: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _list(items: Any, description: str) -> dict[str, Any]:
    return {"type": "array", "items": items, "description": description}


def _or_null(type_: str, description: str) -> dict[str, Any]:
    return {"type": [type_, "null"], "description": description}


_TEXT = {"type": "string"}
_INTEGER = {"type": "integer"}
_LABEL = {
    "enum": ["start", "end", "message"],
    "description": "What the timestamp of a row is: the start or the end of its window, or the "
    "time of a message.",
}
_DISTRIBUTION = _object(name=_TEXT, version=_TEXT, entry_point=_TEXT)
_RESOLUTION = _object(
    ident=_TEXT,
    schedule={"type": "string", "description": "Such as 15s, 1m or 1d."},
    seconds={"type": "number"},
)
_COLUMN = _object(
    "label",
    "role",
    "merge",
    "optional",
    "most",
    "error",
    name=_TEXT,
    kind={"enum": ["time", "key", "value"]},
    type={"enum": ["time", "text", "integer", "number", "set of text", "set of integer"]},
    filter={"type": "boolean", "description": "Whether its name is a parameter of queries."},
    label=_LABEL,
    role={"enum": ["user", "package", "category", "topic", None]},
    merge={
        "enum": list(RULES),
        "description": "What becomes of two values of one row.",
    },
    optional={"type": "boolean", "description": "Whether values may be null: not known yet."},
    most={
        "type": "integer",
        "description": "How many members of a set are kept, the smallest ones.",
    },
    error={"type": "number", "description": "The relative error of the middle of a bin, at most."},
)
ENTRY_SCHEMA: dict[str, Any] = _object(
    ident=_TEXT,
    name=_TEXT,
    summary=_TEXT,
    description=_TEXT,
    contract={"enum": ["aggregate", "classic"]},
    state={
        "enum": [*coverage.STATES],
        "description": "installed: the hub has not seen it yet; filling: its history is not "
        "complete; failing: its last write did not succeed, or it has rejected all that it was "
        "given.",
    },
    error=_or_null("string", "Why it is failing."),
    columns={"type": "array", "items": _COLUMN},
    people=_object(
        columns=_list(_TEXT, "Those of its keys whose values are people."),
        lists={
            "type": "boolean",
            "description": "Whether they are listed: otherwise queries must name them.",
        },
        rankings={
            "type": "boolean",
            "description": "Whether they are ranked by top, and completed by values.",
        },
    )
    | {"type": ["object", "null"]},
    source=_or_null("string", "The ident from whose rows it is derived."),
    answers=_object(
        count=_list(_TEXT, "The columns whose different values can be counted."),
        quantile=_list(_TEXT, "The columns of which there are quantiles."),
        hour_of_week={"type": "boolean", "description": "Whether it has punch cards."},
    ),
    topics=_list(_TEXT, "That it counts; * is one token, # any number of them."),
    counts_messages={
        "type": "boolean",
        "description": "Whether its value is the number of messages under its topics.",
    },
    resolution={"oneOf": [_RESOLUTION, {"type": "null"}]},
    resolutions=_list(_RESOLUTION, "Of the same statistic, finest first."),
    retention=_or_null("number", "The age in seconds at which rows are deleted; null: never."),
    label=_LABEL,
    coverage=coverage.SCHEMA,
    freshness=_object(
        live={"type": "boolean", "description": "Whether live messages are counted."},
        lag=_or_null("number", "Seconds from the end of the coverage to now."),
        newest=_or_null("number", "The time of the newest message."),
    ),
    audit=_object(
        until=_or_null("number", "Everything up to here has been compared with the archive."),
        mismatches=_INTEGER,
    ),
    missed={
        "type": "integer",
        "description": "Messages that were lost to it because its writes failed.",
    },
    rows=_object(count=_INTEGER, accuracy={"enum": ["exact", "estimate", "at least"]}),
    revision=_object(number=_INTEGER, changed_at={"type": "number"}) | {"type": ["object", "null"]},
    distribution=_DISTRIBUTION,
    links={"type": "object", "additionalProperties": _TEXT},
    example={"type": "string", "description": "The address of a query that works."},
    examples={
        "type": "object",
        "additionalProperties": _TEXT,
        "description": "Addresses of queries that work, by what they show.",
    },
)
SCHEMA: dict[str, Any] = _object(
    plugins={"type": "array", "items": ENTRY_SCHEMA},
    broken=_list(
        _object(state={"const": BROKEN}, error=_TEXT, distribution=_DISTRIBUTION),
        "What is installed and cannot be used.",
    ),
    gone=_list(
        _object(ident=_TEXT, state=_TEXT, coverage=coverage.SCHEMA),
        "What was counted once, and is not installed any more.",
    ),
)

ROUTES = (
    Route(
        rule="/api/plugins",
        name="plugins",
        summary="All that is installed, and all there is to know of it.",
        description="One entry per ident; plugins that are installed and cannot be used are listed "
        "with the reason. Times are UNIX seconds.",
        answer=_all,
        scope=Scope.ALL,
        state=_state_of_all,
        clock=True,
        steps=lambda _dataset, _values: MINUTES,
        schema=SCHEMA,
    ),
    Route(
        rule="/api/plugins/<ident>",
        name="plugin",
        summary="All there is to know of one ident.",
        description="Its columns, what it covers, how fresh it is, where to go from here. Times "
        "are UNIX seconds.",
        answer=_one,
        lists=no_people,
        state=_state,
        clock=True,
        steps=lambda _dataset, _values: MINUTES,
        schema=ENTRY_SCHEMA,
    ),
)
