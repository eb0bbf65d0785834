"""Settings for gunicorn: ``gunicorn -c python:statscache.gunicorn statscache.wsgi:application``.

The command line overrides them.
"""

from __future__ import annotations

import logging
from typing import Any

worker_class = "gthread"
threads = 16
# The longest that it can: twenty queries in a batch are more than the usual four thousand bytes.
limit_request_line = 8190


def post_worker_init(worker: Any) -> None:
    """Tell the application how many threads it has, and when they end."""
    service = worker.wsgi.extensions["statscache"]
    service.runs_in(worker.cfg.threads if worker.cfg.worker_class_str == "gthread" else 1)
    service.listeners.is_ending = lambda: not worker.alive
    worker.log.error_log.addFilter(_say_who_was_slow)


def _say_who_was_slow(record: logging.LogRecord) -> bool:
    """Let a client that does not read its answer in time be a warning, and no traceback."""
    if record.exc_info and isinstance(record.exc_info[1], TimeoutError):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = "a client took longer to read an answer than it may", ()
        record.exc_info = record.exc_text = None
    return True
