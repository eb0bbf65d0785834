"""Charts: how long one takes that was not asked for before, in a small table and in a large one."""

from __future__ import annotations

from benchmarks import databases
from benchmarks.api import SIZES, fill
from benchmarks.table import Result, median_seconds, show
from statscache.app import create_app

RANGE = "start=1700000100&stop=1700014500"
"""Four hours, of which even the small table has all rows."""

PATHS = {
    "series by minute": f"series?{RANGE}&resolution=1m",
    "series of hours in India": f"series?{RANGE}&resolution=1h&tz=Asia/Kolkata",
    "series of one topic": f"series?{RANGE}&resolution=1m&topic=org.fedoraproject.prod.topic.1",
    "series of five topics and the rest": f"series?{RANGE}&resolution=15m&by=topic&top=5",
    "top": f"top?{RANGE}",
    "summary": f"summary?{RANGE}&compare=previous",
    "values": "values/topic?q=org.fedoraproject.prod.t",
}


def run() -> None:
    """Measure and print."""
    for name, opened in (("SQLite", databases.sqlite), ("PostgreSQL", databases.postgresql)):
        small: dict[str, float] = {}
        with opened() as uri:
            filled = 0
            for size in SIZES:
                fill(uri, filled, size)
                filled = size
                rates = _rates(uri)
                small = small or rates
                results = [
                    Result(path, rate, "charts/s", f"that of {SIZES[0]:,} rows", rate / small[path])
                    for path, rate in rates.items()
                ]
                show(f"Charts, {size:,} rows on {name}", results)


def _rates(uri: str) -> dict[str, float]:
    # Nothing is kept.
    config = {"statscache.sqlalchemy.uri": uri, "statscache.app.cache_bytes": 0}
    client = create_app(config).test_client()
    found = {}
    for name, path in PATHS.items():

        def ask(path: str = path) -> None:
            assert client.get(f"/api/volume-by-topic-15s/{path}").status_code == 200

        found[name] = 1 / median_seconds(ask, 9)
    return found
