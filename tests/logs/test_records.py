"""Log lines of all loggers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from statscache.logs.records import make_printable


@pytest.fixture(autouse=True)
def _records() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    make_printable()
    yield
    logging.setLogRecordFactory(before)


def test_a_line_of_the_log_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("somebody").error("bad topic %s", "a\x1b[2J\n2026-01-01 forged")
    (line,) = caplog.text.splitlines()
    assert line.endswith(r"bad topic a\x1b[2J\n2026-01-01 forged")


def test_a_traceback_has_lines_and_no_escapes(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logging.getLogger("somebody").exception("failed")
    assert "Traceback (most recent call last):\n" in caplog.text
    assert r"ValueError: \x1b[2J" in caplog.text
    assert caplog.text.replace("\n", "").isprintable()
