"""The configuration: read from fedmsg's files, checked, and refused with the cure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from statscache import config
from statscache.config import URI_VARIABLE, Settings
from statscache.errors import ConfigurationError

ROOT = Path(__file__).parent.parent


def test_the_shipped_files_say_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Settings.from_config(config.load(str(ROOT / "fedmsg.d" / "statscache.py")))
    defaults = Settings.from_config({})
    assert shipped.consumer_enabled
    assert not defaults.consumer_enabled
    assert shipped.epoch == datetime(2015, 1, 1, tzinfo=UTC)
    assert defaults.epoch is None
    # The real archive is asked only if that is configured.
    assert shipped.datagrepper_endpoint == "https://apps.fedoraproject.org/datagrepper/"
    assert defaults.datagrepper_endpoint is None
    for name in ("archive_interval", "archive_overlap", "archive_concurrency"):
        assert getattr(shipped, name) == getattr(defaults, name), name
    for name in ("audit_budget", "audit_repairs"):
        assert getattr(shipped, name) == getattr(defaults, name), name
    for name in ("uri", "frequency", "batch_size", "buffer_size", "archive_lag"):
        assert getattr(shipped, name) == getattr(defaults, name), name
    for name in ("maximum_listeners", "heartbeat"):
        assert getattr(shipped, name) == getattr(defaults, name), name
    for name in ("default_rows_per_page", "maximum_rows_per_page", "statement_timeout", "about"):
        assert getattr(shipped, name) == getattr(defaults, name), name


def test_the_files_of_the_working_folder_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fedmsg.d"
    folder.mkdir()
    (folder / "a.py").write_text("config = {'statscache.app.default_rows_per_page': 7}")
    monkeypatch.chdir(tmp_path)
    assert Settings.from_config(config.load()).default_rows_per_page == 7


def test_no_files_at_all_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.from_config(config.load()).uri == "sqlite:///statscache.db"


def test_the_environment_overrides_the_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI_VARIABLE, "postgresql://somewhere/else")
    settings = Settings.from_config({"statscache.sqlalchemy.uri": "sqlite:///x.db"})
    assert settings.uri == "postgresql://somewhere/else"


def test_epochs_are_utc() -> None:
    settings = Settings.from_config({"statscache.consumer.epoch": datetime(2015, 1, 1)})
    assert settings.epoch == datetime(2015, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("statscache.sqlalchemy.uri", "nonsense", "not a database URI"),
        ("statscache.sqlalchemy.uri", "mysql://x/y", "runs on sqlite and postgresql"),
        ("statscache.sqlalchemy.uri", "sqlite://", "in-memory"),
        ("statscache.sqlalchemy.uri", "sqlite:////no/such/folder/x.db", "does not exist"),
        ("statscache.producer.frequency", 5, "datetime.timedelta"),
        ("statscache.producer.frequency", timedelta(0), "longer than zero"),
        ("statscache.consumer.batch_size", 0, "from 1 on"),
        ("statscache.consumer.buffer_size", "many", "whole number"),
        ("statscache.consumer.epoch", "2015", "datetime.datetime"),
        ("statscache.app.maximum_rows_per_page", True, "whole number"),
        ("statscache.app.maximum_listeners", -1, "from 0 on"),
        ("statscache.app.maximum_listeners", "many", "whole number"),
        ("statscache.app.heartbeat", 15, "datetime.timedelta"),
        ("statscache.retention", {"15s": 7}, "timedelta"),
        ("statscache.retention", [], "must map schedules"),
        ("statscache.about", "magic", "one of tables, fedmsg.meta"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(key: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Settings.from_config({key: value})
    assert key in str(caught.value)
