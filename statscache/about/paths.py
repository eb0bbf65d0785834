"""A small language for places in a body, compiled to closures.

- ``a.b`` is the value of ``b`` in the object that is the value of ``a``;
- ``a[]`` is each item of the list ``a``, ``a[3]`` its fourth; ``a{}`` is each key of the object
  ``a``, ``a{*}`` each of its values;
- ``a[b=x]`` is ``a``, or those items of the list ``a``, whose ``b`` is ``x``; ``a[b=x?]`` takes
  those that have no ``b`` too; a ``b`` that is a list of just ``x`` will do as well;
- ``a | build`` gives what is found to a function of :data:`TRANSFORMS`;
- ``=kernel`` is the word "kernel", whatever the body is.

Only strings that are not empty are found; whatever else stands there is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

Add = Callable[[Any], None]
Finder = Callable[[Any, Add], None]
"""Takes a body, and calls its second argument with each name that it finds."""

_STEP = re.compile(
    r"""\.?(?:
        (?P<key>[^.\[\]{}]+)
        | \[(?P<filter>[^=\]]+)=(?P<value>[^?\]]*)(?P<optional>\??)\]
        | \[(?P<index>\d+)\]
        | (?P<each>\[\])
        | (?P<keys>\{\})
        | (?P<values>\{\*\})
    )""",
    re.VERBOSE,
)
_ACCOUNT = re.compile(r"[\w.+-]+")
_MENTION = re.compile(r"(?<![\w.@/])@([a-z0-9][\w-]*)")
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")
_BUILD = re.compile(r"(?P<name>.+)-[^-\s]+-[^-\s]+")
_OPENID = re.compile(r"(?:https?://)?(?P<name>[\w-]+)\.id\.fedoraproject\.org/?")

OUR_DOMAIN = "@fedoraproject.org"


def compile_finder(paths: Iterable[str], aliases: Mapping[str, str]) -> Finder:
    """One function for all of ``paths``; ``aliases`` are the addresses that stand for accounts."""
    finders = [_compile(path, aliases) for path in paths]
    if len(finders) == 1:
        return finders[0]

    def find_all(body: Any, add: Add) -> None:
        for find in finders:
            find(body, add)

    return find_all


def _compile(path: str, aliases: Mapping[str, str]) -> Finder:
    place, *names = (part.strip() for part in path.split("|"))
    if place.startswith("="):
        return lambda body, add: add(place[1:])
    find: Finder = _found
    for name in reversed(names):
        find = _transformed(partial(TRANSFORMS[name], aliases), find)
    for match in reversed(list(_steps(place))):
        find = _step(match, find)
    return find


def _steps(place: str) -> Iterable[re.Match[str]]:
    position = 0
    while position < len(place):
        match = _STEP.match(place, position)
        if match is None:
            raise ValueError(f"{place!r} is not a path: see its end from {place[position:]!r} on")
        yield match
        position = match.end()


def _found(value: Any, add: Add) -> None:
    if type(value) is not str:
        if type(value) is Trigger:
            add(value)
        return
    if value:
        add(value)


def _step(match: re.Match[str], find: Finder) -> Finder:
    if match["key"]:
        return _at_key(match["key"], find)
    if match["filter"]:
        return _where(match["filter"], match["value"], bool(match["optional"]), find)
    if match["index"]:
        return _at_index(int(match["index"]), find)
    if match["each"]:
        return _each(list, find)
    if match["keys"]:
        return _each(dict, find)
    return _each_value(find)


def _at_key(key: str, find: Finder) -> Finder:
    def step(value: Any, add: Add) -> None:
        if isinstance(value, dict):
            inner = value.get(key)
            if inner is not None:
                find(inner, add)

    return step


def _at_index(index: int, find: Finder) -> Finder:
    def step(value: Any, add: Add) -> None:
        if isinstance(value, list) and len(value) > index:
            find(value[index], add)

    return step


def _each(kind: type, find: Finder) -> Finder:
    def step(value: Any, add: Add) -> None:
        if isinstance(value, kind):
            for item in value:  # type: ignore[attr-defined]
                find(item, add)

    return step


def _each_value(find: Finder) -> Finder:
    def step(value: Any, add: Add) -> None:
        if isinstance(value, dict):
            for item in value.values():
                find(item, add)

    return step


def _where(key: str, wanted: str, optional: bool, find: Finder) -> Finder:
    def step(value: Any, add: Add) -> None:
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, dict):
                actual = item.get(key)
                if actual in (wanted, [wanted]) or (optional and actual is None):
                    find(item, add)

    return step


def _transformed(transform: Callable[[Any], Iterable[Any]], find: Finder) -> Finder:
    def step(value: Any, add: Add) -> None:
        for result in transform(value):
            find(result, add)

    return step


class Trigger:
    """A message inside a message, about whose packages the outer one is."""

    __slots__ = ("raw",)

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw


def _of_text(function: Callable[[Mapping[str, str], str], Iterable[str]]) -> Any:
    def transform(aliases: Mapping[str, str], value: Any) -> Iterable[str]:
        return function(aliases, value) if isinstance(value, str) else ()

    return transform


def _account(aliases: Mapping[str, str], text: str) -> Iterable[str]:
    """The account behind an e-mail address ("Name <address>" too), an OpenID, or a plain name."""
    openid = _OPENID.fullmatch(text)
    if openid:
        return (openid["name"],)
    addresses = _ADDRESS.findall(text)
    if addresses:
        return _of_address(aliases, addresses[-1])
    return (text,) if _ACCOUNT.fullmatch(text) else ()


def _of_address(aliases: Mapping[str, str], address: str) -> Iterable[str]:
    if address in aliases:
        return (aliases[address],)
    if address.endswith(OUR_DOMAIN):
        return (address.removesuffix(OUR_DOMAIN),)
    # Whose it is only the accounts system knows.
    return ()


def _person(aliases: Mapping[str, str], text: str) -> Iterable[str]:
    """The account behind an e-mail address that somebody else chose: known ones only."""
    addresses = _ADDRESS.findall(text)
    return (aliases[addresses[-1]],) if addresses and addresses[-1] in aliases else ()


def _name_of_build(_: Mapping[str, str], text: str) -> Iterable[str]:
    """The name in name-version-release, without the ``.src.rpm`` of a file."""
    match = _BUILD.fullmatch(text.strip().removesuffix(".src.rpm"))
    return (match["name"],) if match else ()


def _names_of_builds(aliases: Mapping[str, str], text: str) -> Iterable[str]:
    """The names in the title of an update: builds between commas or spaces."""
    for word in re.split(r"[,\s]+", text):
        if word:
            yield from _name_of_build(aliases, word) or (word,)


def _without_parenthesis(_: Mapping[str, str], text: str) -> Iterable[str]:
    return (text.split("(", 1)[0].strip(),)


def _last_of_path(_: Mapping[str, str], text: str) -> Iterable[str]:
    """The package of ``rpms/package``."""
    return (text.rsplit("/", 1)[-1],)


def _trigger(_: Mapping[str, str], value: Any) -> Iterable[Trigger]:
    return (Trigger(value),) if isinstance(value, dict) else ()


TRANSFORMS: Mapping[str, Callable[..., Iterable[Any]]] = {
    "account": _of_text(_account),
    "person": _of_text(_person),
    "lower": _of_text(lambda _, text: (text.lower(),)),
    "mentions": _of_text(lambda _, text: _MENTION.findall(text)),
    "human": _of_text(lambda _, text: () if text == "zodbot" else (text,)),
    "fas": _of_text(lambda _, text: () if text.startswith("github_org_") else (text,)),
    "build": _of_text(_name_of_build),
    "builds": _of_text(_names_of_builds),
    "plain": _of_text(_without_parenthesis),
    "last": _of_text(_last_of_path),
    "trigger": _trigger,
}
"""From a value to what is found in it; the first argument are the aliases."""
