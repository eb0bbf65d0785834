"""The whole of it: fill databases, ask two checkouts, compare."""

from __future__ import annotations

import datetime
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.answers import comparing, databases, grid, messages
from benchmarks.answers.checkouts import Checkout, configure
from benchmarks.answers.databases import Databases
from benchmarks.answers.filling import fill

BACKENDS: Mapping[str, Callable[[], AbstractContextManager[Databases]]] = {
    "sqlite": databases.sqlite,
    "postgresql": databases.postgresql,
}
"""Name to what opens databases of that kind."""

OPEN = {"statscache.datagrepper.endpoint": "https://archive.example.org/datagrepper/"}
"""The configuration of the first application: the archive is named, and never asked."""

PRIVATE = {
    "statscache.people.lists": False,
    "statscache.people.hidden": ["ralph", "nobody's"],
    "statscache.app.default_rows_per_page": 5,
    "statscache.app.maximum_rows_per_page": 7,
    "statscache.app.cache_bytes": 0,
    "statscache.app.maximum_listeners": 0,
}
"""The configuration of the second application, which asks for much of what the first one is not."""

MOST_SHOWN = 10
"""Differences of one comparison that are printed."""


@dataclass
class Line:
    """One comparison: what was compared, of how many things, and what differs."""

    name: str
    compared: int
    unit: str
    differences: list[str]


def run(
    before: Path,
    after: Path,
    backends: Mapping[str, Callable[[], AbstractContextManager[Databases]]],
    every: int = 1,
) -> int:
    """Compare and print; returns 0 if nothing differs, otherwise 1."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="statscache-answers-") as name:
        folder = Path(name)
        (folder / "messages").mkdir()
        messages.write(folder / "messages")
        checkouts = [
            Checkout(root, folder / kind) for kind, root in (("before", before), ("after", after))
        ]

        def compare(backend: str) -> list[Line]:
            with backends[backend]() as opened:
                return Trial(folder, backend, opened, *checkouts).compare(every)

        with ThreadPoolExecutor() as pool:
            lines = [line for found in pool.map(compare, backends) for line in found]
    for line in lines:
        print(f"{line.name:55} {line.compared:6,} {line.unit:9} {len(line.differences):6,} differ")
    print(f"{time.monotonic() - began:.0f} seconds")
    for line in lines:
        for difference in line.differences[:MOST_SHOWN]:
            print(f"\n{line.name}: {difference}")
    return int(any(line.differences for line in lines))


class Trial:
    """Two checkouts on databases of one kind."""

    def __init__(
        self, folder: Path, backend: str, opened: Databases, before: Checkout, after: Checkout
    ) -> None:
        self._folder = folder / backend
        self._backend = backend
        self._databases = opened
        self._before = before
        self._after = after
        self._messages = folder / "messages"
        epoch = datetime.datetime.fromtimestamp(messages.EPOCH, datetime.UTC)
        self._config: dict[str, Any] = {
            "statscache.consumer.epoch": epoch.replace(tzinfo=None),
            "statscache.archive.files": [str(self._messages / "archive.jsonl")],
            "statscache.people.bots": ["zodbot"],
        }
        self._cwd = self._folder / "cwd"
        configure(self._cwd, self._config)

    def compare(self, every: int) -> list[Line]:
        """All the comparisons; of the requests each ``every``-th one."""
        with ThreadPoolExecutor() as pool:
            both = ((self._before, "before"), (self._after, "after"))
            list(pool.map(lambda pair: self._fill(*pair), both))
            upgraded = self._databases.copy("before", "upgraded")
            self._after.run(self._cwd, upgraded, ("answers-shapes",), "db", "upgrade")
            requests, missing = self._requests()
            asked = requests[::every]
            jobs = ((self._before, "before"), (self._after, "upgraded"), (self._after, "after"))
            answers = list(pool.map(lambda job: self._ask(*job, asked), jobs))
            rows = list(pool.map(lambda pair: self._export(*pair), both))
        count = len(asked)
        found = [
            list(comparing.differences(answers[0], answers[1])),
            list(comparing.differences(answers[0], answers[2], comparing.FILLED_APART)),
        ]
        exported = sum(1 for path in rows[0].rglob("*") if path.is_file())
        return [
            Line(f"{self._backend}: routes and parameters", len(requests), "requests", missing),
            Line(f"{self._backend}: answers, a copy that is upgraded", count, "requests", found[0]),
            Line(f"{self._backend}: answers, filled by each", count, "requests", found[1]),
            Line(
                f"{self._backend}: rows, filled by each",
                exported,
                "files",
                comparing.files_that_differ(*rows),
            ),
        ]

    def _fill(self, checkout: Checkout, name: str) -> None:
        fill(checkout, self._cwd, self._databases.uri(name), self._messages)

    def _export(self, checkout: Checkout, name: str) -> Path:
        folder = self._folder / f"exported-{name}"
        command = ("export", "--format", "ndjson", "--output", str(folder))
        checkout.run(self._cwd, self._databases.uri(name), ("answers-shapes",), *command)
        return folder

    def _requests(self) -> tuple[list[grid.Request], list[str]]:
        """The requests, and what the API has besides."""
        first = [{"app": "open", "path": path} for path in ("/openapi.json", "/api/plugins", "/")]
        document, plugins, page = self._bodies(self._ask(self._before, "before", first, "first"))
        said = {each["ident"]: each for each in json.loads(plugins)["plugins"]}
        rows = self._bodies(self._ask(self._before, "before", grid.exploring(said), "rows"))
        pairs = zip(said.values(), rows, strict=True)
        datasets = [grid.dataset(each, json.loads(body)) for each, body in pairs]
        files = sorted(set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page)))
        requests = grid.requests(datasets, files)
        missing = grid.not_asked(json.loads(document), datasets, requests)
        return requests, [f"nothing asks for {each}" for each in missing]

    def _bodies(self, answers: Path) -> list[str]:
        return [json.loads(line)[0]["body"] for line in answers.read_text().splitlines()]

    def _ask(
        self,
        checkout: Checkout,
        name: str,
        requests: Iterable[grid.Request],
        purpose: str = "answers",
    ) -> Path:
        folder = self._folder / f"{purpose}-{name}"
        folder.mkdir()
        uri = {"statscache.sqlalchemy.uri": self._databases.uri(name)}
        (folder / "apps").write_text(json.dumps({"open": uri | OPEN, "private": uri | PRIVATE}))
        lines = (json.dumps(request) + "\n" for request in requests)
        (folder / "requests").write_text("".join(lines))
        files = [folder / each for each in ("apps", "requests", "answers")]
        checkout.ask(self._cwd, uri["statscache.sqlalchemy.uri"], *files)
        return folder / "answers"
