"""All contributions."""

from __future__ import annotations

from statscache.plugins import Message, Row
from statscache_plugins.pagure.contribution import ContributionCounter, is_contribution


class Contributions(ContributionCounter):
    """Counts every contribution once."""

    name = "Number of contribution to pagure.io"
    summary = "the number of contributions to pagure.io by day"
    description = (
        "How many contributions pagure.io got on each day, in UTC: issues, comments, pull "
        "requests, pushes and changes of projects. Edits of comments and flags are not counted."
    )

    def rows(self, message: Message) -> tuple[Row, ...]:
        """One."""
        return ((1,),) if is_contribution(message) else ()
