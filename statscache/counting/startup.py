"""What happens when an engine is opened: missing tables are made, and each plugin gets its lane."""

from __future__ import annotations

import logging

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from statscache.counting.lanes.lanes import Lanes
from statscache.counting.membership.membership import Membership
from statscache.counting.transactions import Transactions
from statscache.database import schema
from statscache.database.connection import Database
from statscache.database.failures import is_unavailable
from statscache.isolation.lost_connections import LostConnections
from statscache.people import people_of
from statscache.plugins.installed.bundled import BUNDLED_DISTRIBUTION
from statscache.plugins.installed.discovery import Installed

log = logging.getLogger(__name__)


def prepare(
    database: Database,
    installed: Installed,
    lanes: Lanes,
    membership: Membership,
    transactions: Transactions,
    lost_connections: LostConnections,
) -> None:
    """Create missing tables, assign lanes, and delete rows of people who asked to be hidden.

    Raises:
        DatabaseUnavailable: nothing has been done.
        PluginFault: the same; the plugin is not asked again which rows it has.
    """
    others = [
        dataset.model.__table__
        for dataset in installed.datasets.values()
        if dataset.source.distribution != BUNDLED_DISTRIBUTION
    ]
    lost_connections.begin_transaction()
    try:
        with database.begin() as connection:
            # Another hub may be starting too.
            lanes.exclude(connection)
            for name in schema.create_missing(connection, others):
                log.info("created the table %s", name)
            membership.assign_lanes(connection)
            transactions.note_changes(connection, _delete_hidden(connection, installed))
    except BaseException as error:
        fault = transactions.give_up(error)
        if fault is None:
            raise
        # It has no lane yet, so it cannot be quarantined.
        log.error("%s: %s", ", ".join(fault.idents), fault)
        membership.assume_no_rows(fault.idents)
        raise fault from error


def launch(transactions: Transactions, lost_connections: LostConnections) -> None:
    """Let classic plugins prepare themselves.

    Raises:
        DatabaseUnavailable: nothing has been done.
        PluginFault: the same; the plugin has been quarantined.
    """
    with transactions.begin() as connection:
        for plugins in transactions.lane_plugins.values():
            for runner in plugins.runners:
                with lost_connections.turn(connection, (runner.ident,), 0):
                    runner.launch(connection)


def _delete_hidden(connection: Connection, installed: Installed) -> list[str]:
    """Delete what was counted for people who have asked since to appear nowhere."""
    deleted = []
    for ident, dataset in installed.datasets.items():
        try:
            with connection.begin_nested():
                if people_of(dataset.plugin).purge(connection, dataset):
                    deleted.append(ident)
        except DBAPIError as error:
            if is_unavailable(error):
                raise
            # A table that waits to be replaced may lack a column; its shadow has no such rows.
            log.warning("hidden people are not yet deleted from %s: %s", ident, error.orig)
    if deleted:
        log.info("rows of hidden people were deleted from %s", ", ".join(deleted))
    return deleted
