"""``/openapi.json``: the API as OpenAPI 3.1, made from the declarations that parse the requests.

Every dataset has operations of its own, because its filters and its rows are its own: what the
document says of an address is true for that address.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import statscache
from statscache import people
from statscache.app.dispatch import rankings
from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.http.answer import Answer, Lifetime
from statscache.app.http.formats import ENDLESS, FORMATS
from statscache.app.http.parameters import Parameter, filters_of
from statscache.app.routes import values
from statscache.app.state.revisions import Snapshot
from statscache.config import Settings
from statscache.people import People
from statscache.plugins.installed.discovery import Dataset, Installed

PROBLEM_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "description": "RFC 9457.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and what to do."},
        "parameter": {"type": "string", "description": "The parameter that is wrong."},
        "allowed": {
            "type": "array",
            "items": {"type": "string"},
            "description": "What could have been said instead.",
        },
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
}

_DESCRIPTION = (
    "Statistics and latest values of what happens on a message bus. Everything is read-only and "
    "public, for pages of any origin. Times are UNIX seconds in answers; in queries they may be "
    "ISO 8601 or relative to now (-7d) as well."
)

_STATUSES = {
    "400": "A parameter cannot be used; the problem names it.",
    "403": "The operator does not allow this.",
    "404": "There is no such thing; the problem says what there is.",
    "406": "None of the formats that are accepted.",
    "414": "The query is longer than any may be.",
    "422": "More work than one request may cost: ask for less.",
    "429": "Too many at once: Retry-After says when to come again.",
    "503": "The database is away, or not ready for this: Retry-After says when to come again.",
}


def document(
    installed: Installed, routes: Iterable[Route], settings: Settings, root: str = ""
) -> dict[str, Any]:
    """The OpenAPI document of an application with these plugins.

    Args:
        settings: whether people are listed, and which archive there is.
        root: the prefix under which the service is mounted.
    """
    paths: dict[str, Any] = {}
    who = settings.people
    for route in routes:
        if not route.is_offered(settings):
            continue
        for path, dataset, fixed in _addresses(route, installed, who):
            paths[path] = {"get": _operation(route, dataset, fixed, who)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "statscache",
            "version": statscache.__version__,
            "description": _DESCRIPTION,
            "license": {"name": "LGPL-2.1-or-later", "identifier": "LGPL-2.1-or-later"},
        },
        "servers": [{"url": root or "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {"Problem": PROBLEM_SCHEMA},
            "responses": {
                status: {
                    "description": text,
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"}
                        }
                    },
                }
                for status, text in _STATUSES.items()
            },
        },
    }


def _addresses(
    route: Route, installed: Installed, who: People
) -> Iterator[tuple[str, Dataset | None, str | None]]:
    """The paths of a route: with the dataset, and the column, that each has in it."""
    if "<ident>" not in route.rule:
        yield route.rule, None, None
        return
    for dataset in installed.datasets.values():
        if not route.applies(dataset) or rankings.always_refuses(who, dataset, route):
            continue
        rule = route.rule.replace("<ident>", quote(dataset.ident, safe=""))
        if "<column>" not in rule:
            yield rule, dataset, None
            continue
        for column in values.columns(dataset):
            if not rankings.may_list(who, dataset, column):
                continue
            yield rule.replace("<column>", column), dataset, column


def _operation(
    route: Route, dataset: Dataset | None, column: str | None, who: People
) -> dict[str, Any]:
    parameters = [*route.all_parameters]
    if route.filterable and dataset is not None:
        defaults = {each.name: each.default for each in parameters}
        listed = () if who.lists else tuple(route.lists(dataset, defaults))
        named = [name for name in people.columns(dataset) if name in listed]
        available = filters_of(dataset)
        parameters = [each for each in parameters if each.name not in available]
        parameters += [
            replace(each, is_required=True, example="somebody") if each.name in named else each
            for each in available.values()
        ]
    schema = route.schema
    if callable(schema):
        assert dataset is not None
        schema = schema(dataset)
    content: dict[str, Any] = {}
    for name in route.offered:
        # A callback makes JavaScript of JSON; both are what a client that asks for them expects.
        media = FORMATS[name].content_type.partition(";")[0]
        content[media] = {"schema": schema if name == "json" else {"type": "string"}}
        if name == ENDLESS:
            content[media]["x-event-data"] = schema
    if "json" in route.formats:
        content["application/javascript"] = {"schema": {"type": "string"}}
    name = ".".join(part for part in (route.name, dataset and dataset.ident, column) if part)
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": route.summary,
        "tags": [dataset.ident if dataset is not None else "service"],
        "parameters": [
            _parameter(parameter, dataset)
            for parameter in parameters
            if _takes_something(parameter, dataset)
        ],
        "responses": {
            **{status: {"$ref": f"#/components/responses/{status}"} for status in _STATUSES},
            **{str(status): _response(route, status, content) for status in route.statuses},
        },
    }
    if route.description:
        operation["description"] = route.description
    return operation


def _response(route: Route, status: int, content: Mapping[str, Any]) -> dict[str, Any]:
    """An answer of the route; with a status of errors, it may be a problem all the same."""
    if str(status) in _STATUSES:
        problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
        content = {**content, "application/problem+json": problem}
    return {"description": route.summary, "content": content}


def _takes_something(parameter: Parameter, dataset: Dataset | None) -> bool:
    """Whether a parameter has any value in queries of ``dataset``: a column, say, if it has one."""
    return bool(parameter.kind_for(dataset).schema.get("enum", True))


def _parameter(parameter: Parameter, dataset: Dataset | None) -> dict[str, Any]:
    schema: Mapping[str, Any] = parameter.kind_for(dataset).schema
    if parameter.repeatable:
        schema = {"type": "array", "items": schema, "maxItems": parameter.most}
        if parameter.is_required:
            schema = {**schema, "minItems": 1}
    elif isinstance(parameter.default, str | int):
        schema = {**schema, "default": parameter.default}
    found: dict[str, Any] = {
        "name": parameter.name,
        "in": "query",
        "description": parameter.summary,
        "schema": schema,
    }
    if parameter.is_required:
        found["required"] = True
    if parameter.repeatable:
        found |= {"style": "form", "explode": True}
    example = parameter.example_for(dataset)
    if example is not None:
        value = parameter.kind_for(dataset).parse(parameter.name, example)
        # Numbers are numbers in documents; times and names are what a query says.
        shown = value if isinstance(value, int) else example
        found["example"] = [shown] if parameter.repeatable else shown
    return found


def _answer(call: Call) -> Answer:
    root = quote(call.request.root.encode("latin-1"))
    found = document(call.installed, call.subrequests.routes, call.service.settings, root)
    return Answer(found, lifetime=Lifetime.STATIC)


def _state(call: Call, snapshot: Snapshot) -> Hashable:
    return call.request.root, call.service.datasets.at(snapshot).validator


ROUTE = Route(
    rule="/openapi.json",
    name="openapi",
    summary="This API as OpenAPI 3.1, for the plugins that are installed.",
    answer=_answer,
    scope=Scope.NOTHING,
    state=_state,
    schema={"type": "object", "required": ["openapi", "paths"]},
)
