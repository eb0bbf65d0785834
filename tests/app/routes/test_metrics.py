"""What Prometheus is told, by its own parser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)

from statscache.app import create_app
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.plugins.installed import discovery
from tests.support.messages import NOON, message
from tests.support.prometheus import samples


def test_requests_and_the_hub(migrated_uri: str) -> None:
    config = {"statscache.sqlalchemy.uri": migrated_uri}
    engine = Engine.from_settings(Settings.from_config(config), discovery.discover(config))
    engine.open()
    engine.count([message(timestamp=NOON + number) for number in range(7)])
    engine.close()
    client: FlaskClient = create_app(config).test_client()
    for address in (*["/api/volume-1d"] * 3, "/api/nope", "/api/volume-1d/series", "/x/y", "/api/"):
        client.get(address)
    answer = client.get("/metrics")
    assert answer.content_type.startswith("text/plain")
    found = samples(answer.text)
    assert found["statscache_requests_total", ("200", "rows")] == 3
    assert found["statscache_requests_total", ("404", "rows")] == 1
    assert found["statscache_requests_total", ("200", "series")] == 1
    assert found["statscache_requests_total", ("404", "other")] == 1
    assert found["statscache_requests_total", ("200", "idents")] == 1
    assert found["statscache_request_seconds_count", ("rows",)] == 4
    assert found["statscache_lane_messages_total", ("main",)] == 7
    assert found["statscache_lane_newest_seconds", ("main",)] == NOON + 6
    assert found["statscache_plugin_state", ("active", "volume-1d")] == 1
    assert found["statscache_revision_total", ("volume-1d",)] == 1
    assert found["statscache_audit_mismatches_total", ("volume-1d",)] == 0
    assert found["statscache_rejected_total", ()] == 0
    assert found["statscache_plugins_broken", ()] == 0


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    ],
)
def test_open_metrics(migrated_uri: str, accept: str) -> None:
    client = create_app({"statscache.sqlalchemy.uri": migrated_uri}).test_client()
    client.get("/api/")
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    found = {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in open_metrics_families(answer.text)
        for sample in family.samples
    }
    assert found["statscache_requests_total", ("200", "idents")] == 1
    assert found["statscache_rejected_total", ()] == 0
    plain = client.get("/metrics", headers={"Accept": "text/plain;version=0.0.4"})
    assert plain.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert samples(plain.text).keys() >= {("statscache_rejected_total", ())}


def test_what_clients_ask_for_makes_no_labels(migrated_uri: str) -> None:
    client = create_app({"statscache.sqlalchemy.uri": migrated_uri}).test_client()
    for number in range(50):
        client.get(f"/{number}/{number}")
        client.get(f"/api/{number}")
        client.get(f"/api/{number}/values/{number}")
    found = [
        key for key in samples(client.get("/metrics").text) if key[0].endswith("requests_total")
    ]
    assert len(found) == 3


@pytest.mark.long
def test_several_processes_share_a_folder(tmp_path: Path, migrated_uri: str) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    program = (
        "import sys; from statscache.app import create_app;"
        "client = create_app({'statscache.sqlalchemy.uri': sys.argv[1]}).test_client();"
        "client.get('/api/'); print(client.get('/metrics').text)"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, migrated_uri],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    counted = [samples(text)["statscache_requests_total", ("200", "idents")] for text in texts]
    assert counted == [1, 2]
