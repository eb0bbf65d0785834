"""The words of which the names in the package and in its tests are made."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT

Words = tuple[str, ...]


@cache
def defined() -> frozenset[Words]:
    """Of whatever has a name in the package."""
    return _defined_within(ROOT / "statscache")


@cache
def defined_in_tests() -> frozenset[Words]:
    """Of whatever has a name in the tests.

    What a test is called is a sentence, whose verbs are no names.
    """
    return frozenset(name for name in _defined_within(ROOT / "tests") if name[:1] != ("test",))


def words(name: str) -> Words:
    """``LanePlugins`` and ``_lane_plugins`` are lane, plugins."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")
    return tuple(part for part in parts if part)


def is_used(phrase: str, names: frozenset[Words]) -> bool:
    """Whether the words of ``phrase``, the last one in the plural or not, are within a name."""
    wanted = tuple(phrase.lower().split())
    size = len(wanted)
    plural = (*wanted[:-1], f"{wanted[-1]}s")
    return any(
        name[start : start + size] in (wanted, plural)
        for name in names
        for start in range(len(name) - size + 1)
    )


def _defined_within(folder: Path) -> frozenset[Words]:
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        names.update(path.relative_to(folder).with_suffix("").parts)
        names.update(_defined_in(path))
    return frozenset(words(name) for name in names)


def _defined_in(path: Path) -> Iterator[str]:
    """Of classes, functions, parameters, variables, attributes, imports, tables and columns."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AsyncFunctionDef(name=name) | ast.alias(asname=str(name)):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.Call(
                func=ast.Name(id="Table" | "Column"), args=[ast.Constant(value=name), *_]
            ):
                yield str(name)
