"""All the routes: a new one is added here."""

from __future__ import annotations

from dataclasses import replace

from statscache.app.dispatch.request_metrics import RequestMetrics
from statscache.app.dispatch.route import Route
from statscache.app.live.event_rows import EventRows
from statscache.app.live.listeners import Listeners
from statscache.app.pages import dataset, index, reference
from statscache.app.routes import (
    badge,
    batch,
    events,
    health,
    idents,
    layout,
    messages,
    metrics,
    openapi,
    plugins,
    series,
    summary,
    top,
    values,
)


def all_routes(
    rows: Route, listeners: Listeners, event_rows: EventRows, request_metrics: RequestMetrics
) -> tuple[Route, ...]:
    """The routes of an application, in the order in which documents list the routes.

    Args:
        rows: the route of rows.
        listeners: to which clients of events are added.
        event_rows: the rows that events carry.
        request_metrics: that the route of metrics tells.
    """
    return (
        replace(idents.ROUTE, page=index.ROUTE),
        replace(
            rows,
            page=replace(dataset.ROUTE, parameters=rows.parameters, filterable=True),
        ),
        layout.ROUTE,
        series.ROUTE,
        summary.ROUTE,
        top.ROUTE,
        values.ROUTE,
        messages.ROUTE,
        badge.ROUTE,
        *events.routes(listeners, event_rows),
        *plugins.ROUTES,
        batch.ROUTE,
        openapi.ROUTE,
        *health.ROUTES,
        metrics.route(request_metrics),
        index.ROUTE,
        reference.ROUTE,
    )
