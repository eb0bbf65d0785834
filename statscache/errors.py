"""Every exception that statscache raises on purpose; each message names the cause and the cure."""

import threading
from typing import ClassVar


def is_interrupt(error: BaseException) -> bool:
    """Whether a person interrupts the program: Ctrl-C comes to the main thread only."""
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
    )


class StatscacheError(Exception):
    """The base of all of them."""


class InvalidMessage(StatscacheError):
    """What came over the bus, or out of an archive, is not a message."""


class ConfigurationError(StatscacheError):
    """A ``statscache.*`` key of the configuration cannot be used as it is."""


class InvalidPlugin(StatscacheError, ValueError):
    """A plugin breaks its contract, so it is not loaded."""


class InvalidRow(StatscacheError):
    """A plugin gave a row that does not fit the columns that it declares."""


class Unavailable(StatscacheError):
    """The database cannot be used now, which is for its operator to mend.

    Attributes:
        public: what strangers are told instead of the message, which may name hosts, roles and
            files.
    """

    public: ClassVar[str] = "the database cannot be used now"


class SchemaError(Unavailable):
    """The tables of the database are not those of this version."""

    public = (
        "the database does not have the tables of this version of statscache: its operator runs "
        "'statscache db upgrade', or upgrades statscache"
    )


class DatabaseMissing(SchemaError):
    """There is no database yet."""

    public = "there is no database yet: its operator runs 'statscache db upgrade'"


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached now; nothing of the current batch was committed."""

    public = "the database does not answer; try again in a moment"


class AccessDenied(Unavailable):
    """The database does not let this process read a table; the message has the GRANT."""

    public = (
        "the database does not let this server read its tables: its operator finds in the log of "
        "the server what to grant"
    )


class StatementTimeout(Unavailable):
    """A statement of the API ran longer than it may, and was ended."""

    public = "the database takes longer to answer than it may; try again in a moment"


class RequestTimeout(StatscacheError):
    """An answer could not be sent in the time that a request may take: it ends in the midst."""


class ArchiveUnavailable(StatscacheError):
    """The archive of the bus cannot give what it has now; it can be asked again."""


class WorkerUnsuitable(StatscacheError):
    """A process that is to fold for others has not the plugins that it needs."""
