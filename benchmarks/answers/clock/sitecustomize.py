"""Let every process have the same present: UNIX seconds, from the environment."""

import os
import time

_NOW = float(os.environ["STATSCACHE_ANSWERS_NOW"])
# Before anything is imported that keeps the function. What waits asks the monotonic clock.
time.time = lambda: _NOW
