"""Which users and packages a message is about.

Told by tables (:mod:`statscache.about.tables`), or by the processors of ``fedmsg.meta`` where they
are installed and the configuration asks for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from statscache.about.paths import Finder, compile_finder
from statscache.about.tables import ALIASES, PACKAGES, UNKNOWN_SERVICE_USERS, USERS
from statscache.errors import ConfigurationError
from statscache.topics import matcher

log = logging.getLogger(__name__)

Names = Callable[[dict[str, Any]], set[str]]

_TOPIC_PREFIXES = (
    r"^(io\.pagure|org\.fedoraproject|org\.centos|org\.release-monitoring)\.(dev|stg|prod)"
)
"""What fedmsg.meta takes for the beginning of a topic, where the configuration does not say."""

_MOST_TOPICS_REMEMBERED = 10_000
_DEEPEST_TRIGGER = 5
"""Messages within messages that are followed: a sender may nest them without end."""


class Tables:
    """Finds names with tables of paths, compiled once per topic.

    Args:
        rules: topic patterns, from the service (the fourth token) on, to paths in the body.
        fallback: the paths for services that no pattern names.
        aliases: names that stand for an account: addresses and nicks.
    """

    def __init__(
        self,
        rules: Mapping[str, tuple[str, ...]],
        fallback: tuple[str, ...] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._rules = [(matcher([pattern]), paths) for pattern, paths in rules.items()]
        self._fallback = fallback
        self._aliases = dict(aliases or {})
        self._finders: dict[str, Finder] = {}

    def names(self, raw: dict[str, Any], depth: int = 0) -> set[str]:
        """The names in the fedmsg dict ``raw``; any body will do, an odd one has none."""
        topic = raw.get("topic")
        if not isinstance(topic, str):
            return set()
        finder = self._finders.get(topic)
        if finder is None:
            finder = self._compile(topic)
        found: set[str] = set()
        finder(raw.get("msg"), found.add)
        if not found:
            return found
        for name in [name for name in found if type(name) is not str]:
            # A message that this one is an answer to.
            found.discard(name)
            if depth < _DEEPEST_TRIGGER:
                found |= self.names(name.raw, depth + 1)  # type: ignore[attr-defined]
        aliases = self._aliases
        if not aliases.keys().isdisjoint(found):
            found = {aliases.get(name, name) for name in found}
        return found

    def _compile(self, topic: str) -> Finder:
        if len(self._finders) >= _MOST_TOPICS_REMEMBERED:
            self._finders.clear()
        tokens = topic.split(".")
        # Some early topics lack the organisation and the environment.
        service = ".".join(tokens[3:] if len(tokens) > 3 else tokens)
        matching = [paths for matches, paths in self._rules if matches(service)]
        paths = [path for group in matching for path in group] if matching else self._fallback
        finder = compile_finder(dict.fromkeys(paths), self._aliases)
        self._finders[topic] = finder
        return finder


class _FedmsgMeta:
    """Asks the processors of fedmsg.meta, and the tables when one of them fails."""

    def __init__(self, function: Callable[..., set[str]], tables: Names, config: Any) -> None:
        self._function = function
        self._tables = tables
        self._config = config

    def names(self, raw: dict[str, Any]) -> set[str]:
        try:
            return {str(name) for name in self._function(raw, **self._config) if name}
        except Exception:
            log.warning("fedmsg.meta fails on %r", raw.get("topic"), exc_info=True)
            return self._tables(raw)


def usernames(raw: dict[str, Any]) -> set[str]:
    """The names of the accounts that the fedmsg dict ``raw`` is about."""
    return _usernames(raw)


def packages(raw: dict[str, Any]) -> set[str]:
    """The names of the source packages that the fedmsg dict ``raw`` is about."""
    return _packages(raw)


def configure(config: Mapping[str, Any]) -> None:
    """Choose by ``statscache.about`` who answers: ``tables`` or ``fedmsg.meta``.

    ``statscache.about.aliases`` adds names (e-mail addresses, IRC nicks) that stand for an account.

    Raises:
        ConfigurationError: fedmsg.meta is asked for and has no processors but its own default.
    """
    global _usernames, _packages
    aliases = config.get("statscache.about.aliases", {})
    if not isinstance(aliases, Mapping):
        raise ConfigurationError(
            f"statscache.about.aliases must map names to accounts, not {aliases!r}"
        )
    _usernames = Tables(USERS, UNKNOWN_SERVICE_USERS, ALIASES | dict(aliases)).names
    _packages = Tables(PACKAGES).names
    if config.get("statscache.about") != "fedmsg.meta":
        return
    import fedmsg.meta

    config = {"topic_prefix_re": _TOPIC_PREFIXES} | dict(config)
    fedmsg.meta.make_processors(**config)
    # fedmsg brings a few of its own, which know nothing of users and packages.
    if all(type(each).__module__.startswith("fedmsg.") for each in fedmsg.meta.processors):
        raise ConfigurationError(
            "statscache.about is 'fedmsg.meta', and no processors are installed for it: install "
            "fedmsg_meta_fedora_infrastructure (its build needs the headers of Kerberos), or set "
            "statscache.about to 'tables'"
        )
    _usernames = _FedmsgMeta(fedmsg.meta.msg2usernames, _usernames, config).names
    _packages = _FedmsgMeta(fedmsg.meta.msg2packages, _packages, config).names


_usernames: Names
_packages: Names
configure({})
