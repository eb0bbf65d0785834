"""Who may read the tables: what an operator grants stays granted, and strangers learn nothing."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.engine import make_url

from statscache.app.application import build_app
from statscache.config import Settings
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from tests.support.databases import execute
from tests.support.hub_fixture import NOW, Hits, HubFixture, Log, complete, messages
from tests.support.postgresql import administer

FOUND = messages(40, NOW - 80_000, 1900)

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@pytest.fixture
def role(postgresql_uri: str) -> Iterator[str]:
    """A role that may do nothing yet; its name has to be quoted."""
    name = f"Reader {uuid.uuid4().hex[:8]}"
    administer(postgresql_uri, f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'secret'")
    yield name
    administer(postgresql_uri, f'DROP ROLE "{name}"')


def client_of(hub_fixture: HubFixture, role: str) -> FlaskClient:
    uri = make_url(hub_fixture.uri).set(username=role, password="secret")
    text = uri.render_as_string(hide_password=False)
    settings = Settings.from_config({"statscache.sqlalchemy.uri": text})
    source = Source("test", "test-distribution", "1.0")
    installed = discovery.load([(source, lambda: (Hits, Log))], {})
    return build_app(settings, installed).test_client()


def privileges(hub_fixture: HubFixture, table: str) -> tuple[Any, ...]:
    """The owner, the privileges of the table, and those of its columns."""
    engine = sa.create_engine(hub_fixture.uri)
    with engine.connect() as connection:
        owner, entries = connection.execute(
            sa.text(
                "SELECT pg_get_userbyid(relowner), CAST(relacl AS text[]) FROM pg_class "
                "WHERE relname = :table"
            ),
            {"table": table},
        ).one()
        columns = connection.execute(
            sa.text(
                "SELECT attname, CAST(attacl AS text) FROM pg_attribute JOIN pg_class "
                "ON attrelid = pg_class.oid WHERE relname = :table AND attacl IS NOT NULL"
            ),
            {"table": table},
        ).all()
    engine.dispose()
    return owner, sorted(entries), sorted(map(tuple, columns))


def rebuild(hub_fixture: HubFixture, archive: Any, *idents: str) -> None:
    engine = hub_fixture.open(Hits, Log)
    assert engine.rebuild(idents)
    complete(engine, archive)


def test_who_may_read_a_table_may_read_the_one_that_takes_its_place(
    role: str, hub_fixture: HubFixture
) -> None:
    archive = hub_fixture.archive(FOUND)
    complete(hub_fixture.open(Hits, Log), archive)
    for statement in (
        f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"',
        f'GRANT UPDATE (hits) ON hits_1h TO "{role}"',
        "GRANT SELECT ON hits_1h TO PUBLIC",
        f'GRANT DELETE ON hits_1h TO "{role}" WITH GRANT OPTION',
        # What new tables get by default is not what this one has.
        f'ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO "{role}"',
    ):
        execute(hub_fixture.uri, statement)
    tables = ("hits_1h", "hits_1d", "catchup_log")
    before = {name: privileges(hub_fixture, name) for name in tables}
    client = client_of(hub_fixture, role)
    rows = client.get("/api/hits-1d").json
    assert len(rows) > 2
    rebuild(hub_fixture, archive, "hits-1h", "hits-1d", "log")
    assert {name: privileges(hub_fixture, name) for name in tables} == before
    assert client.get("/api/hits-1d").json == rows
    assert len(client.get("/api/log?limit=3").json) == 3


def test_the_owner_stays_the_owner(role: str, hub_fixture: HubFixture) -> None:
    archive = hub_fixture.archive(FOUND)
    complete(hub_fixture.open(Hits, Log), archive)
    execute(hub_fixture.uri, f'GRANT CREATE ON SCHEMA public TO "{role}"')
    execute(hub_fixture.uri, f'ALTER TABLE hits_1d OWNER TO "{role}"')
    rebuild(hub_fixture, archive, "hits-1d")
    assert privileges(hub_fixture, "hits_1d")[0] == role


def test_what_is_not_granted_is_a_503_whose_cure_is_in_the_log(
    role: str, hub_fixture: HubFixture, caplog: pytest.LogCaptureFixture
) -> None:
    complete(hub_fixture.open(Hits, Log), hub_fixture.archive(FOUND))
    execute(hub_fixture.uri, f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"')
    client = client_of(hub_fixture, role)
    assert client.get("/readyz?require=database").status_code == 200
    execute(hub_fixture.uri, f'REVOKE SELECT ON hits_1d, catchup_log FROM "{role}"')
    url = make_url(hub_fixture.uri)
    secrets = {role, str(url.database), str(url.port or 5432), str(url.host or url.query["host"])}
    for address in ("/api/hits-1d", "/api/hits-1d/summary", "/api/log", "/readyz?require=database"):
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            answer = client.get(address)
        assert answer.status_code == 503, (address, answer.text)
        assert not [secret for secret in secrets if secret in answer.text], answer.text
        assert f'GRANT SELECT ON catchup_log, hits_1d TO "{role}";' in caplog.text
    assert "grant" in client.get("/api/hits-1d").get_json(force=True)["detail"]
    # The others are served, and these too when the log has been read.
    assert client.get("/api/hits-1h?limit=2").status_code == 200
    execute(hub_fixture.uri, f'GRANT SELECT ON catchup_log, hits_1d TO "{role}";')
    assert client.get("/api/hits-1d").status_code == 200
    assert client.get("/readyz?require=database").status_code == 200
    # Where nothing at all was granted, it is the same.
    execute(hub_fixture.uri, f'DROP OWNED BY "{role}"')
    caplog.clear()
    answer = client_of(hub_fixture, role).get("/readyz?require=database")
    assert answer.status_code == 503
    assert not [secret for secret in secrets if secret in answer.text], answer.text
    assert "GRANT SELECT ON alembic_version, " in caplog.text
