"""The parameters of a request: declared once, parsed strictly, bounded.

Whatever is wrong with one is a 400 that names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from werkzeug.datastructures import MultiDict

from statscache.app.problems import Problem

EARLIEST = 0.0
LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""The times that every database and language can express, in UNIX seconds."""

LARGEST_PAGE = 10**9
"""Pages and limits beyond it are mistakes."""

LONGEST_CALLBACK = 128

_CALLBACK = re.compile(r"[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*", re.ASCII)


@dataclass(frozen=True)
class Parameter:
    """A parameter: how its text becomes a value, and what it is for."""

    name: str
    parse: Callable[[str, str], Any]
    summary: str
    default: Any = None


def number(low: int, high: int = LARGEST_PAGE) -> Callable[[str, str], int]:
    """A parser of whole numbers from ``low`` to ``high``."""

    def parse(name: str, text: str) -> int:
        # int() would take underscores, blanks and digits of other scripts too.
        if not re.fullmatch(r"-?[0-9]{1,20}", text) or not low <= int(text) <= high:
            _refuse(name, f"must be a whole number from {low} to {high}, not {text!r:.80}")
        return int(text)

    return parse


def moment(name: str, text: str) -> float:
    """A time in UNIX seconds."""
    try:
        value = float(text) if re.fullmatch(r"[-+0-9.eE]+", text) else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        _refuse(name, f"must be a time in UNIX seconds, such as 1440000000, not {text!r:.80}")
    if not EARLIEST <= value <= LATEST:
        _refuse(name, f"must be a time from 1970 to 9999 in UNIX seconds, not {text!r:.80}")
    return value


def choice(*words: str) -> Callable[[str, str], str]:
    """A parser of one of ``words``."""

    def parse(name: str, text: str) -> str:
        if text not in words:
            _refuse(name, f"must be one of {', '.join(words)}, not {text!r:.80}", words)
        return text

    return parse


def callback(name: str, text: str) -> str:
    """The name of a JavaScript function."""
    if len(text) > LONGEST_CALLBACK or not _CALLBACK.fullmatch(text):
        _refuse(
            name,
            "must be the name of a JavaScript function, such as jQuery123.show: letters, digits, "
            f"_ and $, with dots between, {LONGEST_CALLBACK} characters at most",
        )
    return text


def anything(name: str, text: str) -> str:
    """A value that is not looked at."""
    return text


CALLBACK = Parameter("callback", callback, "Answer JSON-P: a call of this function.")
CACHE_BUSTER = Parameter("_", anything, "Ignored; jQuery sends it.")
ORDER = Parameter(
    "order", choice("desc", "asc"), "Newest first (desc) or oldest first (asc).", "desc"
)
LIMIT = Parameter("limit", number(0), "The largest number of rows in all the pages together.")
START = Parameter("start", moment, "Only rows of this time or later, in UNIX seconds.")
STOP = Parameter("stop", moment, "Only rows earlier than this time, in UNIX seconds.")
PAGE = Parameter("page", number(1), "Which page, from 1 on.", 1)
ROWS_PER_PAGE = Parameter(
    "rows_per_page", number(1), "Rows in a page; the server has a maximum, beyond which none go."
)
FORMAT = Parameter("format", choice("json", "csv"), "The format, whatever the Accept header says.")

PLAIN = (CALLBACK, CACHE_BUSTER)
"""The parameters of all the old routes."""

ROWS = (ORDER, LIMIT, START, STOP, PAGE, ROWS_PER_PAGE, FORMAT, *PLAIN)
"""The parameters of ``/api/<ident>``."""


def parse(arguments: MultiDict[str, str], parameters: tuple[Parameter, ...]) -> Mapping[str, Any]:
    """The values of all ``parameters``, by name.

    Raises:
        Problem: a parameter is unknown, comes twice, or has a value that it cannot have.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name, texts in arguments.lists():
        if name not in known:
            names = [parameter.name for parameter in parameters]
            _refuse(name, f"is not a parameter of this route; it has {', '.join(names)}", names)
        if len(texts) > 1:
            _refuse(name, "is given more than once")
    values = {}
    for parameter in parameters:
        text = arguments.get(parameter.name)
        values[parameter.name] = (
            parameter.default if text is None else parameter.parse(parameter.name, text)
        )
    return values


def _refuse(name: str, reason: str, allowed: tuple[str, ...] | list[str] | None = None) -> NoReturn:
    raise Problem(
        400, f"the parameter {name[:80]!r} {reason}", parameter=name[:80], allowed=allowed
    )
