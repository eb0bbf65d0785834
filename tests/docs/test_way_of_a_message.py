"""The README names the files that a message passes, in the order in which they call each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from docutils import nodes

from tests.support.documents import README, section
from tests.support.imports import MODULES
from tests.support.paths import ROOT

STARTS = {
    "statscache.hub.consumer": "moksha loads it, by an entry point",
    "statscache.hub.producer": "the same",
    "statscache.app.application": "a WSGI server loads it, in another process",
}
"""Modules where a thread or a process begins; each of the others is called by one before it."""

THREADS = re.compile(r"statscache-[a-z-]+")


def modules(where: nodes.Element) -> Iterator[str]:
    for literal in where.findall(nodes.literal):
        text = literal.astext()
        if text.endswith(".py"):
            yield text.removesuffix(".py").replace("/", ".")
        elif (ROOT / text / "__init__.py").is_file():
            yield text.strip("/").replace("/", ".")


def test_each_file_is_called_by_one_that_is_named_before_it() -> None:
    how = section(README, "How it works")
    steps = [name for part in how.findall(nodes.enumerated_list) for name in modules(part)]
    assert len(steps) >= 20
    assert len(steps) == len(set(steps))
    for number, name in enumerate(steps):
        before = [MODULES[each].neighbours for each in steps[:number]]
        called = any(name in each for each in before)
        # A folder stands for the modules in it.
        called |= any(each.startswith(f"{name}.") for found in before for each in found)
        assert called != (name in STARTS), f"{name} is not imported by a file that is named before"


def test_what_runs_beside_it_is_in_the_hub() -> None:
    how = section(README, "How it works")
    (beside,) = how.findall(nodes.bullet_list)
    consumer = MODULES["statscache.hub.consumer"]
    reached = consumer.neighbours | MODULES["statscache.catchup.loop"].neighbours
    for each in tuple(reached):
        reached |= MODULES[each].neighbours
    assert set(modules(beside)) <= reached


def test_the_threads_that_are_named_are_those_that_are_started() -> None:
    named = {
        literal.astext()
        for literal in section(README, "How it works").findall(nodes.literal)
        if THREADS.fullmatch(literal.astext())
    }
    hub = "".join(path.read_text() for path in (ROOT / "statscache" / "hub").glob("*.py"))
    started = set(re.findall(r'(?:start|start_thread)\(\s*"(statscache-[a-z-]+)"', hub))
    assert named == started
