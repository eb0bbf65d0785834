"""The ``statscache.*`` keys of fedmsg's configuration, checked once and converted to types."""

from __future__ import annotations

import difflib
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fedmsg.config
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from statscache.errors import ConfigurationError
from statscache.people import People
from statscache.times import aware

log = logging.getLogger(__name__)

KEYS = frozenset(
    f"statscache.{name}"
    for name in (
        "consumer.enabled",
        "sqlalchemy.uri",
        "producer.frequency",
        "consumer.batch_size",
        "consumer.buffer_size",
        "consumer.epoch",
        "datagrepper.endpoint",
        "archive.files",
        "archive.lag",
        "archive.interval",
        "archive.overlap",
        "archive.concurrency",
        "audit.messages_per_hour",
        "audit.repair",
        "rebuild.tolerated_loss",
        "plugins.time_limit",
        "retention",
        "plugins.disabled",
        "rejected.bytes",
        "people.hidden",
        "people.bots",
        "people.lists",
        "people.rankings",
        "about",
        "about.aliases",
        "app.default_rows_per_page",
        "app.maximum_rows_per_page",
        "app.statement_timeout",
        "app.request_timeout",
        "app.cache_bytes",
        "app.maximum_listeners",
        "app.heartbeat",
    )
)
"""All keys that are read."""

URI_VARIABLE = "STATSCACHE_SQLALCHEMY_URI"
"""The environment variable that overrides ``statscache.sqlalchemy.uri`` for every process."""

REJECTED_BYTES = 64 * 1024 * 1024
"""How much is kept of what could not be counted, unless the configuration says otherwise."""

ABOUT_SOURCES = ("tables", "fedmsg.meta")


TOLERATED_LOSS = 1 / 10_000
"""Of the messages that were counted."""


@dataclass(frozen=True)
class Settings:
    """What the configuration says; each attribute names its key."""

    uri: str
    """``statscache.sqlalchemy.uri``: where the tables are."""
    consumer_enabled: bool
    """``statscache.consumer.enabled``: whether the hub runs our consumer."""
    epoch: datetime | None
    """``statscache.consumer.epoch``: how far back history goes, UTC; None is unlimited."""
    frequency: timedelta
    """``statscache.producer.frequency``: how often the hub commits what has arrived."""
    batch_size: int
    """``statscache.consumer.batch_size``: messages after which it commits without waiting."""
    buffer_size: int
    """``statscache.consumer.buffer_size``: messages held at most while the database is away."""
    datagrepper_endpoint: str | None
    """``statscache.datagrepper.endpoint``: the archive; None: there is none."""
    archive_files: tuple[str, ...]
    """``statscache.archive.files``: files and folders of messages, instead of datagrepper."""
    archive_concurrency: int
    """``statscache.archive.concurrency``: questions to the archive at a time."""
    archive_interval: timedelta
    """``statscache.archive.interval``: how often what the bus lost is asked for."""
    archive_lag: timedelta
    """``statscache.archive.lag``: how long after it was sent the archive has a message."""
    archive_overlap: timedelta
    """``statscache.archive.overlap``: how far back the archive is asked again every time."""
    audit_budget: int
    """``statscache.audit.messages_per_hour``: how much of the archive the background audit may
    read; 0 switches it off."""
    audit_repairs: bool
    """``statscache.audit.repair``: whether the audit repairs what it finds to be wrong."""
    tolerated_loss: float
    """``statscache.rebuild.tolerated_loss``: the share of what was counted, 0 to 1, that the
    archive may lack when a table is rebuilt."""
    default_rows_per_page: int
    """``statscache.app.default_rows_per_page``."""
    maximum_rows_per_page: int
    """``statscache.app.maximum_rows_per_page``."""
    statement_timeout: timedelta
    """``statscache.app.statement_timeout``: how long the statements of one request may run, all of
    them together; of a download each piece."""
    request_timeout: timedelta
    """``statscache.app.request_timeout``: how long a request may take, with all that is sent; but
    who waits for changes may wait."""
    cache_bytes: int
    """``statscache.app.cache_bytes``: memory for answers that are kept, in each process."""
    maximum_listeners: int | None
    """``statscache.app.maximum_listeners``: clients that may wait for changes in each process;
    None: as many as suit the server."""
    heartbeat: timedelta
    """``statscache.app.heartbeat``: how often a client that waits is shown that we are there."""
    plugin_time_limit: timedelta
    """``statscache.plugins.time_limit``: how long a plugin may take for a batch."""
    retention: Mapping[str, timedelta | None]
    """``statscache.retention``: schedule (``15s``) to the age at which its rows are deleted, None:
    never; of resolutions that are not named the plugins say."""
    rejected_bytes: int
    """``statscache.rejected.bytes``: how much is kept of what could not be counted."""
    people: People
    """``statscache.people.hidden``, ``statscache.people.bots``: who is left out;
    ``statscache.people.lists``, ``statscache.people.rankings``: whether the others are listed."""
    about: str
    """``statscache.about``: ``tables`` (our own) or ``fedmsg.meta`` (the installed processors)."""

    @property
    def has_archive(self) -> bool:
        """Whether there is an archive that has what the bus lost."""
        return bool(self.archive_files or self.datagrepper_endpoint)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check the keys; keys that are not there have their defaults.

        Raises:
            ConfigurationError: a value cannot be used; the message names the key and the cure.
        """
        default_rows = _positive_int(config, "statscache.app.default_rows_per_page", 100)
        maximum_rows = _positive_int(config, "statscache.app.maximum_rows_per_page", 100)
        return cls(
            uri=_uri(config),
            consumer_enabled=bool(config.get("statscache.consumer.enabled", False)),
            epoch=_moment(config, "statscache.consumer.epoch"),
            frequency=_duration(config, "statscache.producer.frequency", timedelta(seconds=0.5)),
            batch_size=_positive_int(config, "statscache.consumer.batch_size", 10_000),
            buffer_size=_positive_int(config, "statscache.consumer.buffer_size", 200_000),
            datagrepper_endpoint=_endpoint(config),
            archive_files=_paths(config, "statscache.archive.files"),
            archive_concurrency=_positive_int(config, "statscache.archive.concurrency", 1),
            archive_interval=_duration(config, "statscache.archive.interval", timedelta(minutes=1)),
            archive_lag=_duration(config, "statscache.archive.lag", timedelta(minutes=1)),
            archive_overlap=_duration(config, "statscache.archive.overlap", timedelta(minutes=15)),
            audit_budget=_natural(config, "statscache.audit.messages_per_hour", 50_000),
            audit_repairs=bool(config.get("statscache.audit.repair", False)),
            tolerated_loss=_share(config, "statscache.rebuild.tolerated_loss", TOLERATED_LOSS),
            default_rows_per_page=min(default_rows, maximum_rows),
            maximum_rows_per_page=maximum_rows,
            statement_timeout=_duration(
                config, "statscache.app.statement_timeout", timedelta(seconds=10)
            ),
            request_timeout=_duration(
                config, "statscache.app.request_timeout", timedelta(minutes=10)
            ),
            cache_bytes=_natural(config, "statscache.app.cache_bytes", 64 * 1024 * 1024),
            maximum_listeners=_maximum(config, "statscache.app.maximum_listeners"),
            heartbeat=_duration(config, "statscache.app.heartbeat", timedelta(seconds=15)),
            plugin_time_limit=_duration(
                config, "statscache.plugins.time_limit", timedelta(minutes=1)
            ),
            retention=_retention(config),
            rejected_bytes=_natural(config, "statscache.rejected.bytes", REJECTED_BYTES),
            people=People.from_config(config),
            about=_choice(config, "statscache.about", ABOUT_SOURCES),
        )


def load(filename: str | None = None, *, for_the_bus: bool = False) -> dict[str, Any]:
    """fedmsg's configuration, from the files that fedmsg-hub reads.

    Those are ``/etc/fedmsg.d/``, ``~/.fedmsg.d/`` and ``./fedmsg.d/``, or the one file given.
    ``for_the_bus``: with fedmsg's defaults, as the hub needs them.

    Raises:
        ConfigurationError: a file cannot be read, or, for the bus, none says where that is.
    """
    with warnings.catch_warnings():
        # The replacement, fedmsg.config.conf, reads other folders than fedmsg-hub does.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Without its defaults fedmsg does not insist on a bus, which only the hub needs.
        try:
            config: dict[str, Any] = fedmsg.config.load_config(
                filenames=[filename] if filename else None,
                invalidate_cache=True,
                disable_defaults=not for_the_bus,
            )
        except Exception as error:
            # The files are programs: anything may happen in them.
            what = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            files = filename or "/etc/fedmsg.d/, ~/.fedmsg.d/ and ./fedmsg.d/"
            raise ConfigurationError(
                f"fedmsg's configuration cannot be used: {what}. It is read from {files}; "
                "'statscache config' writes one to begin with"
            ) from error
    warn_of_misspelt(config)
    return dict(config)


def warn_of_misspelt(config: Mapping[str, Any]) -> None:
    """Log the keys that look misspelt; unknown keys may be of plugins."""
    for key in sorted(config.keys() - KEYS):
        if key.startswith("statscache."):
            for meant in difflib.get_close_matches(key, KEYS, n=1, cutoff=0.8):
                log.warning("the configuration has the key %r: is %r meant?", key, meant)


def _uri(config: Mapping[str, Any]) -> str:
    key = "statscache.sqlalchemy.uri"
    uri = os.environ.get(URI_VARIABLE) or config.get(key) or "sqlite:///statscache.db"
    origin = URI_VARIABLE if os.environ.get(URI_VARIABLE) else key
    try:
        url = make_url(uri)
    except ArgumentError:
        raise ConfigurationError(
            f"{origin} is not a database URI: {uri!r}; write, for example, "
            "sqlite:////var/lib/statscache/statscache.db or postgresql://user@host/statscache"
        ) from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ConfigurationError(
            f"{origin} names the database {backend!r}; statscache runs on sqlite and postgresql"
        )
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigurationError(
            f"{origin} is an in-memory SQLite database, which the hub and the API cannot share; "
            "name a file, for example sqlite:///statscache.db"
        )
    if backend == "sqlite" and url.database and not url.database.startswith("file:"):
        parent = Path(url.database).absolute().parent
        if not parent.is_dir():
            raise ConfigurationError(
                f"{origin}: the folder {str(parent)!r} does not exist; create it, "
                "writable for the user that runs the hub"
            )
    return str(uri)


def _positive_int(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{key} must be a whole number from 1 on, not {value!r}")
    return value


def _natural(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if type(value) is not int or value < 0:
        raise ConfigurationError(f"{key} must be a whole number from 0 on, not {value!r}")
    return value


def _share(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{key} must be a share from 0 to 1, not {value!r}")
    return float(value)


def _maximum(config: Mapping[str, Any], key: str) -> int | None:
    return None if config.get(key) is None else _natural(config, key, 0)


def _endpoint(config: Mapping[str, Any]) -> str | None:
    key = "statscache.datagrepper.endpoint"
    value = config.get(key)
    if not value:
        return None
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"{key} must be a URL such as https://apps.fedoraproject.org/datagrepper/, or None "
            f"where there is no archive, not {value!r}"
        )
    return root_of_datagrepper(value)


def root_of_datagrepper(endpoint: str) -> str:
    """The address to which datagrepper's routes are added, with a slash at its end.

    In 2015 the endpoint was that of the route ``/raw``.
    """
    return endpoint.rstrip("/").removesuffix("/raw").removesuffix("/v2/search") + "/"


def _paths(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = config.get(key, ())
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(path, str) for path in value):
        raise ConfigurationError(f"{key} must be a list of files and folders, not {value!r}")
    for path in value:
        if not Path(path).exists():
            raise ConfigurationError(f"{key}: there is no {path!r}")
    return tuple(value)


def _duration(config: Mapping[str, Any], key: str, default: timedelta) -> timedelta:
    value = config.get(key, default)
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise ConfigurationError(
            f"{key} must be a datetime.timedelta longer than zero, not {value!r}"
        )
    return value


def _moment(config: Mapping[str, Any], key: str) -> datetime | None:
    value = config.get(key)
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise ConfigurationError(f"{key} must be a datetime.datetime in UTC, not {value!r}")
    return aware(value)


def _retention(config: Mapping[str, Any]) -> Mapping[str, timedelta | None]:
    key = "statscache.retention"
    value = config.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{key} must map schedules to timedeltas, such as {{'15s': timedelta(days=7)}}, "
            f"not {value!r}"
        )
    for age in value.values():
        if age is not None and (not isinstance(age, timedelta) or age <= timedelta(0)):
            raise ConfigurationError(
                f"{key}: {age!r} is neither a timedelta longer than zero nor None"
            )
    return dict(value)


def _choice(config: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    value = config.get(key, choices[0])
    if value not in choices:
        raise ConfigurationError(f"{key} must be one of {', '.join(choices)}, not {value!r}")
    return str(value)
