"""``/metrics`` for Prometheus: what this server has answered, and how far the hub is.

With several worker processes set PROMETHEUS_MULTIPROC_DIR to an empty folder, as prometheus_client
has it: then each of them tells what all have answered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from statscache.app.dispatch.route import Answer, Call, Lifetime, Route, Scope
from statscache.app.state import coverage
from statscache.database import tables
from statscache.logs.records import begin_request

if TYPE_CHECKING:
    from statscache.app.dispatch.dispatcher import Dispatcher

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

OPENMETRICS = "openmetrics"

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_OTHER = "other"

# Since when each of them is counted would double what is sent, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Measured:
    """A WSGI application around another one, which counts what that answers.

    Args:
        app: the other one.
        dispatcher: knows which routes there are.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], dispatcher: Dispatcher) -> None:
        self._app = app
        self._dispatcher = dispatcher
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "statscache_requests",
            "Requests that were answered.",
            ("route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "statscache_request_seconds",
            "Seconds until the first byte of an answer; those who wait for a change are not there.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        # To find the child of a metric by its labels takes longer than to count.
        self._children: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._tails = {
            route.rule.rpartition("/")[2]: route.name
            for route in dispatcher.routes
            if not route.rule.endswith(">") and "<column>" not in route.rule
        }

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        began = time.perf_counter()
        begin_request(environ)

        def measured(status: str, *arguments: Any) -> Any:
            route = self._route(environ.get("PATH_INFO", ""))
            requests, seconds = self._child(route, status[:3])
            requests.inc()
            if "wait=" not in environ.get("QUERY_STRING", ""):
                seconds.observe(time.perf_counter() - began)
            return start_response(status, *arguments)

        return self._app(environ, measured)

    def register(self, registry: CollectorRegistry) -> None:
        """Let ``registry`` have what was counted, in all processes where they share a folder."""
        if os.environ.get(MULTIPROCESS_VARIABLE):
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(self.registry)

    def _child(self, route: str, status: str) -> tuple[Any, Any]:
        child = self._children.get((route, status))
        if child is None:
            child = (self._requests.labels(route, status), self._seconds.labels(route))
            self._children[route, status] = child
        return child

    def _route(self, path: str) -> str:
        """The name of the route, told from the address: there are few, whatever clients ask for."""
        head, _, tail = path.rstrip("/").rpartition("/")
        if head == "/api":
            return self._tails.get(tail, "rows")
        if path.rstrip("/") == "/api":
            return "idents"
        if head == "/api/plugins":
            return "plugin"
        if head.endswith("/values"):
            return "values"
        return self._tails.get(tail, _OTHER) if tail else _OTHER


class Hub(Collector):
    """What the framework's tables say of the hub, as a collector of Prometheus."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def collect(self) -> Iterator[Metric]:
        """One metric after the other."""
        snapshot, connection = self._call.snapshot, self._call.connection
        lanes = sorted(snapshot.lanes.values(), key=lambda lane: lane.id)
        for name, text, column in _OF_LANES:
            metric: Any = _family(name, text, ["lane"])
            for lane in lanes:
                value = getattr(lane, column)
                if value is not None:
                    metric.add_metric([lane.name], float(value))
            yield metric
        plugins = sorted(snapshot.plugins.values(), key=lambda plugin: plugin.ident)
        for name, text, column in _OF_PLUGINS:
            metric = _family(name, text, ["ident"])
            for plugin in plugins:
                value = getattr(plugin, column)
                if value is not None:
                    metric.add_metric([plugin.ident], float(value))
            yield metric
        state = GaugeMetricFamily(
            "statscache_plugin_state",
            "1 for the state that a plugin is in.",
            labels=["ident", "state"],
        )
        for plugin in plugins:
            # As discovery says it: one that rejects all that it is given is failing, too.
            state.add_metric([plugin.ident, coverage.of(snapshot, plugin.ident).state], 1)
        yield state
        revisions = CounterMetricFamily(
            "statscache_revision",
            "Transactions that changed the rows of an ident.",
            labels=["ident"],
        )
        for ident, revision in snapshot.revisions.items():
            revisions.add_metric([ident], revision.number)
        yield revisions
        broken = GaugeMetricFamily(
            "statscache_plugins_broken", "Plugins that are installed and cannot be used."
        )
        broken.add_metric([], len(self._call.service.installed.broken))
        yield broken
        yield from _counts(connection)


def _family(name: str, text: str, labels: list[str]) -> Any:
    if name.endswith("_total"):
        return CounterMetricFamily(name.removesuffix("_total"), text, labels=labels)
    return GaugeMetricFamily(name, text, labels=labels)


_OF_LANES = (
    ("statscache_lane_messages_total", "Messages that a lane has counted.", "messages"),
    ("statscache_lane_batches_total", "Transactions in which it did.", "batches"),
    ("statscache_lane_watermark_seconds", "Reconciled with the archive up to here.", "watermark"),
    ("statscache_lane_newest_seconds", "The time of the newest message counted.", "newest"),
    ("statscache_lane_committed_seconds", "When the last batch was committed.", "committed_at"),
    ("statscache_lane_beat_seconds", "When the hub last said that it listens.", "beat_at"),
    (
        "statscache_lane_failures",
        "Batches that failed since the last one that did not.",
        "failures",
    ),
)
_OF_PLUGINS = (
    ("statscache_plugin_missed_total", "Messages that no archive can give again.", "missed"),
    ("statscache_audited_until_seconds", "Compared with the archive up to here.", "audited_until"),
    ("statscache_audit_mismatches_total", "Rows that differed from the archive.", "mismatches"),
)


def _counts(connection: Connection) -> Iterator[Metric]:
    """What has to be counted in the tables themselves, which are small."""
    numbers = (
        (
            "statscache_rejected_total",
            "Messages that could not be counted.",
            select(func.coalesce(func.sum(tables.rejected_total.c.messages), 0)),
        ),
        (
            "statscache_rejected_bytes",
            "What is kept of them.",
            select(func.coalesce(func.sum(tables.rejected.c.size), 0)),
        ),
        (
            "statscache_late_messages",
            "Messages that came late, and wait for the archive.",
            select(func.count()).select_from(tables.late),
        ),
        (
            "statscache_missing_messages",
            "Messages that the archive says it has, and did not give.",
            select(func.coalesce(func.sum(tables.gap.c.missing), 0)),
        ),
    )
    for name, text, statement in numbers:
        metric = _family(name, text, [])
        metric.add_metric([], float(connection.scalar(statement) or 0))
        yield metric
    rejected: Any = CounterMetricFamily(
        "statscache_rejected_by_cause",
        "The same, by the plugin that could not count them (none: nobody could) and the cause.",
        labels=["plugin", "cause"],
    )
    total = tables.rejected_total.c
    for plugin, cause, messages in connection.execute(
        select(total.plugin, total.cause, total.messages).order_by(total.plugin, total.cause)
    ):
        rejected.add_metric([plugin, cause], float(messages))
    yield rejected
    audit = connection.execute(select(tables.audit)).first()
    for name, text, column in (
        ("statscache_audit_sweeps_total", "How often all was compared.", "sweeps"),
        ("statscache_audit_messages_total", "Messages of the archive that were read.", "messages"),
        ("statscache_audit_repaired_total", "Rows that were counted anew.", "repaired"),
    ):
        metric = _family(name, text, [])
        metric.add_metric([], float(getattr(audit, column)) if audit is not None else 0.0)
        yield metric

    lost = _family("statscache_audit_lost_messages", "Counted, and lacking in the archive.", [])
    lost.add_metric([], float(max(audit.lost, audit.lost_last_sweep)) if audit is not None else 0.0)
    yield lost


def _answer(call: Call) -> Answer:
    registry = CollectorRegistry()
    call.service.measured.register(registry)
    registry.register(Hub(call))
    if call.format == OPENMETRICS:
        body = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return Answer(body=body, lifetime=Lifetime.NONE)
    body = generate_latest(registry)
    return Answer(body=body, content_type=_CONTENT_TYPE, lifetime=Lifetime.NONE)


ROUTE = Route(
    rule="/metrics",
    name="metrics",
    summary="What is measured, for Prometheus.",
    description="Times are UNIX seconds.",
    answer=_answer,
    formats=("text", OPENMETRICS),
    scope=Scope.EVERYTHING,
    schema={"type": "string"},
)
