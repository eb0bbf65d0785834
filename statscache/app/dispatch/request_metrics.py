"""Counts what this server has answered, and how long that took.

With several worker processes set PROMETHEUS_MULTIPROC_DIR to an empty folder, as prometheus_client
has it: then each of them tells what all have answered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    multiprocess,
)

from statscache.app.dispatch.route_table import RouteTable
from statscache.logs.records import begin_request

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# The samples of creation times would double the output, and are of no use.
disable_created_metrics()  # type: ignore[no-untyped-call]


class RequestMetrics:
    """The requests of one process, by route and status."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "statscache_requests",
            "Requests that were answered.",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "statscache_request_seconds",
            "Seconds until the first byte of an answer; those who wait for a change are not there.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        # Finding the child of a metric by its labels takes longer than counting.
        self._children: dict[tuple[str, str], tuple[Any, Any]] = {}

    def count(self, route: str, status: str, seconds: float | None) -> None:
        """Count an answer, and how long it took; None for a long poll, which waits on purpose."""
        child = self._children.get((route, status))
        if child is None:
            child = (self._requests.labels(route, status), self._seconds.labels(route))
            self._children[route, status] = child
        child[0].inc()
        if seconds is not None:
            child[1].observe(seconds)

    def add_to(self, registry: CollectorRegistry) -> None:
        """Let ``registry`` have what was counted, in all processes where they share a folder."""
        if os.environ.get(MULTIPROCESS_VARIABLE):
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(self._registry)


class MetricsMiddleware:
    """A WSGI application around another one, whose answers it counts.

    Args:
        app: the other one.
        metrics: where they are counted.
        table: names the routes.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], metrics: RequestMetrics, table: RouteTable
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._table = table

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        began = time.perf_counter()
        begin_request(environ)

        def start(status: str, *arguments: Any) -> Any:
            route = self._table.label(environ.get("PATH_INFO", ""))
            is_long_poll = "wait=" in environ.get("QUERY_STRING", "")
            seconds = None if is_long_poll else time.perf_counter() - began
            self._metrics.count(route, status[:3], seconds)
            return start_response(status, *arguments)

        return self._app(environ, start)
