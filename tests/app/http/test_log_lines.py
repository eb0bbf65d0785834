"""What servers of the API write into their logs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.servers import Server

LINE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR statscache\.app\.[\w.]+ \[GET (.*)\] (.*)$"
)


@pytest.mark.parametrize("name", ["gunicorn sync", pytest.param("serve", marks=pytest.mark.long)])
def test_a_line_has_time_level_logger_and_request(tmp_path: Path, name: str) -> None:
    path = tmp_path / "none.db"
    with Server(name, tmp_path, f"sqlite:///{path}", config={}) as server:
        assert server.get("/readyz").status == 503
        assert server.get("/api/volume-1d?order=asc&limit=7").status == 503
        assert server.get("/api/%1b[2J").status in (404, 503)
        server.stop()
        log = server.log.read_text()
    assert "\x1b" not in log
    found = [match.groups() for line in log.splitlines() if (match := LINE.match(line))]
    assert [request for request, _ in found][:2] == [
        "/readyz",
        "/api/volume-1d?order=asc&limit=7",
    ]
    assert f"{path} has no statscache tables yet" in found[0][1]
    # To look for it has not made it.
    assert not path.exists()
