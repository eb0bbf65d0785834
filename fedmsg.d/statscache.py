# The keys of statscache, with their defaults. The hub, the API and the command line read them.
# Dates and times are UTC.
import datetime

config = {
    # Whether fedmsg-hub runs statscache.
    "statscache.consumer.enabled": True,
    # SQLite needs nothing to be set up. For PostgreSQL: postgresql://user@host/statscache
    # The environment variable STATSCACHE_SQLALCHEMY_URI overrides it.
    "statscache.sqlalchemy.uri": "sqlite:///statscache.db",
    # How often the hub commits what has arrived.
    "statscache.producer.frequency": datetime.timedelta(seconds=1),
    # It commits earlier when so many messages wait,
    "statscache.consumer.batch_size": 10_000,
    # and holds so many at most while the database is away.
    "statscache.consumer.buffer_size": 200_000,
    # How far back history goes.
    "statscache.consumer.epoch": datetime.datetime(2015, 1, 1),
    # The archive of the bus.
    "statscache.datagrepper.endpoint": "https://apps.fedoraproject.org/datagrepper/",
    # How old rows get before they are deleted, by schedule; others are kept for ever.
    # "statscache.retention": {"15s": datetime.timedelta(days=7)},
    # Who and what a message is about: "tables" (our own), or "fedmsg.meta" where its
    # processors are installed.
    "statscache.about": "tables",
    # E-mail addresses and IRC nicks to the accounts that they stand for.
    "statscache.about.aliases": {},
    # The API.
    "statscache.app.default_rows_per_page": 100,
    "statscache.app.maximum_rows_per_page": 100,
    "statscache.app.statement_timeout": datetime.timedelta(seconds=10),
}
