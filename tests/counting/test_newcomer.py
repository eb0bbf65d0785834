"""A plugin that is installed on a running system does not hold up the others."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.support.newcomer import measure


@pytest.mark.long
def test_live_messages_do_not_wait_for_the_history_of_a_new_plugin(tmp_path: Path) -> None:
    result = measure(tmp_path, "sqlite", messages=6_000)
    print(result)
    assert result.differences == []
    # `python -m tests.support.newcomer` asks for more than what a busy machine can promise.
    assert statistics.median(result.lags) < 1.0
