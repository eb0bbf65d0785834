# The keys of statscache, with their defaults. The hub, the API and the command line read them.
# Dates and times are UTC.
import datetime

config = {
    # Whether fedmsg-hub runs statscache.
    "statscache.consumer.enabled": True,
    # SQLite needs nothing to be set up. For PostgreSQL: postgresql://user@host/statscache
    # The environment variable STATSCACHE_SQLALCHEMY_URI overrides it.
    "statscache.sqlalchemy.uri": "sqlite:///statscache.db",
    # How often the hub commits what has arrived: a message is in the tables within a second.
    "statscache.producer.frequency": datetime.timedelta(seconds=0.5),
    # It commits earlier when so many messages wait,
    "statscache.consumer.batch_size": 10_000,
    # and holds so many at most while the database is away.
    "statscache.consumer.buffer_size": 200_000,
    # How far back history goes.
    "statscache.consumer.epoch": datetime.datetime(2015, 1, 1),
    # The archive of the bus.
    "statscache.datagrepper.endpoint": "https://apps.fedoraproject.org/datagrepper/",
    # Files and folders of messages that are asked instead: JSON lines, plain, gz or zst.
    # "statscache.archive.files": ["/srv/messages"],
    # How long after it was sent the archive has a message, how often it is asked for what the
    # bus lost, and how far back it is asked again each time, since some come late.
    "statscache.archive.lag": datetime.timedelta(minutes=1),
    "statscache.archive.interval": datetime.timedelta(minutes=1),
    "statscache.archive.overlap": datetime.timedelta(minutes=15),
    # Questions to the archive at a time.
    "statscache.archive.concurrency": 1,
    # How much of the archive the background audit reads (0: none), and whether it repairs
    # what it finds to be wrong.
    "statscache.audit.messages_per_hour": 50_000,
    "statscache.audit.repair": False,
    # The share of the messages that were counted which the archive may lack when a table is
    # rebuilt: where it lacks more, the old rows stay.
    "statscache.rebuild.tolerated_loss": 0.0001,
    # How long a plugin may take for a batch, before it is ended and quarantined.
    "statscache.plugins.time_limit": datetime.timedelta(minutes=1),
    # How old rows get before they are deleted, by schedule (None: never); of other schedules the
    # plugins say: the volumes keep 15s for 7 days and 1m for 31, all else is kept for ever.
    "statscache.retention": {},
    # Plugins that come with statscache and are not wanted: names, idents, or patterns of them, such
    # as "volume-by-*"; "distribution:pattern" for plugins of others.
    "statscache.plugins.disabled": [],
    # How many bytes are kept of messages that could not be counted; the others are counted only.
    "statscache.rejected.bytes": 64 * 1024 * 1024,
    # Names that appear nowhere: not stored, not served, history included. A host (name@host) and
    # capitals make no other name.
    "statscache.people.hidden": [],
    # Accounts that the statistics about people leave out.
    "statscache.people.bots": ["anonymous", "bodhi", "koschei", "masher", "releng", "zodbot"],
    # Whether the API lists people: the data are public, but not everybody wants to be compared.
    # False: no route tells who there is, and numbers are given of people who are named.
    "statscache.people.lists": True,
    # The key of before. False: people are listed, but not by top and values.
    # "statscache.people.rankings": False,
    # Who and what a message is about: "tables" (our own), or "fedmsg.meta" where its
    # processors are installed.
    "statscache.about": "tables",
    # E-mail addresses and IRC nicks to the accounts that they stand for.
    "statscache.about.aliases": {},
    # The API.
    # Of JSON; downloads (CSV and newline-delimited JSON) have no maximum.
    "statscache.app.default_rows_per_page": 100,
    "statscache.app.maximum_rows_per_page": 100,
    # How long the statements of one request may run, all of them together; each piece of a download
    # may as long.
    "statscache.app.statement_timeout": datetime.timedelta(seconds=10),
    # How long a request may take, whatever it consists of: a download that takes longer, or whose
    # client does not read, is cut off.
    "statscache.app.request_timeout": datetime.timedelta(minutes=10),
    # Memory for answers that are kept, in each process.
    "statscache.app.cache_bytes": 64 * 1024 * 1024,
    # Clients that may wait for changes in each process of the API; None: half of its threads.
    "statscache.app.maximum_listeners": None,
    # How often they are shown that the connection is alive.
    "statscache.app.heartbeat": datetime.timedelta(seconds=15),
}
