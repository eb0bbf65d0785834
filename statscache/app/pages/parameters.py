"""The parameters of a route, as pages list them."""

from __future__ import annotations

from typing import Any

from statscache.app.dispatch.route import Route
from statscache.app.http.parameters import LARGEST_NUMBER, Parameter, filters_of
from statscache.plugins.installed.discovery import Dataset


def described(route: Route, dataset: Dataset | None) -> list[dict[str, Any]]:
    parameters: list[Parameter] = [*route.all_parameters]
    if route.filterable and dataset is not None:
        available = filters_of(dataset)
        parameters = [each for each in parameters if each.name not in available]
        parameters += available.values()
    return [
        {
            "name": parameter.name,
            "summary": parameter.summary,
            "default": "" if parameter.default in (None, (), "") else parameter.default,
            "example": parameter.example,
            "values": _words(parameter, dataset),
        }
        for parameter in parameters
        if parameter.name != "_"
    ]


def _words(parameter: Parameter, dataset: Dataset | None) -> str:
    """What it takes, as far as its schema says it in a few words."""
    if callable(parameter.kind) and dataset is None:
        return ""
    schema = parameter.kind_for(dataset).schema
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "integer" and "minimum" in schema:
        low, high = schema["minimum"], schema["maximum"]
        return f"from {low}" if high == LARGEST_NUMBER else f"{low} to {high:,}"
    return ""
