"""Signatures of messages: checked by the real hub, with keys that are made here."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fedmsg.crypto
import fedmsg.crypto.x509_ng
import pytest

from statscache.clock import SYSTEM
from statscache.errors import ConfigurationError
from statscache.hub import signatures
from tests.support.commands import call
from tests.support.databases import execute, table
from tests.support.hub import Hub, wait_until

if not fedmsg.crypto.x509_ng._cryptography:
    pytest.skip(
        "what fedmsg checks signatures with is not installed: pip install 'statscache[signatures]'",
        allow_module_level=True,
    )

from tests.support.certificates import DAY, Authority

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def raw(number: int) -> dict[str, Any]:
    topic = "org.fedoraproject.dev.git.receive"
    return {"topic": topic, "timestamp": time.time(), "msg_id": f"2026-{number}", "msg": {}}


@on_sqlite
def test_a_refused_message_is_one_however_often_it_comes(
    tmp_path: Path, migrated_uri: str, authority: Authority
) -> None:
    signed = [fedmsg.crypto.sign(raw(number), **authority.config) for number in range(2)]
    forged = signed[1] | {"msg_id": "2026-forged"}
    with Hub(tmp_path, migrated_uri, **authority.config) as hub:
        hub.start()
        for message in (forged, raw(3), forged, forged, *signed):
            hub.publish(message)
        wait_until(lambda: table(migrated_uri, "volume_1d"), "they are counted", hub.log)
        wait_until(lambda: table(migrated_uri, "volume_1d")[0][1] == 2, "both are", hub.log)
        wait_until(lambda: len(table(migrated_uri, "statscache_rejected")) == 2, "kept", hub.log)
        ((_, plugin, cause, times),) = table(migrated_uri, "statscache_rejected_total")
        assert (plugin, cause, times) == ("", "signature", 2)
        log = hub.log.read_text()
        assert "signatures are checked" in log
        for text in ("Received invalid message", "has an invalid signature", "No routing policy"):
            assert log.count(text) == 1


@on_sqlite
def test_a_hub_that_could_let_nothing_through_says_so_and_ends(
    tmp_path: Path, migrated_uri: str, authority: Authority
) -> None:
    # As it is from pyOpenSSL 24.3 on: what fedmsg imports is not there.
    (tmp_path / "newer" / "OpenSSL").mkdir(parents=True)
    for name in ("__init__", "crypto"):
        (tmp_path / "newer" / "OpenSSL" / f"{name}.py").touch()
    with Hub(tmp_path, migrated_uri, **authority.config) as hub:
        hub.environment["PYTHONPATH"] = str(tmp_path / "newer")
        hub.start(subscribes=False)
        assert hub.process is not None
        assert hub.process.wait(timeout=30) == 1
        log = hub.log.read_text()
        assert "fedmsg can check no signature with what is installed (pyOpenSSL 2" in log
        assert "pip install 'statscache[signatures]'" in log


def test_certificates_that_are_of_no_use(authority: Authority) -> None:
    signatures.check(authority.config, SYSTEM)
    signatures.check(
        authority.config | {"validate_signatures": False, "ca_cert_location": "/no"}, SYSTEM
    )
    with pytest.raises(ConfigurationError, match=r"cannot be read: .*ca_cert_location"):
        signatures.check(authority.config | {"ca_cert_location": "/nowhere/ca.crt"}, SYSTEM)
    authority.revoke_nothing(until=datetime.now(UTC) - DAY)
    fedmsg.crypto.utils._cached_certificates.clear()
    with pytest.raises(ConfigurationError, match="the list of revoked certificates has expired"):
        signatures.check(authority.config, SYSTEM)


@on_sqlite
def test_what_was_refused_is_checked_again_before_it_is_counted(
    tmp_path: Path, migrated_uri: str, authority: Authority
) -> None:
    signed = fedmsg.crypto.sign(raw(0), **authority.config)
    with Hub(tmp_path, migrated_uri, **authority.config) as hub:
        hub.start()
        hub.publish(signed | {"msg_id": "2026-forged"})
        hub.publish(raw(1))
        wait_until(lambda: len(table(migrated_uri, "statscache_rejected")) == 2, "kept", hub.log)
        hub.stop()
    # As it is kept where the list of revoked certificates had expired, say.
    execute(
        migrated_uri,
        f"UPDATE statscache_rejected SET content = '{json.dumps(signed)}' "
        "WHERE content LIKE '%2026-1%'",
    )
    done = call(tmp_path, "rejected", "retry", "--all", uri=migrated_uri)
    assert done.returncode == 1
    assert "1 counted, 1 rejected again." in done.stdout
    assert [row[-1] for row in table(migrated_uri, "volume_1d")] == [1]
    # When signatures are not checked any more, it is a message like others.
    with Hub(tmp_path, migrated_uri, validate_signatures=False):
        done = call(tmp_path, "rejected", "retry", "--all", uri=migrated_uri)
    assert (done.returncode, done.stdout) == (0, "1 counted, 0 rejected again.\n")
