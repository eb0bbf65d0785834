"""The command line, as its users call it."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from statscache import __version__
from statscache.config import URI_VARIABLE
from statscache.database.migrations import HEAD
from tests.support.commands import call, run
from tests.support.databases import table
from tests.support.distributions import DISTRIBUTION
from tests.support.hub import PROGRAMS, wait_until
from tests.support.messages import NOON
from tests.support.paths import ROOT

LINE = {"topic": "org.fedoraproject.prod.git.receive", "timestamp": NOON, "msg": {}}


def lines(count: int) -> str:
    return "".join(json.dumps(LINE | {"msg_id": f"id-{number}"}) + "\n" for number in range(count))


def test_upgrade_says_what_it_did(tmp_path: Path, database_uri: str) -> None:
    name = make_url(database_uri).render_as_string(hide_password=True)
    is_new = ", a new file" if "sqlite" in name else ""
    first = run(tmp_path, "db", "upgrade", uri=database_uri)
    assert (first.returncode, first.stdout) == (
        0,
        f"The database is {name}{is_new}.\nThe schema is now {HEAD} (it was empty).\n",
    )
    second = call(tmp_path, "db", "upgrade", uri=database_uri)
    assert (second.returncode, second.stdout) == (
        0,
        f"The database is {name}.\nThe schema is {HEAD} already.\n",
    )


def test_no_command_but_the_upgrade_makes_a_file(tmp_path: Path) -> None:
    for command in (("status",), ("replay", "a.jsonl"), ("rejected", "list")):
        (tmp_path / "a.jsonl").write_text(lines(1))
        done = call(tmp_path, *command, uri="sqlite:///nowhere.db")
        assert done.returncode == 1
        assert f"{tmp_path / 'nowhere.db'} has no statscache tables yet" in done.stderr
        assert not (tmp_path / "nowhere.db").exists()
    done = call(tmp_path, "db", "upgrade", uri="sqlite:///nowhere.db")
    assert f"The database is sqlite:///{tmp_path / 'nowhere.db'}, a new file." in done.stdout


def test_replay_of_files_gzip_and_standard_input(tmp_path: Path, migrated_uri: str) -> None:
    (tmp_path / "a.jsonl").write_text(lines(3) + "\n  \n" + "{nonsense\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(5).encode()))
    done = run(tmp_path, "replay", "a.jsonl", "b.jsonl.gz", uri=migrated_uri)
    assert done.returncode == 0, done.stderr
    assert "5 counted, 3 counted before, 1 rejected." in done.stdout
    done = call(tmp_path, "replay", "-", uri=migrated_uri, given=lines(7))
    assert "2 counted, 5 counted before, 0 rejected." in done.stdout
    assert [row[-1] for row in table(migrated_uri, "volume_1d")] == [7]
    listed = call(tmp_path, "rejected", "list", uri=migrated_uri)
    assert "not a message: not JSON" in listed.stdout
    assert "{nonsense" in listed.stdout
    status = call(tmp_path, "status", uri=migrated_uri)
    assert "lane main: 7 messages" in status.stdout
    assert "1 rejected; 0 plugins broken" in status.stdout


def test_what_comes_before_a_damaged_place_is_counted(tmp_path: Path, migrated_uri: str) -> None:
    # Stored, not compressed, so that the cut is behind a known line.
    whole = gzip.compress(lines(30).encode(), compresslevel=0)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) * 2 // 3])
    done = call(tmp_path, "replay", "a.jsonl.gz", uri=migrated_uri)
    assert done.returncode == 1
    assert "damaged or cut short" in done.stderr
    (counted,) = [row[-1] for row in table(migrated_uri, "volume_1d")]
    assert 15 <= counted <= 20
    assert f"{counted} counted" in done.stdout


def test_replay_draws_its_progress_on_a_terminal(tmp_path: Path, migrated_uri: str) -> None:
    (tmp_path / "a.jsonl").write_text(lines(30))
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [str(PROGRAMS / "statscache"), "replay", "a.jsonl", "--batch-size", "10"],
        cwd=tmp_path,
        env=os.environ | {URI_VARIABLE: migrated_uri},
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:
            break
        seen += part
    assert process.wait() == 0
    assert b"Replaying" in seen
    assert b"100%" in seen


def test_plugins_lists_the_good_and_the_broken(tmp_path: Path) -> None:
    done = run(tmp_path, "plugins", PYTHONPATH=str(DISTRIBUTION))
    assert done.returncode == 0
    assert f"(statscache {__version__})" in done.stdout
    for ident in ("volume-by-user-1h", "release-engineering-event-logs", "wiki-edits-by-title-1d"):
        assert ident in done.stdout
    assert "broken: slash" in done.stderr


def test_errors_are_one_line_with_the_cure(tmp_path: Path, database_uri: str) -> None:
    (tmp_path / "a.jsonl").write_text(lines(1))
    for command in (("replay", "a.jsonl"), ("status",), ("rejected", "list")):
        done = call(tmp_path, *command, uri=database_uri)
        assert done.returncode == 1
        assert "run 'statscache db upgrade'" in done.stderr
        assert "Traceback" not in done.stderr
    done = call(tmp_path, "status", uri="mysql://x")
    assert done.returncode == 1
    assert "runs on sqlite and postgresql" in done.stderr
    assert call(tmp_path, "replay", "missing.jsonl", uri=database_uri).returncode == 2


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_serve(tmp_path: Path, migrated_uri: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "statscache", "serve", "--port", "0"],
        cwd=tmp_path,
        env=os.environ | {URI_VARIABLE: migrated_uri},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split()[-1]
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert "volume-1d" in json.load(answer)
        port = url.rsplit(":", 1)[1].split("/")[0]
        taken = call(tmp_path, "serve", "--port", port, uri=migrated_uri)
        assert taken.returncode == 1
        assert "choose another port with --port" in taken.stderr
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.mark.parametrize("command", ["db", "demo", "plugins", "rejected", "replay", "serve"])
def test_every_command_explains_itself(tmp_path: Path, command: str) -> None:
    done = call(tmp_path, command, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 100


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_the_wsgi_module_and_file(tmp_path: Path, migrated_uri: str) -> None:
    root = ROOT
    for program in (
        "from statscache.wsgi import application",
        f"exec(open({str(root / 'statscache.wsgi')!r}).read())",
    ):
        program += "; print(application.test_client().get('/api/volume-1d').status_code)"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=os.environ | {URI_VARIABLE: migrated_uri},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "200\n", done.stderr


def test_wait_until_is_not_endless() -> None:
    # The helper that the other tests rely on really checks.
    wait_until(lambda: True, "at once")
