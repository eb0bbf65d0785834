"""``statscache hub`` and ``config``: a machine that lacks something, and an operator who begins."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from statscache.config import KEYS
from tests.support.commands import Done, call, run
from tests.support.databases import counted, on_sqlite
from tests.support.hub import PROGRAMS, Hub, raw, wait_until
from tests.support.paths import ROOT


@pytest.fixture
def poor(tmp_path: Path) -> str:
    """A PYTHONPATH with which psutil cannot be imported, as where it is not installed."""
    folder = tmp_path / "poor"
    folder.mkdir()
    (folder / "psutil.py").write_text("raise ModuleNotFoundError(\"No module named 'psutil'\")\n")
    return str(folder)


def configured(folder: Path, uri: str, **keys: object) -> Path:
    with Hub(folder, uri, **keys):
        return folder


@on_sqlite
def test_a_hub_that_cannot_load_the_consumer_ends_with_a_sentence(
    tmp_path: Path, migrated_uri: str, poor: str
) -> None:
    done = run(configured(tmp_path, migrated_uri), "hub", PYTHONPATH=poor)
    assert done.returncode == 1
    assert "cannot load the consumer of statscache: No module named 'psutil'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
@on_sqlite
def test_the_stock_hub_does_not_run_on_empty_either(
    tmp_path: Path, migrated_uri: str, poor: str
) -> None:
    done = subprocess.run(
        [str(PROGRAMS / "fedmsg-hub")],
        cwd=configured(tmp_path, migrated_uri),
        env=os.environ | {"PYTHONPATH": poor},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "could not load the consumer of statscache" in done.stderr


def test_the_demonstration_shows_why_its_hub_ended(tmp_path: Path, poor: str) -> None:
    done = run(tmp_path, "demo", "--port", "0", PYTHONPATH=poor, TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "the hub has ended with status 1" in done.stderr
    assert "cannot load the consumer of statscache: No module named 'psutil'" in done.stderr


@on_sqlite
def test_our_command_runs_the_stock_hub(tmp_path: Path, migrated_uri: str) -> None:
    with Hub(tmp_path, migrated_uri) as hub:
        hub.command = [str(PROGRAMS / "statscache"), "hub"]
        hub.start()
        hub.publish(raw())
        wait_until(lambda: counted(migrated_uri) == 1, "it is counted", hub.log)
        assert hub.stop() < 10
        assert hub.process is not None
        assert hub.process.returncode == 0
        log = hub.log.read_text()
        # Ours, in fedmsg's format; and nothing about the inside of moksha.
        assert "][statscache.hub.consumer    INFO] statscache has stopped" in log
        assert "pkg_resources" not in log
        assert "qpid" not in log


@on_sqlite
@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"statscache.consumer.enabled": False}, "statscache.consumer.enabled is not True"),
        ({"endpoints": {}}, "endpoints names no address of the bus"),
        ({"statscache.consumer.batch_size": 0}, "statscache.consumer.batch_size must be"),
    ],
)
def test_a_configuration_with_which_the_hub_would_do_nothing_is_refused(
    tmp_path: Path, migrated_uri: str, keys: dict[str, object], sentence: str
) -> None:
    done = run(configured(tmp_path, migrated_uri, **keys), "hub")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_key_is_told_of(tmp_path: Path) -> None:
    config = {"statscache.app.default_rows_page": 5, "statscache.wiki.pages": 3}
    (tmp_path / "c.py").write_text(f"{config=}\n")
    done = run(tmp_path, "--config", "c.py", "plugins")
    assert (
        "'statscache.app.default_rows_page': is 'statscache.app.default_rows_per_page' meant?"
        in (done.stderr)
    )
    # It may be the key of a plugin.
    assert "wiki" not in done.stderr


def test_the_keys_are_those_of_the_configuration_that_comes_with_it() -> None:
    text = (ROOT / "fedmsg.d/statscache.py").read_text()
    found = re.findall(r'^ *(?:# )?"(statscache\.[\w.]+)":', text, re.MULTILINE)
    assert sorted(found) == sorted(KEYS)


def test_a_file_that_is_no_configuration_and_one_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("config = {10_000,,}\n")
    done = call(tmp_path, "--config", "c.py", "status")
    assert done.returncode == 1
    assert "fedmsg's configuration cannot be used: SyntaxError: invalid syntax" in done.stderr
    (tmp_path / "x.db").write_text("not a database, but long enough to be taken for one" * 100)
    for command in (("status",), ("db", "upgrade")):
        done = call(tmp_path, *command, uri=f"sqlite:///{tmp_path}/x.db")
        assert done.returncode == 1
        assert "x.db is no database of SQLite (file is not a database): name another" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_that_there_is_not(tmp_path: Path) -> None:
    for command in ("serve", "events", "demo"):
        done = call(tmp_path, command, "--port", "99999")
        assert done.returncode == 2
        assert "99999 is not in the range" in done.stderr


def test_without_a_configuration_the_hub_says_where_it_looked(tmp_path: Path) -> None:
    done = run(tmp_path, "hub", HOME=str(tmp_path))
    assert done.returncode == 1
    assert "~/.fedmsg.d/" in done.stderr
    assert "statscache config" in done.stderr


def test_the_configuration_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    def config(*arguments: str) -> Done:
        return call(tmp_path, "config", *arguments)

    assert config("etc").returncode == 0
    for name in ("fedmsg.d/base.py", "fedmsg.d/statscache.py", "statscache.wsgi"):
        assert (tmp_path / "etc" / name).read_bytes() == (ROOT / name).read_bytes()
    own = tmp_path / "etc/fedmsg.d/statscache.py"
    own.write_text("config = {}\n")
    again = config("etc")
    assert again.returncode == 1
    assert "statscache.py differs: not changed" in again.stderr
    assert own.read_text() == "config = {}\n"
    assert config("etc", "fedmsg.d/statscache.py", "--force").returncode == 0
    assert own.read_bytes() == (ROOT / "fedmsg.d/statscache.py").read_bytes()


def test_one_file_of_the_configuration_is_written_alone(tmp_path: Path) -> None:
    assert call(tmp_path, "config", ".", "statscache.wsgi").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["statscache.wsgi"]
    assert call(tmp_path, "config", ".", "statscache.ini").returncode == 2
