"""Contributions by the users who made them."""

from __future__ import annotations

from statscache.plugins import Key, Message, Row
from statscache_plugins.pagure.contribution import (
    ContributionCounter,
    contributors,
    is_contribution,
)


class ContributionsByUser(ContributionCounter):
    """Counts a contribution under the user who made it."""

    name = "Number of contribution per user to pagure.io"
    summary = "the number of contributions to pagure.io by user and day"
    description = (
        "How many contributions each user made to pagure.io on each day, in UTC. One that does not "
        "tell who made it counts for nobody."
    )
    keys = (Key("user", role="user"),)

    def rows(self, message: Message) -> list[Row]:
        """One for the user."""
        if not is_contribution(message):
            return []
        return [(user, 1) for user in contributors(message)]
