"""Every exception that statscache raises on purpose; each message names the cause and the cure."""

import threading
from typing import ClassVar


class OutOfTime(BaseException):
    """Raised inside the code of a plugin that has taken too long; not for ``except Exception``."""


def described(error: BaseException) -> str:
    """Returns the kind and the text of an exception, even where its text raises another one."""
    try:
        text = str(error)
    except Exception as another:
        text = f"(its text raises {type(another).__name__})"
    return f"{type(error).__name__}: {text}"


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception in a plugin's code comes from outside of it.

    From a person, whose Ctrl-C comes to the main thread only, or from our watch.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return isinstance(error, OutOfTime) or (isinstance(error, KeyboardInterrupt) and is_main)


class StatscacheError(Exception):
    """The base of all exceptions of statscache."""


class InvalidMessage(StatscacheError):
    """What came over the bus, or out of an archive, is not a message."""


class ConfigurationError(StatscacheError):
    """A ``statscache.*`` key of the configuration cannot be used as it is."""


class InvalidPlugin(StatscacheError, ValueError):
    """A plugin breaks its contract, so it is not loaded."""


class Trespass(StatscacheError):
    """A classic plugin tried to use the database in a way that would harm others."""


class InvalidRow(StatscacheError):
    """A plugin returned a row that does not fit the columns that it declares."""


class Unavailable(StatscacheError):
    """The database cannot be used now; its operator has to act.

    Attributes:
        public: the text for clients of the API; the message may name hosts, roles and files.
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


class PluginFault(DatabaseUnavailable):
    """A plugin broke the common transaction, and has been quarantined.

    Nothing of the batch was committed; the same call may be made again at once.

    Attributes:
        idents: of the plugin.
        seconds: that it took, where that is its fault.
    """

    def __init__(self, text: str, idents: tuple[str, ...], seconds: float = 0.0) -> None:
        super().__init__(text)
        self.idents = idents
        self.seconds = seconds


class PluginTooSlow(PluginFault):
    """A plugin took longer for a batch than it may."""


class NotADatabase(Unavailable):
    """The file of the configured SQLite database is something else, or damaged."""


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
    """An answer could not be sent in the time that a request may take: it is cut off."""


class ArchiveUnavailable(StatscacheError):
    """The archive of the bus does not answer now; it can be asked again."""


class WorkerUnsuitable(StatscacheError):
    """A worker process lacks the plugins that it needs."""
