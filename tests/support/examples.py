"""Examples that laws are tried with, and how many."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


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
