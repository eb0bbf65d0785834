"""Rooms know their neighbours only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FORBIDDEN = {
    # The API knows models and revisions, not the engine or the bus.
    "statscache/app": ("engine", "intake", "fold", "lanes", "upsert", "consumer", "classics"),
    # Plugins know messages and columns, not sessions or dialects, nor what runs them.
    "statscache/plugins": ("engine", "intake", "fold", "lanes", "upsert", "database", "tables"),
    "statscache_plugins": ("engine", "intake", "fold", "lanes", "upsert", "database", "tables"),
    # Folding is arithmetic.
    "statscache/counting/fold.py": ("engine", "database", "tables", "lanes", "upsert"),
    "statscache/message.py": ("engine", "plugins", "database"),
}
ONLY_IN = {
    "moksha": {
        "statscache/hub/consumer.py",
        "statscache/hub/producer.py",
        "statscache/hub/program.py",
    },
    "flask": {"statscache/app"},
    "zmq": {"statscache/demo"},
}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_know_their_neighbours_only(room: str) -> None:
    place = ROOT / room
    for path in [place] if place.is_file() else place.rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "statscache" and len(parts) > 1:
                assert parts[1] not in FORBIDDEN[room], f"{path.relative_to(ROOT)} imports {name}"


def test_libraries_stay_where_they_belong() -> None:
    for path in (ROOT / "statscache").rglob("*.py"):
        relative = str(path.relative_to(ROOT))
        for name in imports(path):
            allowed = ONLY_IN.get(name.split(".")[0])
            if allowed is not None:
                assert any(relative.startswith(place) for place in allowed), f"{relative}: {name}"


def test_the_api_starts_without_the_bus() -> None:
    program = (
        "import sys, statscache.app;"
        "print({'moksha.hub', 'twisted', 'statscache.counting.engine'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_there_are_no_drawers() -> None:
    drawers = {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert not [path for path in ROOT.glob("statscache*/**/*.py") if path.name in drawers]
    # What plugins of 2015 import, and nothing else.
    assert [path.name for path in ROOT.glob("statscache/utils/*.py")] == ["__init__.py"]


def test_commands_write_printable_text_only() -> None:
    for path in (ROOT / "statscache" / "cli").rglob("*.py"):
        if path.name != "terminal.py":
            assert "click.echo" not in path.read_text(), path.name


def test_the_readmes_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"make ([\w-]+)", (ROOT / "README.rst").read_text()):
        assert target in targets, target
