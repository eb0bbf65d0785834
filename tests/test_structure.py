"""Which part of the program may know which: the floors, from the bottom to the top.

A floor is a folder (its own modules, not those of the folders in it) or a module at the root of the
package. It imports the floors that its entry names, all of which stand below it, so that no import
leads back. What is imported inside a function or for the type checker counts as well.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from statscache.config import URI_VARIABLE
from tests.support.imports import MODULES, Module, circles
from tests.support.paths import ROOT

MOST_MODULES = 18
"""In a folder."""

MOST_LINES = 500
"""Of a module."""


class Floor(NamedTuple):
    """What a floor is for, and which floors below it may import."""

    is_for: str
    knows: str = ""


FLOORS: Mapping[str, Floor] = {
    "statscache": Floor("the version"),
    "errors": Floor("all exceptions, so that who catches one needs no part that raises it"),
    "times": Floor("how times become datetimes and text, and back"),
    "spans": Floor("spans of time, and what several of them cover together"),
    "clock": Floor("the present, which is given to whatever depends on it"),
    "logs": Floor("how records are written: printable, and once where they recur"),
    "topics": Floor("patterns of topics", "errors"),
    "about": Floor("which users and packages a message is about", "errors topics"),
    "message": Floor("what flows: made once at the edge, never changed", "about clock errors"),
    "rejection": Floor("why something is not counted", "errors message"),
    "plugins": Floor(
        "the contract: all that the author of a plugin imports, and how plugins are found; neither "
        "sessions nor dialects, nor what runs them",
        "times about errors message topics",
    ),
    "people": Floor("who is hidden, who is a bot, who is listed", "errors plugins"),
    "config": Floor("the keys of the configuration, read and checked", "errors times people"),
    "database": Floor(
        "connections, tables, migrations and upserts; knows columns of plugins, not messages",
        "errors times people plugins",
    ),
    "archive": Floor(
        "what happened: messages read from datagrepper or files; knows messages, not who counts",
        "times statscache errors clock logs topics message rejection config",
    ),
    "isolation": Floor(
        "keeps plugins from harming others: limits of time, blame for lost connections",
        "errors logs clock message database",
    ),
    "counting.classic": Floor(
        "what exists for classic plugins alone",
        "errors times message rejection plugins database isolation",
    ),
    "counting.lanes": Floor(
        "what a lane remembers: claims, checksums, checkpoints, gaps, leases",
        "spans clock message database",
    ),
    "counting.folding": Floor(
        "what messages add to tables: folded into partial aggregates, and written",
        "errors topics message rejection people plugins database archive isolation "
        "counting.classic counting.lanes",
    ),
    "counting.membership": Floor(
        "what is known of each plugin: its lane, how far back it goes, what it rejected",
        "errors times spans clock logs message rejection plugins database isolation "
        "counting.classic counting.lanes counting.folding",
    ),
    "counting": Floor(
        "each message exactly once: a batch is claimed, folded, written, and the lane advances; "
        "knows slices of an archive, not where they are read from nor when",
        "errors clock message rejection plugins people config database archive isolation "
        "counting.classic counting.lanes counting.folding counting.membership",
    ),
    "audit": Floor(
        "compares what was counted with the archive, and repairs it",
        "spans errors times clock message isolation plugins database archive counting "
        "counting.classic counting.lanes counting.folding counting.membership",
    ),
    "catchup": Floor(
        "when the archive is asked, by which workers: windows, gaps, backfills",
        "times statscache errors clock logs topics about message plugins config database "
        "archive counting counting.lanes audit counting.folding",
    ),
    "hub": Floor(
        "the process that counts: fedmsg's consumer, and what it hands on",
        "times statscache errors clock logs about message rejection plugins config database "
        "archive counting audit catchup",
    ),
    "app.state": Floor(
        "what the hub has committed: revisions, coverage, rows",
        "errors times spans people plugins database",
    ),
    "app.http": Floor(
        "what is asked and answered: requests, parameters, times, formats",
        "errors plugins app.state",
    ),
    "app.dispatch": Floor(
        "from a request to its reply, alike for all routes, and what is kept of answers",
        "statscache errors logs people plugins config app.state app.http",
    ),
    "app.charts": Floor(
        "buckets: calendars, ranges, aggregation, comparison",
        "plugins app.state app.http app.dispatch",
    ),
    "app.live": Floor(
        "clients that wait for a change: events and long polls",
        "errors app.state app.http app.dispatch",
    ),
    "app.routes": Floor(
        "one module a route",
        "times statscache errors people plugins config database app.state app.http "
        "app.dispatch app.charts app.live",
    ),
    "app.pages": Floor(
        "the pages for people",
        "times statscache people plugins app.state app.http app.dispatch app.routes",
    ),
    "app": Floor(
        "assembles the API, which reads what the hub has committed, and never knows the engine, "
        "the archive or the bus",
        "plugins config app.state app.http app.dispatch app.live app.routes app.pages",
    ),
    "cli": Floor(
        "what the commands share: configuration, terminal, progress",
        "times statscache errors logs about plugins config database archive counting catchup hub",
    ),
    "demo": Floor("a bus, a hub and the API on one machine", "errors config database"),
    "cli.commands": Floor(
        "the commands, a module each, imported when asked for",
        "errors times logs about plugins database archive counting counting.lanes audit hub "
        "app app.http app.live app.state cli demo",
    ),
    "__main__": Floor("python -m statscache", "cli"),
    "testing": Floor(
        "all that the author of a plugin needs for tests", "message plugins counting.folding"
    ),
    "utils": Floor(
        "what plugins of 2015 imported from here, and nothing else", "times plugins config archive"
    ),
    "consumer": Floor("where installed configurations look for the consumer", "hub"),
    "wsgi": Floor("the application, for servers of WSGI", "logs app"),
    "asgi": Floor("the application, for servers of ASGI", "logs app app.live"),
    "gunicorn": Floor("the configuration of gunicorn"),
    "statscache_plugins": Floor("the bundled plugins: messages and columns, as anyone's"),
    "statscache_plugins.pagure": Floor("contributions to pagure", "plugins"),
    "statscache_plugins.releng": Floor("the newest of what release engineering makes", "plugins"),
    "statscache_plugins.volume": Floor("how many messages there are", "plugins"),
}

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

NOT_YET_SHORT: set[str] = set()
"""Modules of too many lines."""

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
    assert long == NOT_YET_SHORT


def test_an_import_inside_a_function_has_its_reason_beside_it() -> None:
    """What is optional or costly is a reason; a circle is none."""
    without = {
        name
        for name, module in MODULES.items()
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
    folders = ("counting", "isolation", "archive", "audit", "catchup", "hub")
    for path in (path for name in folders for path in (ROOT / "statscache" / name).rglob("*.py")):
        asked = re.search(r"\btime\.(time|monotonic|sleep)\b|datetime\.now\(", path.read_text())
        assert asked is None, f"{path.relative_to(ROOT)} asks for {asked}"


def test_what_tests_share_is_in_support() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        found = re.search(r"^from tests\.(?!support\b).*", path.read_text(), re.MULTILINE)
        assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_tests_have_the_folders_of_the_package() -> None:
    ours = {"support", "data", "docs", "__pycache__"}
    for path in (ROOT / "tests").iterdir():
        if path.is_dir() and path.name not in ours:
            assert (ROOT / "statscache" / path.name).is_dir(), path.name


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
