"""What the row of a plugin says of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from statscache.database.plugin_state import block_reason, failure, is_blocked


@pytest.mark.parametrize(
    "error",
    [
        block_reason("a-1d", "it rejects 3 messages", is_retried=True),
        # As an earlier release wrote it.
        "it was counted anew, and the old rows stay: it rejects 3 messages",
    ],
)
def test_a_blocked_shadow_is_told_by_its_error(error: str) -> None:
    assert is_blocked(SimpleNamespace(shadow="a__shadow", error=error))
    assert not is_blocked(SimpleNamespace(shadow=None, error=error))
    assert failure(error) == error


def test_other_errors_hold_nothing_back() -> None:
    assert not is_blocked(SimpleNamespace(shadow="a__shadow", error="KeyError: 'user'"))
    assert not is_blocked(SimpleNamespace(shadow="a__shadow", error=None))
    assert failure("KeyError: 'user'") == "its rows cannot be written: KeyError: 'user'"
