"""People: whose names appear nowhere, which accounts are bots, and whether people are listed.

What happens on the bus is public, and still some people do not want to be counted. A name of
``statscache.people.hidden`` is neither stored nor served: new rows with it are not written,
existing ones are deleted when the hub starts, and the API leaves them out as soon as it has
started. In a column of people the whole text is compared, without the host of ``name@host``;
in other text (the name of a fork, the message of a log) the name is looked for as a word. No answer
distinguishes a hidden name from an unknown one.

The accounts of ``statscache.people.bots`` are stored and not served by the statistics about people,
so that the list can be changed at any time.

Where ``statscache.people.lists`` is off no answer lists people; a person who is named in a query is
counted as usual. People are what a plugin declares as such: the keys with the role ``user``.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, String, and_, delete, func, not_, or_

from statscache.errors import ConfigurationError
from statscache.plugins.aggregate import Aggregate
from statscache.plugins.installed.discovery import Dataset

HIDDEN = "statscache.people.hidden"
BOTS = "statscache.people.bots"
LISTS = "statscache.people.lists"
RANKINGS = "statscache.people.rankings"
"""The key of before: whether ``top`` and ``values`` may list people that all others list."""

NO_PEOPLE = frozenset({"package", "category", "topic"})
"""Roles of columns that cannot have the name of a person in them."""

KNOWN_BOTS = (
    "anonymous",
    "bodhi",
    "koschei",
    "masher",
    "releng",
    "zodbot",
)
"""The accounts of Fedora's own services."""

_OUTSIDE_OF_NAMES = "[^A-Za-z0-9_]"

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True)
class People:
    """Who is left out, and whether the others are listed, as it is configured.

    Attributes:
        hidden: names that appear nowhere; upper and lower case are the same, and so is an address
            at any host.
        bots: accounts that the statistics about people leave out.
        lists: whether an answer may say who there is.
        rankings: whether it may compare people, and complete their names, where it may list them.
    """

    hidden: tuple[str, ...] = ()
    bots: tuple[str, ...] = ()
    lists: bool = True
    rankings: bool = True

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> People:
        """Read the keys.

        Raises:
            ConfigurationError: one is not a list of names, or neither true nor false.
        """
        hidden = {_bare(name) for name in _names(config, HIDDEN)}
        bots = set(_names(config, BOTS, KNOWN_BOTS))
        switches = _switch(config, LISTS), _switch(config, RANKINGS)
        return cls(tuple(sorted(hidden)), tuple(sorted(bots)), *switches)

    def is_hidden(self, name: object) -> bool:
        """Whether this is one of the names that appear nowhere."""
        return isinstance(name, str) and _bare(name) in self.hidden

    def mentions(self, text: object) -> bool:
        """Whether a hidden name stands in a text, as a word."""
        return (
            bool(self.hidden)
            and isinstance(text, str)
            and self._expression.search(text) is not None
        )

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(self._pattern, re.IGNORECASE)

    @cached_property
    def _pattern(self) -> str:
        # For the regular expressions of Python and of PostgreSQL alike.
        return f"(^|{_OUTSIDE_OF_NAMES})({self._alternatives})({_OUTSIDE_OF_NAMES}|$)"

    @cached_property
    def _alternatives(self) -> str:
        return "|".join(re.escape(name) for name in self._spellings)

    @cached_property
    def _spellings(self) -> tuple[str, ...]:
        """What a database may make of hidden names in lower case: some know ASCII only."""
        found = {
            spelling.translate(_ASCII_LOWER)
            for name in self.hidden
            for spelling in (name, name.upper(), name.capitalize(), name.title())
        }
        return tuple(sorted(found))

    def shown(self, dataset: Dataset) -> Sequence[ColumnElement[bool]]:
        """The conditions of SQL for the rows that may be served."""
        conditions = [not_(clause) for clause in self._hiding(dataset)]
        if self.bots:
            conditions += [column.not_in(self.bots) for column in _user_columns(dataset)]
        return conditions

    def is_bot(self, dataset: Dataset, column: str, value: object) -> bool:
        """Whether ``value`` is an account that the statistics about people leave out."""
        return value in self.bots and column in columns(dataset)

    def veiled(self, dataset: Dataset, column: Column[Any], value: Any) -> Any:
        """``value`` as it is looked for in a column: for a hidden one, what no row has.

        So the time of an answer does not tell whether rows of a hidden name are still stored.
        """
        if column in set(_user_columns(dataset)):
            is_hidden = self.is_hidden(value)
        else:
            is_hidden = column in set(_text_columns(dataset)) and self.mentions(value)
        return f"{value}@" if is_hidden else value

    def refusal(self, plugin: Aggregate) -> Callable[[Sequence[Any]], bool] | None:
        """A function that says whether a row (keys, then values) may not be stored.

        None where every row may.
        """
        if not self.hidden:
            return None
        names = [i for i, key in enumerate(plugin.keys) if key.role == "user"]
        texts = [
            i
            for i, column in enumerate(plugin.columns)
            if column.type is str and getattr(column, "role", None) not in {"user", *NO_PEOPLE}
        ]
        if not names and not texts:
            return None
        return lambda row: (
            any(self.is_hidden(row[i]) for i in names) or any(self.mentions(row[i]) for i in texts)
        )

    def purge(self, connection: Connection, dataset: Dataset) -> bool:
        """Delete the rows that may not be stored any more; returns whether there were any."""
        clauses = self._hiding(dataset)
        if not clauses:
            return False
        statement = delete(dataset.model.__table__).where(or_(*clauses))
        return connection.execute(statement).rowcount > 0

    def _hiding(self, dataset: Dataset) -> list[ColumnElement[bool]]:
        if not self.hidden:
            return []
        clauses: list[ColumnElement[bool]] = [
            or_(
                func.lower(column).in_(self._spellings),
                # Few have a host, and an expression takes longer.
                and_(
                    column.contains("@"),
                    func.lower(column).regexp_match(f"^({self._alternatives})@"),
                ),
            )
            for column in _user_columns(dataset)
        ]
        for column in _text_columns(dataset):
            clause = func.lower(column).regexp_match(self._pattern)
            clauses.append(and_(column.is_not(None), clause) if column.nullable else clause)
        return clauses


def people_of(plugin: Any) -> People:
    """As the configuration says that the plugin was made with."""
    return People.from_config(getattr(plugin, "config", {}))


def columns(dataset: Dataset) -> tuple[str, ...]:
    """The columns whose values are people."""
    return tuple(key.name for key in dataset.keys if key.role == "user")


def naming(dataset: Dataset) -> Set[Column[Any]]:
    """The columns with text in which a name may be."""
    return {*_user_columns(dataset), *_text_columns(dataset)}


def _user_columns(dataset: Dataset) -> list[Column[Any]]:
    return [column for column in _texts(dataset) if column.name in columns(dataset)]


def _text_columns(dataset: Dataset) -> list[Column[Any]]:
    """The columns with text that may mention a name."""
    exempt = {key.name for key in dataset.keys if key.role is not None}
    return [column for column in _texts(dataset) if column.name not in exempt]


def _texts(dataset: Dataset) -> list[Column[Any]]:
    table = dataset.model.__table__
    return [column for column in table.columns if isinstance(column.type, String)]


def _bare(name: str) -> str:
    """A name as it is compared: in lower case, and without a host."""
    return (name.partition("@")[0] or name).lower()


def _names(config: Mapping[str, Any], key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    value = config.get(key, default)
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ConfigurationError(f"{key} must be a list of names, not {value!r:.80}")
    for name in value:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"{key}: {name!r:.80} is not a name")
    return tuple(value)


def _switch(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key, True)
    if not isinstance(value, bool):
        raise ConfigurationError(f"{key} must be True or False, not {value!r:.80}")
    return value
