"""Let a process have a clock that jumps: it is ahead by what a file says, in seconds."""

import os
import time
from pathlib import Path

_OFFSET = Path(os.environ["STATSCACHE_TEST_CLOCK"])
_right_time = time.time


def _time() -> float:
    return _right_time() + float(_OFFSET.read_text() or 0)


time.time = _time
