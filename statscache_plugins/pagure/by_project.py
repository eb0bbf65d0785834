"""Contributions by the projects that got them."""

from __future__ import annotations

from statscache.plugins import Key, Message, Row
from statscache_plugins.pagure.contribution import (
    ContributionCounter,
    is_contribution,
    project,
)


class ContributionsByProject(ContributionCounter):
    """Counts a contribution under the project that it was made to."""

    name = "Number of contribution per project to pagure.io"
    summary = "the number of contributions to pagure.io by project and day"
    description = (
        "How many contributions each project on pagure.io got on each day, in UTC. Projects are "
        "told apart by namespace, and forks are projects of their own. A contribution that does "
        "not tell its project counts for none."
    )
    keys = (Key("project"),)

    def rows(self, message: Message) -> list[Row]:
        """One for the project."""
        if not is_contribution(message):
            return []
        name = project(message)
        return [] if name is None else [(name, 1)]
