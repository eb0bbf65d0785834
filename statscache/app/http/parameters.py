"""The parameters of a request: declared once, parsed strictly, bounded.

Whatever is wrong with one is a 400 that names it. The declarations are also what the documents of
the API are made from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from statscache.app.http import times
from statscache.app.http.problems import Problem
from statscache.app.state import filters
from statscache.app.state.filters import Filter, Filters
from statscache.app.state.steps import Open
from statscache.plugins.installed.discovery import Dataset

LARGEST_NUMBER = 10**9
"""Pages and limits beyond it are mistakes."""

LONGEST_QUERY = 16_384
"""Bytes of a whole query."""

LONGEST_VALUE = 2_000
"""Characters of one value."""

MOST_PAIRS = 200

LONGEST_CALLBACK = 128

_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*(?:\.[A-Za-z_$][A-Za-z0-9_$]*)*")
_INTEGER = re.compile(r"-?[0-9]{1,20}")


@dataclass(frozen=True)
class Kind:
    """How a text becomes a value.

    Attributes:
        parse: from the name of the parameter and its text; raises a Problem (see :func:`refuse`).
        schema: the JSON schema of the text, or number, that it takes.
        write: the one text of a value, so that two ways to write it are one query.
    """

    parse: Callable[[str, str], Any]
    schema: Mapping[str, Any]
    write: Callable[[Any], str] = str


@dataclass(frozen=True)
class Parameter:
    """A parameter: what its value is, and what it is for.

    Attributes:
        name: as the query says it; a word of
            :data:`statscache.plugins.columns.QUERY_PARAMETERS`, so that no column is called so.
        kind: of its value, or a function that returns that of a dataset.
        summary: one sentence for the reference.
        default: the value where the query has none; a :class:`~statscache.app.http.times.Time`
            becomes UNIX seconds like one of the query.
        example: a text for the reference; those of all the parameters of a route go together.
        example_of: that of a dataset, where they differ.
        suits: whether the example is one for a dataset whose kind takes it.
        repeatable: whether it may come several times; the value is then a tuple.
        most: how often, at most.
        is_required: whether a query without it is refused, by the route.
    """

    name: str
    kind: Kind | Callable[[Dataset], Kind]
    summary: str
    default: Any = None
    example: str | None = None
    example_of: Callable[[Dataset], str] | None = None
    suits: Callable[[Dataset], bool] = lambda _dataset: True
    repeatable: bool = False
    most: int = MOST_PAIRS
    is_required: bool = False

    def kind_for(self, dataset: Dataset | None) -> Kind:
        """What its value is in queries of ``dataset``."""
        if isinstance(self.kind, Kind):
            return self.kind
        assert dataset is not None, self.name
        return self.kind(dataset)

    def example_for(self, dataset: Dataset | None) -> str | None:
        """A text that works in queries of ``dataset``, if there is one to show."""
        if self.example is None or (dataset is not None and not self.suits(dataset)):
            return None
        example = self.example
        if dataset is not None and self.example_of is not None:
            example = self.example_of(dataset)
        try:
            self.kind_for(dataset).parse(self.name, example)
        except Problem:
            return None
        return example


def number(low: int, high: int = LARGEST_NUMBER) -> Kind:
    """Whole numbers from ``low`` to ``high``."""

    def parse(name: str, text: str) -> int:
        # int() would take underscores, blanks and digits of other scripts too.
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            refuse(name, f"must be a whole number from {low} to {high}, not {text!r:.80}")
        return int(text)

    return Kind(parse, {"type": "integer", "minimum": low, "maximum": high})


def choice(*words: str) -> Kind:
    """One of ``words``."""

    def parse(name: str, text: str) -> str:
        if text not in words:
            refuse(name, f"must be one of {', '.join(words)}, not {text!r:.80}", words)
        return text

    return Kind(parse, {"type": "string", "enum": list(words)})


def names(*words: str) -> Kind:
    """Some of ``words``, comma separated, each once: a tuple, in the order of the query."""

    def parse(name: str, text: str) -> tuple[str, ...]:
        parts = tuple(text.split(","))
        for part in parts:
            if part not in words:
                refuse(name, f"takes {', '.join(words)}, comma separated, not {part!r:.80}", words)
        if len(set(parts)) < len(parts):
            refuse(name, "names one of them twice")
        return parts

    one = f"(?:{'|'.join(words)})"
    return Kind(parse, {"type": "string", "pattern": f"^{one}(?:,{one})*$"}, ",".join)


def _moment(name: str, text: str) -> times.Time:
    try:
        return times.parse(text)
    except ValueError as error:
        refuse(name, str(error))


def _callback(name: str, text: str) -> str:
    if len(text) > LONGEST_CALLBACK or not _CALLBACK.fullmatch(text):
        refuse(
            name,
            "must be the name of a JavaScript function, such as jQuery123.show: letters, digits, "
            f"_ and $, with dots between, {LONGEST_CALLBACK} characters at most",
        )
    return text


def _moment_text(value: float) -> str:
    if isinstance(value, Open):
        return f"now {float(value)!r}"
    return str(int(value)) if float(value).is_integer() else repr(float(value))


TEXT = Kind(lambda name, text: text, {"type": "string", "maxLength": LONGEST_VALUE})
"""Any text."""

TIME = Kind(
    _moment,
    {"type": "string", "maxLength": times.LONGEST, "pattern": times.PATTERN},
    _moment_text,
)
"""A time: parsed to a :class:`~statscache.app.http.times.Time`, which the dispatcher makes UNIX
seconds before an answer is asked for."""

CALLBACK = Parameter(
    "callback",
    Kind(
        _callback,
        {"type": "string", "maxLength": LONGEST_CALLBACK, "pattern": f"^{_CALLBACK.pattern}$"},
    ),
    "Answer JSON-P: a call of this function.",
)
CACHE_BUSTER = Parameter("_", TEXT, "Ignored; jQuery sends it.")
START = Parameter("start", TIME, "From this time on.", example="-7d")
STOP = Parameter("stop", TIME, "Only what is earlier than this time.", example="now")

PLAIN = (CALLBACK, CACHE_BUSTER)
"""The parameters of every route that answers JSON; no declaration needs to name them."""


@dataclass(frozen=True)
class Parsed:
    """The parameters of a request.

    Attributes:
        values: of all declared parameters, by name; defaults for those that the query lacks.
        filters: by column.
    """

    values: Mapping[str, Any]
    filters: Filters


def split(query: str) -> list[tuple[str, str]]:
    """The names and texts of a query, a WSGI string.

    Raises:
        Problem: it is too long, or a text is not UTF-8 or has a NUL in it.
    """
    if len(query) > LONGEST_QUERY:
        raise Problem(414, f"the query is longer than {LONGEST_QUERY} bytes: ask for less at once")
    pieces = [piece for piece in query.split("&") if piece]
    if len(pieces) > MOST_PAIRS:
        raise Problem(400, f"the query has more than {MOST_PAIRS} parameters: ask for less at once")
    pairs = []
    for piece in pieces:
        raw_name, _, raw_text = piece.partition("=")
        name = _decode(raw_name, None)
        text = _decode(raw_text, name)
        if "\0" in text:
            refuse(name, "has a NUL character in it, which no value has")
        pairs.append((name, text))
    return pairs


def _decode(raw: str, name: str | None) -> str:
    if raw.isalnum() and raw.isascii():
        return raw
    octets = unquote_to_bytes(raw.replace("+", " ").encode("latin-1"))
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        readable = octets.decode("utf-8", "replace")
        if name is None:
            refuse(readable, "is not UTF-8: percent-encode the name as UTF-8")
        refuse(name, f"is not UTF-8, {readable!r:.80}: percent-encode the text as UTF-8")


def parse(
    pairs: Iterable[tuple[str, str]],
    parameters: Sequence[Parameter],
    dataset: Dataset | None = None,
    *,
    filterable: bool = False,
) -> Parsed:
    """The values of all ``parameters``, and the filters where the route takes any.

    Raises:
        Problem: a parameter is unknown, comes twice, or has a value that it cannot have.
    """
    filter_parameters = filters_of(dataset) if filterable and dataset is not None else {}
    # A column that was there before a parameter of its name stays a filter: its addresses are used.
    known = {each.name: each for each in parameters if each.name not in filter_parameters}
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        given.setdefault(name, []).append(text)
    for name, texts in given.items():
        parameter = known.get(name) or filter_parameters.get(name)
        if parameter is None:
            allowed = [*known, *filter_parameters]
            refuse(name, f"is not a parameter of this route; it has {', '.join(allowed)}", allowed)
        if len(texts) > 1 and not parameter.repeatable:
            refuse(name, "is given more than once")
        if len(texts) > parameter.most:
            refuse(name, f"is given more than {parameter.most} times")
        for text in texts:
            if len(text) > LONGEST_VALUE:
                refuse(name, f"is longer than {LONGEST_VALUE} characters")
    values = {parameter.name: parameter.default for parameter in parameters}
    for name, parameter in known.items():
        texts = given.get(name, [])
        if not texts:
            continue
        kind = parameter.kind_for(dataset)
        parsed = [kind.parse(name, text) for text in texts]
        values[name] = tuple(parsed) if parameter.repeatable else parsed[0]
    return Parsed(values, _filters(given, filter_parameters, known))


def filters_of(dataset: Dataset) -> Mapping[str, Parameter]:
    """The parameters that filter the rows of ``dataset``, by name."""
    found = {}
    for name, column in filters.columns(dataset).items():
        kind = TEXT if column.type.python_type is str else number(-(2**63), 2**63 - 1)
        for full, summary in (
            (name, f"Only rows with this {name}; several: with any of them."),
            (filters.NOT + name, f"Only rows with another {name}."),
        ):
            found[full] = Parameter(full, kind, summary, repeatable=True, most=filters.MOST_VALUES)
    return found


def _filters(
    given: Mapping[str, list[str]],
    available: Mapping[str, Parameter],
    known: Mapping[str, Parameter],
) -> Filters:
    found = []
    total = 0
    for name, parameter in available.items():
        if name not in given or name in known:
            continue
        total += len(given[name])
        if total > filters.MOST_VALUES:
            refuse(name, f"is one too many: {filters.MOST_VALUES} values are the most of a query")
        kind = parameter.kind_for(None)
        values = tuple(sorted({kind.parse(name, text) for text in given[name]}))
        negated = name.startswith(filters.NOT)
        column = name.removeprefix(filters.NOT) if negated else name
        found.append(Filter(column, negated, values))
    return tuple(sorted(found, key=lambda filter_: filter_.name))


def refuse(name: str, reason: str, allowed: Iterable[str] | None = None) -> NoReturn:
    """Say that the parameter ``name`` cannot be used, for ``reason``.

    Raises:
        Problem: always, a 400.
    """
    raise problem(name, reason, allowed)


def problem(name: str, reason: str, allowed: Iterable[str] | None = None) -> Problem:
    """That the parameter ``name`` cannot be used, for ``reason``."""
    return Problem(
        400, f"the parameter {name[:80]!r} {reason}", parameter=name[:80], allowed=allowed
    )
