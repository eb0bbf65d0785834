"""The shape of the code: floors, folders, modules, imports and public names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

from statscache.config import URI_VARIABLE
from tests.support.floors import FLOORS
from tests.support.imports import MODULES, TESTS, Module, circles
from tests.support.paths import ROOT

MOST_MODULES = 18
"""In a folder."""

MOST_LINES = 500
"""Of a module."""


LIBRARIES = {
    "alembic": "database",
    "click": "cli cli.commands",
    "flask": "app",
    "moksha": "hub",
    "prometheus_client": "app",
    "psycopg2": "database",
    "requests": "archive hub",
    "werkzeug": "app",
    "zmq": "demo",
}
"""Library to the floors that may import it."""

PUBLIC = {
    "statscache.message": ("Message.from_fedmsg",),
    "statscache.errors": ("InvalidMessage",),
    "statscache.plugins": (
        *("AsyncPlugin", "BaseModel", "BasePlugin", "CategorizedLogModel", "CategorizedModel"),
        *("ConstrainedCategorizedLogModel", "ScalarModel", "Schedule"),
        *("Aggregate", "Key", "Message", "Row", "Value"),
    ),
    "statscache.testing": ("check_laws", "make_message", "rows_of"),
    "statscache.app": ("create_app",),
    "statscache.wsgi": ("application",),
    "statscache.asgi": ("application",),
    "statscache.consumer": ("StatscacheConsumer",),
    "statscache.gunicorn": (),
}
"""What configurations, WSGI files and the packages of others name: it stays where it is."""


THE_MACHINES_CLOCK = {
    "counting/engine.py": "the default, which a test replaces",
    "archive/datagrepper.py": "the same",
    "hub/consumer.py": "it has an engine that is made of its configuration",
    "catchup/workers.py": "a worker may be on another machine",
    "archive/files.py": "the times of scratch files are the machine's",
    "plugins/base.py": "what plugins of 2015 inherit is given no clock",
    "plugins/schedule.py": "the same",
}
"""Who asks it, in the process that counts, and why."""


OF_THE_ENGINE = {
    "counting",
    "database",
    "app/state",
    "app/routes/metrics.py",
    "cli/commands/status.py",
}
"""Where the tables are read that the engine remembers by; others ask functions of counting."""


def floor_of(module: Module) -> str:
    """The name of the floor on which a module stands."""
    package, *rest = module.name.split(".")
    is_folder = module.path.name == "__init__.py"
    if package == "statscache_plugins":
        return ".".join([package, *(rest if is_folder else rest[:-1])])
    if not rest or is_folder or len(rest) == 1:
        return ".".join(rest) or package
    return ".".join(rest[:-1])


def test_the_table_has_every_floor_once() -> None:
    assert {floor_of(module) for module in MODULES.values()} == set(FLOORS)


def test_floors_know_only_what_is_below_them() -> None:
    below: set[str] = set()
    for name, floor in FLOORS.items():
        assert set(floor.knows.split()) <= below, name
        below.add(name)


def test_modules_import_only_what_their_floor_knows() -> None:
    found = set()
    for module in MODULES.values():
        own = floor_of(module)
        known = {own, *FLOORS[own].knows.split()}
        found |= {
            f"{module.name} imports {name}"
            for name in module.neighbours
            if floor_of(MODULES[name]) not in known
        }
    assert found == set()


def test_floors_know_nothing_that_they_do_not_import() -> None:
    used = defaultdict(set)
    for module in MODULES.values():
        used[floor_of(module)] |= {floor_of(MODULES[name]) for name in module.neighbours}
    superfluous = {
        name: unused
        for name, floor in FLOORS.items()
        if (unused := set(floor.knows.split()) - used[name])
    }
    assert superfluous == {}


def test_no_import_leads_back() -> None:
    found = circles({name: module.neighbours for name, module in MODULES.items()})
    assert found == set()


def test_folders_are_small() -> None:
    sizes = Counter(module.path.parent for module in MODULES.values())
    large = {str(folder.relative_to(ROOT)) for folder, n in sizes.items() if n > MOST_MODULES}
    assert large == set()


def test_modules_are_short() -> None:
    long = {name for name, module in MODULES.items() if len(module.lines) > MOST_LINES}
    assert long == set()


def test_an_import_inside_a_function_has_its_reason_beside_it() -> None:
    """What is optional or costly is a reason; a circle is none."""
    without = {
        name
        for name, module in {**MODULES, **TESTS}.items()
        for each in module.imports
        if each.is_inside and not module.has_reason(each.line)
    }
    assert without == set()


def test_libraries_stay_where_they_belong() -> None:
    for module in MODULES.values():
        for each in module.imports:
            allowed = LIBRARIES.get(each.name.partition(".")[0])
            floor = floor_of(module)
            is_in_one = allowed is None or any(
                floor == name or floor.startswith(f"{name}.") for name in allowed.split()
            )
            assert is_in_one, f"{module.place}:{each.line} imports {each.name}"


def test_the_api_starts_without_the_bus() -> None:
    program = (
        "import sys, statscache.app;"
        "print({'moksha.hub', 'twisted', 'statscache.counting.engine'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_public_names_stay_where_they_are(tmp_path: Path, migrated_file: Path) -> None:
    lines: list[str] = []
    for module, names in PUBLIC.items():
        lines += [f"import {module}", *(f"{module}.{name}" for name in names)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env=os.environ | {URI_VARIABLE: f"sqlite:///{migrated_file}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_hub_asks_the_clock_that_it_is_given() -> None:
    folders = ("counting", "isolation", "archive", "audit", "catchup", "hub", "logs", "plugins")
    asking = set()
    for path in (path for name in folders for path in (ROOT / "statscache" / name).rglob("*.py")):
        clocks = r"\bSYSTEM\b|\bnaive_now\(|\btime\.(time|monotonic|sleep)\b|datetime\.now\("
        if re.search(clocks, path.read_text()):
            asking.add(path.relative_to(ROOT / "statscache").as_posix())
    assert asking == THE_MACHINES_CLOCK.keys()


def test_nobody_reaches_through_to_the_tables_of_the_engine() -> None:
    for path in (ROOT / "statscache").rglob("*.py"):
        place = path.relative_to(ROOT / "statscache").as_posix()
        if not any(place == name or place.startswith(f"{name}/") for name in OF_THE_ENGINE):
            found = re.search(r"\btables\.(lane|claim|gap|late|plugin)\b", path.read_text())
            assert found is None, f"{place} uses {found}"


def test_what_tests_share_is_in_support() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        found = re.search(r"^from tests\.(?!support\b).*", path.read_text(), re.MULTILINE)
        assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_tests_have_the_folders_of_the_package() -> None:
    ours = {"", "support", "docs"}
    sizes = Counter(path.parent for path in (ROOT / "tests").rglob("test_*.py"))
    for folder, size in sizes.items():
        name = folder.relative_to(ROOT / "tests").as_posix().removeprefix(".")
        assert size <= MOST_MODULES, name
        assert name in ours or (ROOT / "statscache" / name).is_dir(), name


def test_there_are_no_drawers() -> None:
    drawers = {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert not [path for path in ROOT.glob("statscache*/**/*.py") if path.name in drawers]
    # What plugins of 2015 import, and nothing else.
    assert [path.name for path in ROOT.glob("statscache/utils/*.py")] == ["__init__.py"]


def test_commands_write_printable_text_only() -> None:
    for path in (ROOT / "statscache" / "cli").rglob("*.py"):
        if path.name != "terminal.py":
            assert not re.search(r"click\.s?echo", path.read_text()), path.name


def test_the_readmes_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"make ([\w-]+)", (ROOT / "README.rst").read_text()):
        assert target in targets, target
