"""Which users and packages a message is about, and who did it.

Told by tables (:mod:`statscache.about.tables`, :mod:`statscache.about.agents`), or by the
processors of ``fedmsg.meta`` where they are installed and the configuration asks for them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from statscache.about.agents import AGENTS
from statscache.about.paths import Add, Finder, compile_finder
from statscache.about.tables import ALIASES, PACKAGES, UNKNOWN_SERVICE, USERS
from statscache.errors import ConfigurationError
from statscache.topics import matcher

log = logging.getLogger(__name__)

Names = Callable[[dict[str, Any]], set[str]]
Name = Callable[[dict[str, Any]], str | None]
T = TypeVar("T")

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
        found: set[str] = set()
        self._find(raw, found.add)
        return found

    def first(self, raw: dict[str, Any]) -> str | None:
        """The first name, in the order of the paths; None where there is none."""
        found: list[str] = []
        self._find(raw, found.append)
        return found[0] if found else None

    def _find(self, raw: dict[str, Any], add: Add) -> None:
        topic = raw.get("topic")
        if type(topic) is not str:
            return
        finder = self._finders.get(topic)
        if finder is None:
            finder = self._compile(topic)
        finder(raw, add)

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


def _or_tables(ask: Callable[[dict[str, Any]], T], tables: Callable[[dict[str, Any]], T]) -> Any:
    """Asks fedmsg.meta, and the tables when one of its processors fails."""

    def answer(raw: dict[str, Any]) -> T:
        try:
            return ask(raw)
        except Exception:
            log.warning("fedmsg.meta fails on %r", raw.get("topic"), exc_info=True)
            return tables(raw)

    return answer


def usernames(raw: dict[str, Any]) -> set[str]:
    """The names of the accounts that the fedmsg dict ``raw`` is about."""
    return _usernames(raw)


def packages(raw: dict[str, Any]) -> set[str]:
    """The names of the source packages that the fedmsg dict ``raw`` is about."""
    return _packages(raw)


def agent(raw: dict[str, Any]) -> str | None:
    """The name of the account that did what the fedmsg dict ``raw`` says; None for nobody's."""
    return _agent(raw)


def configure(config: Mapping[str, Any]) -> None:
    """Choose by ``statscache.about`` who answers: ``tables`` or ``fedmsg.meta``.

    ``statscache.about.aliases`` adds names (e-mail addresses, IRC nicks) that stand for an account.

    Raises:
        ConfigurationError: fedmsg.meta is asked for and has no processors but its own default.
    """
    global _usernames, _packages, _agent
    aliases = config.get("statscache.about.aliases", {})
    if not isinstance(aliases, Mapping):
        raise ConfigurationError(
            f"statscache.about.aliases must map names to accounts, not {aliases!r}"
        )
    _usernames = Tables(USERS, UNKNOWN_SERVICE, ALIASES | dict(aliases)).names
    _packages = Tables(PACKAGES).names
    # The processors of Fedora look up the addresses of whom a message is about, not of its agent.
    _agent = Tables(AGENTS, UNKNOWN_SERVICE, aliases).first
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

    def names(function: Callable[..., set[str]]) -> Names:
        return lambda raw: {str(name) for name in function(raw, **whole) if name}

    _usernames = _or_tables(names(fedmsg.meta.msg2usernames), _usernames)
    _packages = _or_tables(names(fedmsg.meta.msg2packages), _packages)
    if hasattr(fedmsg.meta, "msg2agent"):  # older ones do not know agents
        _agent = _or_tables(lambda raw: _text(fedmsg.meta.msg2agent(raw, **whole)), _agent)


def make_processors(config: Mapping[str, Any]) -> bool:
    """Let ``fedmsg.meta`` answer in this process; returns whether processors are installed for it.

    Where none are, our tables answer for users, packages and agents.
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
    default.agent = lambda message, **_: agent(message)
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


def _text(name: Any) -> str | None:
    return str(name) if name else None


_usernames: Names
_packages: Names
_agent: Name
configure({})
