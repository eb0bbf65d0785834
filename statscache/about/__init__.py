"""Which users and packages a message is about.

Told by tables (:mod:`statscache.about.tables`), or by the processors of ``fedmsg.meta`` where they
are installed and the configuration asks for them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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


class Tables:
    """Finds names with tables of paths, compiled once per topic.

    Args:
        rules: topic patterns, from the service (the fourth token) on, to paths in the message.
        fallback: the paths for services that no pattern names.
        aliases: addresses and nicks that stand for an account.
    """

    def __init__(
        self,
        rules: Mapping[str, tuple[str, ...]],
        fallback: tuple[str, ...] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._rules: dict[str, list[tuple[Callable[[str], bool], tuple[str, ...]]]] = {}
        for pattern, paths in rules.items():
            service = pattern.split(".", 1)[0]
            self._rules.setdefault(service, []).append((matcher([pattern]), paths))
        self._fallback = fallback
        self._aliases = dict(aliases or {})
        self._finders: dict[str, Finder] = {}

    def names(self, raw: dict[str, Any]) -> set[str]:
        """The names in the fedmsg dict ``raw``; any body will do, an odd one has none."""
        topic = raw.get("topic")
        if type(topic) is not str:
            return set()
        finder = self._finders.get(topic)
        if finder is None:
            finder = self._compile(topic)
        found: set[str] = set()
        finder(raw, found.add)
        return found

    def _compile(self, topic: str) -> Finder:
        if len(self._finders) >= _MOST_TOPICS_REMEMBERED:
            self._finders.clear()
        tokens = topic.split(".")
        if len(tokens) > 3:  # some early topics lack the organisation and the environment
            tokens = tokens[3:]
        rules = self._rules.get(tokens[0])
        if rules is None:
            paths = self._fallback
        else:
            rest = ".".join(tokens)
            paths = tuple(path for matches, group in rules if matches(rest) for path in group)
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
    import fedmsg.meta  # costly, see make_processors()

    if not make_processors(config):
        raise ConfigurationError(
            "statscache.about is 'fedmsg.meta', and no processors are installed for it: install "
            "fedmsg_meta_fedora_infrastructure (its build needs the headers of Kerberos), or set "
            "statscache.about to 'tables'"
        )
    whole = _with_prefixes(config)
    _usernames = _FedmsgMeta(fedmsg.meta.msg2usernames, _usernames, whole).names
    _packages = _FedmsgMeta(fedmsg.meta.msg2packages, _packages, whole).names


def make_processors(config: Mapping[str, Any]) -> bool:
    """Let ``fedmsg.meta`` answer in this process; returns whether processors are installed for it.

    Where none are, our tables answer for users and packages.
    """
    # It takes a third of a second to import, and most processes do not need it.
    import fedmsg.meta

    with warnings.catch_warnings(), _left_out(fedmsg.meta.log, "No fedmsg.meta plugins found"):
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        fedmsg.meta.make_processors(**_with_prefixes(config))
    # fedmsg brings a few of its own, which know nothing of users and packages.
    if not all(type(each).__module__.startswith("fedmsg.") for each in fedmsg.meta.processors):
        return True
    default = fedmsg.meta.processors[-1]
    default.usernames = lambda message, **_: usernames(message)
    default.packages = lambda message, **_: packages(message)
    return False


@contextmanager
def _left_out(logger: logging.Logger, beginning: str) -> Iterator[None]:
    """Keep a line that is not true here out of a log."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


def _with_prefixes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"topic_prefix_re": _TOPIC_PREFIXES} | dict(config)


_usernames: Names
_packages: Names
configure({})
