"""A small language for places in a message, compiled to closures.

- ``a.b`` is the value of ``b`` in the object that is the value of ``a``, from the body on;
- ``a[]`` is each item of the list ``a``, ``a[3]`` its fourth; ``a{}`` is each key of the object
  ``a``, ``a{*}`` each of its values;
- ``a[b=x]`` is ``a``, or those items of the list ``a``, whose ``b`` is ``x`` (a list of just ``x``
  will do as well); ``a[b=x,y]`` takes either, ``a[b=x?]`` those that have no ``b`` too,
  ``a[b!=x]`` all but those, ``a[b]`` all that have a ``b``;
- ``^a`` starts from the message instead of from its body: ``^topic`` is the topic;
- ``a | build`` passes what is found to a function of :data:`TRANSFORMS`;
- ``a || b`` is ``a``, or ``b`` where there is nothing at ``a``: ``a | build || b`` looks at ``b``
  only where ``a`` is absent or empty, not where it names no build;
- ``=kernel`` is the word "kernel", whatever the message is.

Only strings that are not empty are found; anything else is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

Add = Callable[[Any], None]
Finder = Callable[[Any, Add], None]
"""Takes a message, and calls its second argument with each name that it finds."""

_STEP = re.compile(
    r"""\.?(?:
        (?P<key>[^.^\[\]{}]+)
        | \[(?P<filter>[^=!\]]+)(?P<unless>!?)=(?P<values>[^?\]]*)(?P<optional>\??)\]
        | \[(?P<index>\d+)\]
        | \[(?P<having>[^\]]+)\]
        | (?P<each>\[\])
        | (?P<keys>\{\})
        | (?P<each_value>\{\*\})
    )""",
    re.VERBOSE,
)
_ACCOUNT = re.compile(r"[\w.+-]+")
_MENTION = re.compile(r"(?<![\w.@/+-])@(\w+)")
_OPENID = re.compile(r"(?:https?://)?(?P<name>[\w-]+)\.id\.fedoraproject\.org/?")

OUR_DOMAIN = "@fedoraproject.org"
NOBODY = frozenset({"anonymous", "orphan", "zodbot"})
"""Where a person should be, these stand for none: not logged in, no owner, the bot of IRC."""


def compile_finder(paths: Iterable[str], aliases: Mapping[str, str]) -> Finder:
    """One function for all of ``paths``.

    Args:
        paths: as this module explains them.
        aliases: addresses and nicks that stand for accounts.

    Raises:
        ValueError: a path is malformed.
        KeyError: there is no such transform.
    """
    in_body: list[Finder] = []
    in_message: list[Finder] = []
    for path in paths:
        # A path that starts from both goes through the body where it needs it.
        if "^" in path:
            in_message.append(_compile(path, aliases, from_message=True))
        else:
            in_body.append(_compile(path, aliases, from_message=False))

    def find_all(message: Any, add: Add) -> None:
        body = message.get("msg")
        for find in in_body:
            find(body, add)
        for find in in_message:
            find(message, add)

    if not in_message and len(in_body) == 1:
        find_only = in_body[0]
        return lambda message, add: find_only(message.get("msg"), add)
    return find_all


def _compile(path: str, aliases: Mapping[str, str], *, from_message: bool) -> Finder:
    alternatives = [
        _alternative(text, aliases, from_message=from_message) for text in path.split("||")
    ]
    if len(alternatives) == 1:
        place, finish = alternatives[0]
        return _through(place, finish)
    return _first([(_through(place, _present), finish) for place, finish in alternatives])


def _alternative(
    text: str, aliases: Mapping[str, str], *, from_message: bool
) -> tuple[str, Finder]:
    """The place, from where the finder starts, and what to do with each value that is there."""
    place, *names = (part.strip() for part in text.split("|"))
    finish: Finder = _found
    for name in reversed(names):
        finish = _transformed(partial(TRANSFORMS[name], aliases), finish)
    if place.startswith("^"):
        place = place[1:]
    elif from_message and not place.startswith("="):
        place = f"msg{place}" if place.startswith("[") else f"msg.{place}"
    return place, finish


def _through(place: str, find: Finder) -> Finder:
    if place.startswith("="):
        return lambda value, add: find(place[1:], add)
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
    if type(value) is str and value:
        add(value)


def _present(value: Any, add: Add) -> None:
    if value:
        add(value)


def _first(alternatives: list[tuple[Finder, Finder]]) -> Finder:
    def find(value: Any, add: Add) -> None:
        for locate, finish in alternatives:
            places: list[Any] = []
            locate(value, places.append)
            if places:
                for place in places:
                    finish(place, add)
                return

    return find


def _step(match: re.Match[str], find: Finder) -> Finder:
    if match["key"]:
        return _at_key(match["key"], find)
    if match["filter"]:
        values = tuple(match["values"].split(","))
        return _where(match["filter"], values, match["unless"] or match["optional"], find)
    if match["index"]:
        return _at_index(int(match["index"]), find)
    if match["having"]:
        return _where(match["having"], (None,), "!", find)
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


def _where(key: str, values: tuple[str | None, ...], operator: str, find: Finder) -> Finder:
    """Those whose ``key`` is one of ``values``; all but those (``!``); or has none (``?``)."""
    if operator == "?":
        values = (*values, None)
    wanted = operator != "!"

    def step(value: Any, add: Add) -> None:
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, dict):
                actual = item.get(key)
                if isinstance(actual, list) and len(actual) == 1:
                    actual = actual[0]
                if (actual in values) is wanted:
                    find(item, add)

    return step


def _transformed(transform: Callable[[Any], Iterable[Any]], find: Finder) -> Finder:
    def step(value: Any, add: Add) -> None:
        for result in transform(value):
            find(result, add)

    return step


def _of_text(function: Callable[[Mapping[str, str], str], Iterable[str]]) -> Any:
    def transform(aliases: Mapping[str, str], value: Any) -> Iterable[str]:
        return function(aliases, value) if isinstance(value, str) else ()

    return transform


def _account(aliases: Mapping[str, str], text: str) -> Iterable[str]:
    """The account behind an e-mail address ("Name <address>" too), an OpenID, or a plain name."""
    text = text.strip()
    if text.endswith(">"):
        text = text[text.rfind("<") + 1 : -1]
    if text in aliases:
        return (aliases[text],)
    if "@" in text:
        # Whose any other address is only the accounts system knows.
        return (text.removesuffix(OUR_DOMAIN),) if text.endswith(OUR_DOMAIN) else ()
    openid = _OPENID.fullmatch(text)
    if openid:
        return (openid["name"],)
    return (text,) if _ACCOUNT.fullmatch(text) else ()


def _name_of_build(_: Mapping[str, str], text: str) -> Iterable[str]:
    """The name in name-version-release; a name alone is itself."""
    return (text.rsplit("-", 2)[0],)


def _names_of_builds(aliases: Mapping[str, str], text: str) -> Iterable[str]:
    """The names in the title of an update: builds between commas or spaces."""
    for build in text.replace(",", " ").split():
        yield from _name_of_build(aliases, build)


def _component(_: Mapping[str, str], text: str) -> Iterable[str]:
    """A component of bugzilla, unless it is none of a package ("Package Review")."""
    return () if " " in text else (text,)


def _comma_separated(_: Mapping[str, str], text: str) -> Iterable[str]:
    return (part.strip() for part in text.split(","))


def _repository_in_topic(_: Mapping[str, str], topic: str) -> Iterable[str]:
    """The ``valgrind`` of ``org.fedoraproject.prod.git.receive.valgrind.master``, as of old."""
    return (".".join(topic.split(".")[5:-1]),)


def _changed_package(_: Mapping[str, str], entry: Any) -> Iterable[str]:
    """The package of a changed entry of a repository.

    A package or a relation begins with the name, maybe with an architecture (``boost(x86-32)``); a
    file with its path, and ends with the name.
    """
    if not isinstance(entry, list) or not entry or not isinstance(entry[0], str):
        return ()
    name = entry[-1] if "/" in entry[0] else entry[0]
    return (name.split("(", 1)[0],) if isinstance(name, str) else ()


def _sender(_: Mapping[str, str], body: Any) -> Iterable[Any]:
    """The account of who sent an event of GitHub, whose accounts are by login."""
    try:
        return (body["fas_usernames"][body["sender"]["login"]],)
    except (KeyError, TypeError, IndexError):
        return ()


TRANSFORMS: Mapping[str, Callable[..., Iterable[Any]]] = {
    "account": _of_text(_account),
    "nick": _of_text(lambda aliases, text: (aliases.get(text, text),)),
    "somebody": _of_text(lambda _, text: () if text in NOBODY else (text,)),
    "person": _of_text(lambda _, text: () if text.startswith("github_org_") else (text,)),
    "mentions": _of_text(lambda _, text: _MENTION.findall(text)),
    "lower": _of_text(lambda _, text: (text.lower(),)),
    "commas": _of_text(_comma_separated),
    "build": _of_text(_name_of_build),
    "builds": _of_text(_names_of_builds),
    "component": _of_text(_component),
    "repository": _of_text(_repository_in_topic),
    "changed": _changed_package,
    "sender": _sender,
}
"""From a value to what is found in it; the first argument are the aliases."""
