"""``/healthz`` and ``/readyz``: for the monitoring of the processes."""

from __future__ import annotations

import logging

from sqlalchemy import select

from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.http import parameters
from statscache.app.http.answer import Answer, Lifetime
from statscache.app.http.parameters import Parameter
from statscache.app.state.coverage import LIVE_WITHIN
from statscache.app.state.steps import Every
from statscache.database.tables import hub_failure
from statscache.errors import Unavailable
from statscache.plugins.models import plain

log = logging.getLogger(__name__)

OK = "ok"
SECONDS = Every(1)


def _alive(_call: Call) -> Answer:
    return Answer({"status": OK}, lifetime=Lifetime.NONE)


def _ready(call: Call) -> Answer:
    """Whether the database answers, and whether the hub has said lately that it listens.

    Why it does not is for the operator's log: anybody may ask.
    """
    checks = {"database": OK, "hub": OK}
    beat = None
    try:
        call.service.database.check_access(call.connection)
        lanes = call.snapshot.lanes.values()
        failure = call.connection.execute(select(hub_failure)).one_or_none()
    except Unavailable as error:
        log.error("not ready: %s", error)
        checks["database"] = error.public
        checks["hub"] = "not known"
    else:
        beat = max((lane.beat_at for lane in lanes if lane.beat_at is not None), default=None)
        within = max(LIVE_WITHIN, 2 * call.service.settings.frequency.total_seconds())
        if failure is not None:
            checks["hub"] = f"it ended {call.now - failure.failed_at:.0f} s ago: {failure.reason}"
        elif beat is None:
            checks["hub"] = "it has never run on this database: start 'statscache hub'"
        elif beat - call.now > within:
            checks["hub"] = (
                f"its clock is {beat - call.now:.0f} s ahead of this one, or has been: see whether "
                "the times of both machines are right"
            )
        elif call.now - beat > within:
            checks["hub"] = f"silent for {call.now - beat:.0f} s: see whether the hub runs"
    required = call.values["require"] or ("database", "hub")
    is_ready = all(checks[name] == OK for name in required)
    value = {"status": OK if is_ready else "not ready", "checks": checks, "hub_at": plain(beat)}
    return Answer(value, lifetime=Lifetime.NONE, status=200 if is_ready else 503)


_STATUS = {"type": "string"}

HEALTHZ = Route(
    rule="/healthz",
    name="healthz",
    summary="Whether this process answers.",
    answer=_alive,
    scope=Scope.EVERYTHING,
    schema={"type": "object", "properties": {"status": _STATUS}, "required": ["status"]},
)
READYZ = Route(
    rule="/readyz",
    name="readyz",
    summary="Whether the database can be read and the hub is at work: 200, or 503 with the reason.",
    description=(
        "The API answers while the hub is down: whoever takes it out of service only when the "
        "database is away asks with require=database."
    ),
    answer=_ready,
    parameters=(
        Parameter(
            "require",
            parameters.names("database", "hub"),
            "What must be well, comma separated; both if absent.",
            example="database",
        ),
    ),
    scope=Scope.EVERYTHING,
    clock=True,
    steps=lambda _dataset, _values: SECONDS,
    statuses=(200, 503),
    schema={
        "type": "object",
        "properties": {
            "status": _STATUS,
            "checks": {"type": "object", "additionalProperties": {"type": "string"}},
            "hub_at": {"type": ["number", "null"], "description": "When it last said so."},
        },
        "required": ["status", "checks", "hub_at"],
        "additionalProperties": False,
    },
    example="?require=database",
)
ROUTES = (HEALTHZ, READYZ)
