"""Who may use which table: the privileges of PostgreSQL. SQLite knows none."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

log = logging.getLogger(__name__)

_NEW_OWNER = text("""
    SELECT format('ALTER TABLE %I OWNER TO %I', :new, pg_get_userbyid(old.relowner))
    FROM pg_class AS old, pg_class AS new
    WHERE old.oid = to_regclass(quote_ident(:old)) AND new.oid = to_regclass(quote_ident(:new))
        AND old.relowner <> new.relowner
""")

# What default privileges have granted on the new table, and the old one does not have.
_REVOKED = text("""
    SELECT DISTINCT format(
        'REVOKE ALL ON %I FROM %s', :new,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE format('%I', pg_get_userbyid(grantee)) END
    )
    FROM pg_class, aclexplode(relacl)
    WHERE oid = to_regclass(quote_ident(:new)) AND grantee <> relowner
""")

_GRANTED = text("""
    SELECT format(
        'GRANT %s%s ON %I TO %s%s', privilege_type,
        CASE WHEN attname IS NULL THEN '' ELSE format(' (%I)', attname) END, :new,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE format('%I', pg_get_userbyid(grantee)) END,
        CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    )
    FROM (
        SELECT NULL AS attname, entry.*
        FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner))) AS entry
        WHERE oid = to_regclass(quote_ident(:old))
        UNION ALL
        SELECT attname, entry.*
        FROM pg_attribute AS old, aclexplode(attacl) AS entry
        WHERE attrelid = to_regclass(quote_ident(:old)) AND EXISTS (
            SELECT FROM pg_attribute AS new
            WHERE new.attrelid = to_regclass(quote_ident(:new)) AND new.attname = old.attname
                AND NOT new.attisdropped
        )
    ) AS entries
""")

_MISSING = text("""
    SELECT format(
        'GRANT SELECT ON %s TO %I', string_agg(format('%I', name), ', ' ORDER BY name), current_user
    )
    FROM unnest(CAST(:names AS text[])) AS name
    WHERE to_regclass(quote_ident(name)) IS NOT NULL
        AND NOT has_table_privilege(to_regclass(quote_ident(name)), 'SELECT')
    HAVING count(*) > 0
""")


def copy(connection: Connection, old: str, new: str) -> None:
    """Copy owner and privileges of the table ``old``, those of columns included, to ``new``."""
    if connection.dialect.name != "postgresql":
        return
    names = {"old": old, "new": new}
    owner = connection.scalar(_NEW_OWNER, names)
    if owner is not None:
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(owner)
        except ProgrammingError as error:
            # The privileges are copied all the same.
            log.warning("the owner of %s has changed, %s: %s", old, error.orig, owner)
    for statements in (_REVOKED, _GRANTED):
        for statement in connection.scalars(statements, names).all():
            connection.exec_driver_sql(statement)


def missing(connection: Connection, names: Iterable[str]) -> str | None:
    """The GRANT without which we cannot read some of the tables ``names``; None if we can.

    Tables that are not there are passed over.
    """
    if connection.dialect.name != "postgresql":
        return None
    found: str | None = connection.scalar(_MISSING, {"names": list(names)})
    return found
