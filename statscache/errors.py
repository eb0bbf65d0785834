"""Every exception that statscache raises on purpose; each message names the cause and the cure."""


class StatscacheError(Exception):
    """The base of all of them."""


class InvalidMessage(StatscacheError):
    """What came over the bus, or out of an archive, is not a message."""


class ConfigurationError(StatscacheError):
    """A ``statscache.*`` key of the configuration cannot be used as it is."""


class InvalidPlugin(StatscacheError):
    """A plugin breaks its contract, so it is not loaded."""


class InvalidRow(StatscacheError):
    """A plugin gave a row that does not fit the columns that it declares."""


class SchemaError(StatscacheError):
    """The tables of the database are not those of this version."""


class DatabaseUnavailable(StatscacheError):
    """The database cannot be reached now; nothing of the current batch was committed."""


class StatementTimeout(StatscacheError):
    """A statement of the API ran longer than it may, and was ended."""


class ArchiveUnavailable(StatscacheError):
    """The archive of the bus cannot give what it has now; it can be asked again."""


class WorkerUnsuitable(StatscacheError):
    """A process that is to fold for others has not the plugins that it needs."""
