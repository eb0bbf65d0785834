"""The words of which the names in the package are made."""

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
    """Of modules and folders, classes, functions, attributes of classes, tables and columns."""
    package = ROOT / "statscache"
    names: set[str] = set()
    for path in package.rglob("*.py"):
        names.update(path.relative_to(package).with_suffix("").parts)
        names.update(_defined_in(path))
    return frozenset(words(name) for name in names)


def words(name: str) -> Words:
    """``LanePlugins`` and ``_lane_plugins`` are lane, plugins."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")
    return tuple(part for part in parts if part)


def is_used(phrase: str) -> bool:
    """Whether the words of ``phrase``, the last one in the plural or not, are within a name."""
    wanted = tuple(phrase.lower().split())
    size = len(wanted)
    plural = (*wanted[:-1], f"{wanted[-1]}s")
    return any(
        name[start : start + size] in (wanted, plural)
        for name in defined()
        for start in range(len(name) - size + 1)
    )


def _defined_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ClassDef(name=name, body=body):
                yield name
                for item in body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        yield item.target.id
            case ast.FunctionDef(name=name):
                yield name
            case ast.Call(
                func=ast.Name(id="Table" | "Column"), args=[ast.Constant(value=name), *_]
            ):
                yield str(name)
