"""A few kills of the real hub; `python -m tests.support.crash` makes hundreds of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support import crash


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_after_some_kills_every_row_is_right(tmp_path: Path, backend: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    lines: list[str] = []
    found = crash.run(
        3, seed, backend, seconds=10.0, folder=tmp_path, report=lines.append, history=0.5
    )
    assert found == [], f"seed {seed}: {lines}"
