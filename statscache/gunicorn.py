"""Settings for gunicorn: ``gunicorn -c python:statscache.gunicorn statscache.wsgi:application``.

The command line overrides them.
"""

from __future__ import annotations

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
