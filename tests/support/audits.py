"""The audit in the background, hurried, and what it has noted."""

from __future__ import annotations

import time

from statscache.audit.background import Audit
from statscache.database import tables
from tests.support.hub_fixture import HubFixture


def sweep(hub_fixture: HubFixture, audit: Audit, number: int = 1) -> None:
    """Go on until so many sweeps are over."""
    deadline = time.monotonic() + 60
    while state(hub_fixture)["sweeps"] < number:
        assert time.monotonic() < deadline
        audit._resume_at = 0.0
        audit.advance()


def state(hub_fixture: HubFixture) -> dict[str, object]:
    """Of all."""
    names = [column.name for column in tables.audit.columns]
    found = hub_fixture.rows("statscache_audit")
    return dict(zip(names, found[0], strict=True)) if found else {"sweeps": 0}


def audited(hub_fixture: HubFixture) -> dict[str, tuple[float, int]]:
    """Ident to the time until which it is compared, and the mismatches."""
    names = [column.name for column in tables.plugin.columns]
    rows = [dict(zip(names, row, strict=True)) for row in hub_fixture.rows("statscache_plugin")]
    return {row["ident"]: (row["audited_until"], row["mismatches"]) for row in rows}
