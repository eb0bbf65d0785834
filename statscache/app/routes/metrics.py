"""``/metrics`` for Prometheus: what this server has answered, and how far the hub is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from statscache.app.dispatch.request_metrics import RequestMetrics
from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.http.answer import Answer, Lifetime
from statscache.app.state import coverage
from statscache.database import tables

OPENMETRICS = "openmetrics"

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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
            # Like discovery: a plugin that rejects all messages is failing too.
            state.add_metric([plugin.ident, coverage.measure(snapshot, plugin.ident).state], 1)
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


def _answer(metrics: RequestMetrics, call: Call) -> Answer:
    registry = CollectorRegistry()
    metrics.add_to(registry)
    registry.register(Hub(call))
    if call.format == OPENMETRICS:
        body = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return Answer(body=body, lifetime=Lifetime.NONE)
    body = generate_latest(registry)
    return Answer(body=body, content_type=_CONTENT_TYPE, lifetime=Lifetime.NONE)


def route(metrics: RequestMetrics) -> Route:
    """The route, which tells ``metrics`` and what the tables say."""
    return Route(
        rule="/metrics",
        name="metrics",
        summary="What is measured, for Prometheus.",
        description="Times are UNIX seconds.",
        answer=partial(_answer, metrics),
        formats=("text", OPENMETRICS),
        scope=Scope.EVERYTHING,
        schema={"type": "string"},
    )
