"""Which part of the program may know which: the floors, from the bottom to the top.

A floor is a folder (its own modules, not those of the folders in it) or a module at the root of the
package. It imports the floors that its entry names, all of which stand below it, so that no import
leads back. What is imported inside a function or for the type checker counts as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Floor(NamedTuple):
    """What a floor is for, and which floors below it may import."""

    is_for: str
    knows: str = ""


FLOORS: Mapping[str, Floor] = {
    "statscache": Floor("the version"),
    "errors": Floor("all exceptions, so that who catches one needs no part that raises it"),
    "times": Floor("how times become datetimes and text, and back"),
    "spans": Floor("spans of time, and what several of them cover together"),
    "clock": Floor("the present, which is given to whatever depends on it"),
    "logs": Floor("how records are written: printable, and once where they recur", "clock"),
    "topics": Floor("patterns of topics", "errors"),
    "about": Floor("which users and packages a message is about", "errors topics"),
    "message": Floor("what flows: made once at the edge, never changed", "about clock errors"),
    "rejection": Floor("why something is not counted", "errors message"),
    "plugins": Floor(
        "the contract: all that the author of a plugin imports; neither sessions nor dialects, nor "
        "what runs plugins",
        "times errors message topics",
    ),
    "plugins.installed": Floor(
        "which plugins are installed: found, checked, and what is wrong with the others",
        "about errors topics plugins",
    ),
    "people": Floor(
        "who is hidden, who is a bot, who is listed",
        "errors plugins plugins.installed",
    ),
    "config": Floor("the keys of the configuration, read and checked", "errors times people"),
    "database": Floor(
        "connections, tables, migrations and upserts; knows columns of plugins, not messages",
        "errors times people plugins plugins.installed",
    ),
    "archive": Floor(
        "what happened: messages read from datagrepper or files; knows messages, not who counts",
        "times statscache errors clock logs topics message rejection config",
    ),
    "isolation": Floor(
        "keeps plugins from harming others: limits of time, blame for lost connections",
        "errors logs clock message database",
    ),
    "counting.classic": Floor(
        "what exists for classic plugins alone",
        "errors times message rejection plugins database isolation",
    ),
    "counting.lanes": Floor(
        "what a lane remembers: claims, checksums, checkpoints, gaps, leases",
        "spans clock message database",
    ),
    "counting.folding": Floor(
        "what messages add to tables: folded into partial aggregates, and written",
        "errors topics message rejection people plugins database archive isolation "
        "counting.classic counting.lanes",
    ),
    "counting.membership": Floor(
        "what is known of each plugin: its lane, how far back it goes, what it rejected",
        "errors times spans clock logs message rejection plugins plugins.installed "
        "database isolation counting.classic counting.lanes counting.folding",
    ),
    "counting": Floor(
        "each message exactly once: a batch is claimed, folded, written, and the lane "
        "advances; knows slices of an archive, not where they are read from nor when",
        "errors clock message rejection plugins.installed people config database archive "
        "isolation counting.classic counting.lanes counting.folding counting.membership",
    ),
    "audit": Floor(
        "compares what was counted with the archive, and repairs it",
        "spans errors times clock message isolation plugins plugins.installed database "
        "archive counting counting.classic counting.lanes counting.folding "
        "counting.membership",
    ),
    "catchup": Floor(
        "when the archive is asked, by which workers: windows, gaps, backfills",
        "times statscache errors clock logs topics about message plugins.installed config "
        "database archive isolation counting counting.lanes audit counting.folding",
    ),
    "hub": Floor(
        "the process that counts: fedmsg's consumer, and what it hands on",
        "times statscache errors clock logs about message rejection plugins.installed "
        "config database archive counting audit catchup",
    ),
    "app.state": Floor(
        "what the hub has committed: revisions, coverage, rows",
        "errors times spans people plugins plugins.installed database",
    ),
    "app.http": Floor(
        "what is asked and answered: requests, parameters, times, formats",
        "errors plugins plugins.installed app.state",
    ),
    "app.dispatch": Floor(
        "from a request to its response, alike for all routes, and what is kept of answers",
        "statscache errors logs people plugins.installed config app.state app.http",
    ),
    "app.charts": Floor(
        "buckets: calendars, ranges, aggregation, comparison",
        "times plugins plugins.installed app.state app.http app.dispatch",
    ),
    "app.live": Floor(
        "clients that wait for a change: events and long polls",
        "errors app.state app.http app.dispatch",
    ),
    "app.routes": Floor(
        "one module a route",
        "times statscache errors people plugins plugins.installed config database "
        "app.state app.http app.dispatch app.charts app.live",
    ),
    "app.pages": Floor(
        "the pages for people",
        "times statscache people plugins.installed app.state app.http app.dispatch app.routes",
    ),
    "app": Floor(
        "assembles the API, which reads what the hub has committed, and never knows the "
        "engine, the archive or the bus",
        "plugins.installed config app.state app.http app.dispatch app.live app.routes app.pages",
    ),
    "cli": Floor(
        "what the commands share: configuration, terminal, progress",
        "times statscache errors logs about plugins plugins.installed config database "
        "archive counting counting.membership catchup hub",
    ),
    "demo": Floor("a bus, a hub and the API on one machine", "errors config database"),
    "cli.commands": Floor(
        "the commands, a module each, imported when asked for",
        "errors times clock logs about plugins config database archive counting counting.lanes "
        "audit hub app app.http app.live app.state cli demo",
    ),
    "__main__": Floor("python -m statscache", "cli"),
    "testing": Floor(
        "all that the author of a plugin needs for tests", "message plugins counting.folding"
    ),
    "utils": Floor(
        "what plugins of 2015 imported from here, and nothing else",
        "times plugins plugins.installed config archive",
    ),
    "consumer": Floor("where installed configurations look for the consumer", "hub"),
    "wsgi": Floor("the application, for servers of WSGI", "logs app"),
    "asgi": Floor("the application, for servers of ASGI", "logs app app.live"),
    "gunicorn": Floor("the configuration of gunicorn"),
    "statscache_plugins": Floor("the bundled plugins: messages and columns, as anyone's"),
    "statscache_plugins.pagure": Floor("contributions to pagure", "plugins"),
    "statscache_plugins.releng": Floor("the newest of what release engineering makes", "plugins"),
    "statscache_plugins.volume": Floor("how many messages there are", "plugins"),
}
