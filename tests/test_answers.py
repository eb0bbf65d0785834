"""What compares the answers of two checkouts finds a difference, and only where there is one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.answers import comparing, grid
from benchmarks.answers.trial import BACKENDS, run

ROOT = Path(__file__).parent.parent

BROKEN = """

_made = create_app


def create_app(config=None):
    app = _made(config)
    right = app.wsgi_app

    def wrong(environ, start_response):
        def start(status, headers, *more):
            if environ["PATH_INFO"] == "/metrics":
                headers = [pair for pair in headers if pair[0] != "X-Content-Type-Options"]
            return start_response(status, headers, *more)

        return right(environ, start)

    app.wsgi_app = wrong
    return app
"""


def answers(path: Path, *bodies: str, etag: str = "a" * 32, **headers: str) -> Path:
    """A file of answers, as ``asking.py`` writes them."""
    path.write_text(
        "".join(
            json.dumps([answer(body, {"ETag": f'"{etag}"'} | headers)]) + "\n" for body in bodies
        )
    )
    return path


def answer(body: str, headers: dict[str, str]) -> dict[str, Any]:
    return {"asked": "GET /x", "status": "200 OK", "headers": [*headers.items()], "body": body}


def test_each_part_of_an_answer_is_compared(tmp_path: Path) -> None:
    before = answers(tmp_path / "before", "1", "22")

    def found(*bodies: str, **headers: str) -> list[str]:
        other = answers(tmp_path / "after", *bodies, **headers)
        return [text.splitlines()[0] for text in comparing.differences(before, other)]

    assert found("1", "22") == []
    # Another database: the same ETags are the same, whichever they are.
    assert found("1", "22", etag="b" * 32) == []
    assert found("1", "23") == ["GET /x: body"]
    assert found("1", "22", Vary="Accept") == ["GET /x: headers"] * 2
    assert found("1") == ["GET /x: asked"]


def test_what_chance_says_is_not_compared(tmp_path: Path) -> None:
    metric = 'statscache_request_seconds_sum{route="rows"} '
    before = answers(tmp_path / "before", f"{metric}0.25\n", "retry: 2000\ndata: 1\n")
    after = answers(tmp_path / "after", f"{metric}1e-05\n", "retry: 4321\ndata: 1\n")
    assert list(comparing.differences(before, after)) == []
    after = answers(tmp_path / "after", f"{metric}1e-05\n", "retry: 4321\ndata: 2\n")
    assert len(list(comparing.differences(before, after))) == 1


def test_what_nothing_asks_for_is_said() -> None:
    columns = [{"name": "topic", "kind": "key", "filter": True}]
    said = {"ident": "by-topic-1d", "name": "by topic", "columns": columns}
    dataset = grid.dataset(said, [{"topic": "a"}])
    parameters = [{"name": name, "in": "query"} for name in ("start", "topic", "depth")]
    document = {
        "paths": {
            "/api/{ident}/series": {"get": {"parameters": parameters}},
            "/api/{ident}/secret": {"get": {}},
        }
    }
    asked = grid.requests([dataset], [])
    assert grid.not_asked(document, [dataset], asked) == [
        "/api/<ident>/secret?",
        "/api/<ident>/series?depth",
    ]


@pytest.mark.long
def test_two_checkouts_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("statscache", "statscache_plugins", "alembic"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    sqlite = {"sqlite": BACKENDS["sqlite"]}
    # A few requests, the first and /metrics among them.
    assert run(ROOT, tmp_path, sqlite, every=101) == 0, capsys.readouterr().out
    with (tmp_path / "statscache" / "app" / "__init__.py").open("a") as code:
        code.write(BROKEN)
    assert run(ROOT, tmp_path, sqlite, every=101) == 1
    assert "GET /metrics: headers" in capsys.readouterr().out
