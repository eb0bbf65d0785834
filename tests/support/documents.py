"""The documents, as docutils reads them: their sections, tables, terms and literals."""

from __future__ import annotations

import io
from functools import cache

from docutils import nodes
from docutils.core import publish_doctree

from tests.support.paths import ROOT

README, API = "README.rst", "docs/api.rst"
OPERATING, PLUGINS = "docs/operating.rst", "docs/plugins.rst"
FOLDERS = ("docs", "statscache", "statscache_plugins", "tests", "benchmarks", "alembic", "examples")
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("*.rst"),
        *(p for name in FOLDERS for p in (ROOT / name).rglob("*.rst")),
    )
)


@cache
def document(name: str) -> nodes.document:
    """A document, as docutils reads it; anything that it would warn of is an error."""
    complaints = io.StringIO()
    settings = {
        "report_level": 1,
        "halt_level": 5,
        "warning_stream": complaints,
        "file_insertion_enabled": False,
    }
    found = publish_doctree(
        (ROOT / name).read_text(), source_path=name, settings_overrides=settings
    )
    assert complaints.getvalue() == ""
    return found


@cache
def literals(name: str) -> frozenset[str]:
    """What stands in double backquotes."""
    return frozenset(node.astext() for node in document(name).findall(nodes.literal))


def section(name: str, title: str) -> nodes.section:
    (found,) = (node for node in document(name).findall(nodes.section) if node[0].astext() == title)
    return found


def listed(where: nodes.Element, head: str) -> list[str]:
    """The literals in the first column of the tables of a section that are headed so."""
    found = []
    for table in where.children:
        if isinstance(table, nodes.table):
            (thead,) = table.findall(nodes.thead)
            if thead.astext().split("\n")[0].strip() == head:
                (tbody,) = table.findall(nodes.tbody)
                for row in tbody.children:
                    found += [node.astext() for node in row[0].findall(nodes.literal)]
    assert len(found) == len(set(found)), f"{where[0].astext()} names one twice: {found}"
    return found


def terms(where: nodes.Element) -> dict[str, nodes.Element]:
    """The literals in the terms of the definition lists of a section, and what is said of each."""
    found: dict[str, nodes.Element] = {}
    for item in where.findall(nodes.definition_list_item):
        for literal in item[0].findall(nodes.literal):
            found[literal.astext()] = item[-1]
    return found


def cells(where: nodes.Element, head: str) -> list[list[str]]:
    """The rows of the table of a section whose first column is headed so, as text."""
    for table in where.findall(nodes.table):
        heads, *rows = (
            [entry.astext() for entry in row.findall(nodes.entry)]
            for row in table.findall(nodes.row)
        )
        if heads[0] == head:
            return rows
    raise LookupError(f"{where[0].astext()} has no table that is headed {head}")
