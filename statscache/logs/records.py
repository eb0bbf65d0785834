"""Log lines of all loggers: what came from the bus cannot control a terminal."""

from __future__ import annotations

import logging
import time
import traceback
from contextvars import ContextVar
from typing import Any

from statscache.clock import Clock
from statscache.logs.printable import printable
from statscache.logs.recurring import Recurring

FORMAT = "%(asctime)s %(levelname)s %(name)s [%(request)s] %(message)s"
"""Of the lines of servers of the API."""

_environ: ContextVar[dict[str, Any] | None] = ContextVar("environ", default=None)


class Record(logging.LogRecord):
    """A record whose message is one line of printable text, and its traceback several.

    Attributes:
        request: what the API is asked, where the line is about that; else a hyphen.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.request = _request()
        if self.exc_info and self.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*self.exc_info)).rstrip("\n")
            # Formatters use this instead of formatting the traceback themselves.
            self.exc_text = printable(text, keep="\n\t")

    def getMessage(self) -> str:  # noqa: N802 - the library's name
        """The message with its arguments."""
        return printable(super().getMessage())


class Rarely(logging.Filter):
    """Lets warnings of one line of code through at growing intervals, whatever their text."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._recurring = Recurring(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be written."""
        is_warning = record.levelno >= logging.WARNING
        return not is_warning or bool(self._recurring.happened((record.pathname, record.lineno)))


def make_printable() -> None:
    """Let every logger of this process make such records, other people's loggers included.

    The topics and bodies of messages are in the lines of fedmsg and of moksha as well.
    """
    logging.setLogRecordFactory(Record)


def log_as_server() -> None:
    """Log with :data:`FORMAT` to standard error, in UTC, in place of what was configured before."""
    make_printable()
    formatter = logging.Formatter(FORMAT)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("statscache").setLevel(logging.INFO)


def log_unless_configured() -> None:
    """Log as :func:`log_as_server` does, unless the WSGI or ASGI server has configured logging."""
    make_printable()
    if not (logging.getLogger("statscache").handlers or logging.getLogger().handlers):
        log_as_server()


def begin_request(environ: dict[str, Any]) -> None:
    """Name the request in the lines of this thread; ``environ`` is WSGI's."""
    _environ.set(environ)


def _request() -> str:
    environ = _environ.get()
    if environ is None:
        return "-"
    query = environ.get("QUERY_STRING")
    address = environ.get("PATH_INFO", "") + (f"?{query}" if query else "")
    return printable(f"{environ.get('REQUEST_METHOD', '')} {address}")
