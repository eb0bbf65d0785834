"""Types of command-line parameters: times, ports and path prefixes."""

from __future__ import annotations

import math
from typing import Any

import click
from dateutil import parser

from statscache.times import unix_seconds


class Time(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A time in UNIX seconds or ISO 8601, in UTC unless it names a zone; returns UNIX seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse a time."""
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
            seconds = unix_seconds(moment)
        if not math.isfinite(seconds) or seconds < 0:
            self.fail(f"{value!r} is not a time from 1970 on", param, ctx)
        return seconds


class PathPrefix(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A path such as ``/stats``; returns it with a leading slash and without a trailing one."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Parse a path."""
        if "//" in value or any(not " " < char < "\x7f" or char in "%?#" for char in value):
            self.fail(f"{value!r} is not a path: write, for example, /stats", param, ctx)
        path = value.strip("/")
        return f"/{path}" if path else ""


TIME = Time()

PORT = click.IntRange(0, 65_535)
"""A TCP port; 0 takes a free one."""

prefix_option = click.option(
    "--prefix",
    type=PathPrefix(),
    default="",
    help="The path under which a proxy serves statscache, such as /stats; links begin with it.",
)
