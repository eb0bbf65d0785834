"""``python -m benchmarks [NAME]...``: all the benchmarks, or those that are named."""

from __future__ import annotations

import logging
import sys

from benchmarks import api, catchup, charts, events, live, nginx, reading, replay

BENCHMARKS = {
    "replay": replay.run,
    "catchup": catchup.run,
    "live": live.run,
    "api": api.run,
    "nginx": nginx.run,
    "charts": charts.run,
    "reading": reading.run,
    "events": events.run,
}

logging.basicConfig(level=logging.ERROR)
for name in sys.argv[1:] or BENCHMARKS:
    if name not in BENCHMARKS:
        sys.exit(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    BENCHMARKS[name]()
