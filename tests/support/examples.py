"""How many examples a law is tried with."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def tried(few: int, wanted: int = 0) -> settings:
    """The same ``few`` examples every time, or ``wanted`` other ones, where that is not 0."""
    return settings(
        max_examples=wanted or few,
        derandomize=not wanted,
        database=None,
        deadline=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
