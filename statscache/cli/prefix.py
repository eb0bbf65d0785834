"""The path under which a proxy shows the service."""

from __future__ import annotations

from typing import Any

import click


class Prefix(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A path such as ``/stats``; gives it with a slash at its beginning and none at its end."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The path that a text says."""
        if "//" in value or any(not " " < char < "\x7f" or char in "%?#" for char in value):
            self.fail(f"{value!r} is not a path: write, for example, /stats", param, ctx)
        path = value.strip("/")
        return f"/{path}" if path else ""


prefix_option = click.option(
    "--prefix",
    type=Prefix(),
    default="",
    help="The path under which a proxy shows the service, such as /stats; links begin with it.",
)
