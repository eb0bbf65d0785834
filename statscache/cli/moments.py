"""Times as the command line takes them."""

from __future__ import annotations

import math
from datetime import UTC
from typing import Any

import click
from dateutil import parser


class Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """UNIX seconds, or ISO 8601, which is UTC where it names no zone; gives UNIX seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The time that a text says."""
        if isinstance(value, float):
            return value
        try:
            seconds = float(value)
        except ValueError:
            try:
                moment = parser.isoparse(value)
            except (ValueError, OverflowError):
                self.fail(
                    f"{value!r} is not a time: write UNIX seconds, or ISO 8601 such as 2026-11-24 "
                    "or 2026-11-24T10:00:00Z",
                    param,
                    ctx,
                )
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if not math.isfinite(seconds) or seconds < 0:
            self.fail(f"{value!r} is not a time from 1970 on", param, ctx)
        return seconds


MOMENT = Moment()
