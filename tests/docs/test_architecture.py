"""The page for who carries on the work, and its picture, are held to the code."""

from __future__ import annotations

import re

from docutils import nodes

from statscache.counting.batch import Origin
from tests.support.documents import cells, document, section
from tests.support.floors import FLOORS
from tests.support.paths import ROOT

PAGE = "docs/architecture.rst"
PICTURE = (ROOT / "docs" / "message.svg").read_text()
PACKAGE = ROOT / "statscache"
UNNAMED = {"statscache", "__main__", "asgi", "consumer", "gunicorn", "testing", "utils", "wsgi"}
"""Of one line or two, or for the author of a plugin: on top of all that they import."""


def test_the_floors_are_those_of_the_import_test_from_the_bottom_to_the_top() -> None:
    named = [
        name
        for row, _ in cells(section(PAGE, "Floors"), "Floor")
        for name in re.findall(r"\w+", row)
    ]
    floors = list(dict.fromkeys(name.partition(".")[0] for name in FLOORS))
    assert set(named) == set(floors) - UNNAMED
    assert len(named) == len(set(named))
    for name, floor in FLOORS.items():
        place = name.partition(".")[0]
        for below in (each.partition(".")[0] for each in floor.knows.split()):
            if place in named and below in named:
                assert named.index(below) <= named.index(place), f"{below} stands above {place}"


def test_threads_are_named_in_the_page_and_in_the_picture_as_they_are_started() -> None:
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    rows = cells(section(PAGE, "Processes and threads"), "Process")
    named = {thread for _, thread, _ in rows if thread.startswith("statscache-")}
    drawn = set(re.findall(r"statscache-[a-z-]+", PICTURE))
    assert drawn <= named
    for thread in named:
        assert f'"{thread}"' in source, thread


def test_a_commit_is_described_by_the_steps_and_the_origins_of_the_code() -> None:
    commit = section(PAGE, "A commit")
    (steps,) = commit.findall(nodes.enumerated_list)
    named = [emphasis.astext() for emphasis in steps.findall(nodes.emphasis)]
    assert named == re.findall(r'class="strong"[^>]*>(\w+)</text>\n.*x="112"', PICTURE)
    source = (PACKAGE / "counting" / "commit.py").read_text()
    for step in named:
        assert re.search(rf"def _{step}\(", source), step
    for origin in Origin:
        assert re.search(rf"\b{origin.value}\b", commit.astext()), origin


def test_the_picture_names_files_and_folders_that_exist() -> None:
    named = set(re.findall(r">((?:\w+/)+(?:\w+\.py)?)<", PICTURE))
    assert len(named) >= 6
    for name in named:
        assert (PACKAGE / name).exists(), name
    (image,) = document(PAGE).findall(nodes.image)
    assert image["uri"] == "message.svg"
