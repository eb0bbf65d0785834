"""Which module imports which, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.paths import ROOT

PACKAGES = ("statscache", "statscache_plugins")


@dataclass(frozen=True)
class Import:
    """One name that a module imports.

    Attributes:
        name: of a module of ours, or whatever else is imported, with its dots.
        line: where, from 1.
        is_inside: it is inside a function.
    """

    name: str
    line: int
    is_inside: bool


@dataclass(frozen=True)
class Module:
    """A module of ours, or of our tests."""

    name: str
    path: Path

    @cached_property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    @property
    def place(self) -> str:
        """Its path in the checkout."""
        return str(self.path.relative_to(ROOT))

    @cached_property
    def imports(self) -> list[Import]:
        """All, those for the type checker included."""
        return list(self._imports(ast.parse(self.path.read_text()), is_inside=False))

    @cached_property
    def neighbours(self) -> set[str]:
        """The other modules of ours that it imports."""
        return {each.name for each in self.imports if each.name in MODULES} - {self.name}

    def has_reason(self, line: int) -> bool:
        """Whether a comment of our own stands on the line, or on the one before."""
        before, here = self.lines[line - 2].strip(), self.lines[line - 1]
        comment = here.partition("#")[2].strip()
        if comment.startswith("noqa"):
            comment = comment.partition(" - ")[2]
        return before.startswith("#") or bool(comment)

    def _imports(self, node: ast.AST, is_inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, is_inside)
            elif isinstance(child, ast.ImportFrom):
                # Of relative imports, which we do not have, ruff (TID252) knows.
                for alias in child.names:
                    name = f"{child.module}.{alias.name}"
                    is_ours = name in MODULES
                    yield Import(name if is_ours else str(child.module), child.lineno, is_inside)
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from self._imports(child, is_inside or is_function)


def _modules(*packages: str) -> Iterator[Module]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield Module(".".join(parts).removesuffix(".__init__"), path)


MODULES: Mapping[str, Module] = {module.name: module for module in _modules(*PACKAGES)}
"""Name to module, of what is installed."""

TESTS: Mapping[str, Module] = {module.name: module for module in _modules("tests")}
"""Name to module, of the tests."""


def circles(graph: Mapping[str, Iterable[str]]) -> set[frozenset[str]]:
    """The largest sets of nodes, of two or more, in which each leads to all the others."""
    reached = {node: _reached(graph, node) for node in graph}
    found = (
        frozenset(other for other in ahead if node in reached.get(other, ()))
        for node, ahead in reached.items()
        if node in ahead
    )
    return {circle for circle in found if len(circle) > 1}


def _reached(graph: Mapping[str, Iterable[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting.extend(graph.get(node, ()))
    return seen
