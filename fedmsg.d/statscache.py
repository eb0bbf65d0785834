# The keys of statscache, with their defaults. The hub, the API and the command line read them.
# Dates and times are UTC.
import datetime

config = {
    # Whether fedmsg-hub runs statscache.
    "statscache.consumer.enabled": True,
    # SQLite needs no setup. For PostgreSQL: postgresql://user@host/statscache
    # The environment variable STATSCACHE_SQLALCHEMY_URI overrides it.
    "statscache.sqlalchemy.uri": "sqlite:///statscache.db",
    # The time between two commits of the hub: a message is in the tables within a second.
    "statscache.producer.frequency": datetime.timedelta(seconds=0.5),
    # The hub commits earlier when this many messages wait,
    "statscache.consumer.batch_size": 10_000,
    # and keeps at most this many in memory while the database is away.
    "statscache.consumer.buffer_size": 200_000,
    # How far back history goes.
    "statscache.consumer.epoch": datetime.datetime(2015, 1, 1),
    # The archive of the bus.
    "statscache.datagrepper.endpoint": "https://apps.fedoraproject.org/datagrepper/",
    # Files and folders of messages to use as the archive instead: JSON lines, plain, gz or zst.
    # "statscache.archive.files": ["/srv/messages"],
    # How long after it was sent the archive has a message; the time between two requests for what
    # the bus lost; and how far back each of them reaches again, since some messages are late.
    "statscache.archive.lag": datetime.timedelta(minutes=1),
    "statscache.archive.interval": datetime.timedelta(minutes=1),
    "statscache.archive.overlap": datetime.timedelta(minutes=15),
    # Concurrent queries to the archive.
    "statscache.archive.concurrency": 1,
    # How much of the archive the background audit reads (0: nothing), and whether it repairs wrong
    # rows.
    "statscache.audit.messages_per_hour": 50_000,
    "statscache.audit.repair": False,
    # The share of the counted messages that the archive may lack when a table is rebuilt: if it
    # lacks more, the old rows stay.
    "statscache.rebuild.tolerated_loss": 0.0001,
    # The time that a plugin may take for a batch before it is interrupted and quarantined.
    "statscache.plugins.time_limit": datetime.timedelta(minutes=1),
    # A dict from schedule to the age at which rows are deleted (None: never). The plugins declare
    # the defaults: the volumes keep 15s for 7 days and 1m for 31, everything else for ever.
    "statscache.retention": {},
    # Bundled plugins to turn off: names, idents, or patterns such as "volume-by-*";
    # "distribution:pattern" for plugins of other distributions.
    "statscache.plugins.disabled": [],
    # The maximum size of stored rejections; of the others only the number is stored.
    "statscache.rejected.bytes": 64 * 1024 * 1024,
    # Names that appear nowhere: neither stored nor served, history included. Compared without a
    # host (name@host) and regardless of case.
    "statscache.people.hidden": [],
    # Accounts that the statistics about people leave out.
    "statscache.people.bots": ["anonymous", "bodhi", "koschei", "masher", "releng", "zodbot"],
    # Whether the API lists people. The data are public, but not everyone wants to be compared.
    # False: no route lists them; numbers are returned for people whom the query names.
    "statscache.people.lists": True,
    # The former key. False: people are listed, but not by top and values.
    # "statscache.people.rankings": False,
    # What determines the users and packages of a message: "tables" (our own), or "fedmsg.meta"
    # (its installed processors).
    "statscache.about": "tables",
    # A dict from e-mail addresses and IRC nicks to accounts.
    "statscache.about.aliases": {},
    # The API.
    # Pages of JSON; downloads (CSV and newline-delimited JSON) have no maximum.
    "statscache.app.default_rows_per_page": 100,
    "statscache.app.maximum_rows_per_page": 100,
    # The time that all statements of one request may take together; each chunk of a download may
    # take as long.
    "statscache.app.statement_timeout": datetime.timedelta(seconds=10),
    # The time that a request may take in total: a download that takes longer, also because of a
    # slow client, is cut off.
    "statscache.app.request_timeout": datetime.timedelta(minutes=10),
    # The memory for cached answers in each process.
    "statscache.app.cache_bytes": 64 * 1024 * 1024,
    # The clients that may wait for changes in each process of the API; None: half of its threads.
    "statscache.app.maximum_listeners": None,
    # The time between two signs of life to a waiting client.
    "statscache.app.heartbeat": datetime.timedelta(seconds=15),
}
