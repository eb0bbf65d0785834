"""How times and durations are written for people."""

from __future__ import annotations

import pytest

from statscache.times import DAY, HOUR, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119.4, "119 s"),
        (120, "2 minutes"),
        (2 * HOUR - 1, "120 minutes"),
        (2 * HOUR, "2 hours"),
        (2 * DAY - 1, "48 hours"),
        (10 * DAY, "10 days"),
        (-3 * HOUR, "-3 hours"),
    ],
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
