"""What the plugins of 2015 expect of each process that runs their code."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from statscache import about

log = logging.getLogger(__name__)


def prepare(config: Mapping[str, Any]) -> None:
    """Let local time be UTC, and ``fedmsg.meta`` answer.

    Classic plugins turn timestamps into naive datetimes, often with ``datetime.fromtimestamp``: all
    naive datetimes are UTC here, whatever the time zone of the machine. And they ask
    ``fedmsg.meta`` for users and packages, which raises until its processors have been made.
    Both settings hold for the whole process.
    """
    # Even if the zone is UTC-like now: some zones without an offset today had one earlier.
    if os.environ.get("TZ") != "UTC":
        log.info("a classic plugin is installed: the local time of this process is UTC from now on")
        os.environ["TZ"] = "UTC"
        time.tzset()
    about.make_processors(config)
