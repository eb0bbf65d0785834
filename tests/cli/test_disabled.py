"""Plugins that the operator turns off, and others that take their places."""

from __future__ import annotations

import hashlib
import json
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import statscache
import statscache_plugins
from statscache import config
from statscache.app import create_app
from tests.support.commands import call, run
from tests.support.configuration import configure
from tests.support.databases import table
from tests.support.distributions import distribute
from tests.support.messages import NOON, message


def replay(folder: Path, uri: str, second: int) -> None:
    raw = message(timestamp=NOON + second, msg={"commit": {"username": "ralph"}}).raw
    (folder / "a.jsonl").write_text(json.dumps(raw) + "\n")
    done = call(folder, "replay", "a.jsonl", uri=uri)
    assert done.returncode == 0, done.stderr


def api(folder: Path, uri: str, path: str) -> Any:
    found = config.load(str(folder / "fedmsg.d" / "test.py"))
    return create_app(found | {"statscache.sqlalchemy.uri": uri}).test_client().get(path)


def test_what_is_turned_off_counts_nothing_and_keeps_its_tables(
    tmp_path: Path, migrated_uri: str
) -> None:
    configure(tmp_path)
    replay(tmp_path, migrated_uri, 1)
    off = ["volume-by-*", "Release engineering event logs", "nobody"]
    configure(tmp_path, **{"statscache.plugins.disabled": off})
    replay(tmp_path, migrated_uri, 2)
    assert [row[-1] for row in table(migrated_uri, "volume_1d")] == [2]
    assert [row[-1] for row in table(migrated_uri, "volume_by_user_1d")] == [1]
    idents = api(tmp_path, migrated_uri, "/api/").json
    assert "volume-1d" in idents
    assert not [ident for ident in idents if ident.startswith(("volume-by", "release"))]
    assert api(tmp_path, migrated_uri, "/api/volume-by-user-1d").status_code == 404
    listed = call(tmp_path, "plugins", uri=migrated_uri)
    assert "turned off by statscache.plugins.disabled: volume, by user\n" in listed.stdout
    configure(tmp_path)
    replay(tmp_path, migrated_uri, 3)
    assert [row[-1] for row in table(migrated_uri, "volume_by_user_1d")] == [2]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("volume", "must be a list"),
        ([1], "must be a list"),
        (["volume-1d"], "names volume-1d, and a plugin is turned off in all its resolutions"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, value: Any, words: str) -> None:
    configure(tmp_path, **{"statscache.plugins.disabled": value})
    done = call(tmp_path, "plugins")
    assert (done.returncode, done.stdout) == (1, "")
    assert "statscache.plugins.disabled" in done.stderr
    assert words in done.stderr


OTHER = """
from datetime import datetime, timedelta

import sqlalchemy as sa

from statscache.plugins import BaseModel, BasePlugin


class Model(BaseModel):
    __tablename__ = "data_{name}"
    volume = sa.Column(sa.Integer, nullable=False)


class Volume(BasePlugin):
    name = "volume"
    summary = description = "the volume of {name}"
    interval = timedelta(days=1)
    model = Model

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = 0

    def process(self, message):
        self.seen += 1

    def update(self, session):
        for _ in range(self.seen):
            session.add(self.model(timestamp=datetime(2023, 11, 16), volume=77))
        self.seen = 0
"""


def test_another_plugin_takes_the_ident(
    tmp_path: Path, migrated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = OTHER.replace("{name}", "taking")
    monkeypatch.syspath_prepend(distribute(tmp_path / "site", "taking", code, volume="Volume"))
    configure(tmp_path)
    taken = call(tmp_path, "plugins", uri=migrated_uri)
    assert "the ident 'volume-1d' is taken by" in taken.stderr
    assert "statscache.plugins.disabled = ['volume'] turns off that of statscache" in taken.stderr
    assert "['taking:volume'] that of taking" in taken.stderr
    configure(tmp_path, **{"statscache.plugins.disabled": ["volume"]})
    replay(tmp_path, migrated_uri, 1)
    assert api(tmp_path, migrated_uri, "/api/volume-1d").json == [
        {"timestamp": 1700092800, "volume": 77}
    ]
    # And the other way round: that of the other distribution is turned off.
    configure(tmp_path, **{"statscache.plugins.disabled": ["taking:volume-1d"]})
    listed = call(tmp_path, "plugins", uri=migrated_uri)
    assert "the volume of taking" not in listed.stdout
    assert "volume-1d" in listed.stdout
    assert listed.stderr == ""


def of_2015(folder: Path, volume: str = "") -> Path:
    """The distribution of 2015, with such a module ``statscache_plugins.volume``."""
    site = distribute(folder / "site", "statscache_plugins", "")
    (site / "statscache_plugins.py").unlink()
    (site / "statscache_plugins-1.0.dist-info" / "entry_points.txt").write_text(
        "[statscache.plugin]\nvolume = statscache_plugins.volume.simple:Volume\n"
    )
    package = site / "statscache_plugins" / "volume"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text(volume)
    return site


def test_the_package_of_2015_is_told_of_and_used(
    tmp_path: Path, new_database: Callable[[str], str]
) -> None:
    """Its files are found in place of ours, as they are when it is installed after us."""
    site = of_2015(tmp_path)
    package = site / "statscache_plugins" / "volume"
    (package / "simple.py").write_text(OTHER.replace("{name}", "overwriting"))
    configure(tmp_path)
    uri = new_database("sqlite")
    (tmp_path / "a.jsonl").write_text(json.dumps(message(timestamp=NOON).raw) + "\n")
    done = run(tmp_path, "replay", "a.jsonl", uri=uri, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert "1 counted" in done.stdout
    assert len(table(uri, "data_overwriting")) == 1
    said = "the distribution statscache_plugins 1.0 has a package statscache_plugins, and so has "
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "fedmsg" not in done.stderr
    configure(tmp_path, **{"statscache.plugins.disabled": ["*"]})
    quiet = run(tmp_path, "plugins", uri=uri, PYTHONPATH=str(site))
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "the volume of overwriting" in quiet.stdout


@pytest.mark.parametrize(
    "names", ["plugins = [Volume]", pytest.param("plugins = []", marks=pytest.mark.long)]
)
def test_what_loads_in_place_of_ours_is_told_of(
    tmp_path: Path, new_database: Callable[[str], str], names: str
) -> None:
    """Nothing fails: the other package has what our entry point names."""
    code = OTHER.replace("{name}", "shadowing")
    site = of_2015(tmp_path, f"{code}\n{names}\n")
    file = site / "statscache_plugins" / "volume" / "__init__.py"
    (file.parent / "simple.py").write_text("from statscache_plugins.volume import Volume\n")
    configure(tmp_path)
    uri = new_database("sqlite")
    listed = run(tmp_path, "plugins", uri=uri, PYTHONPATH=str(site))
    assert "the volume of shadowing" in listed.stdout
    start = "broken: volume = statscache_plugins.volume:plugins (statscache "
    told = next(line for line in listed.stderr.splitlines() if line.startswith(start))
    assert f"statscache_plugins.volume is {file}" in told
    assert "the other one comes before ours on the path" in told
    assert "statscache.plugins.disabled = ['*'] turns ours off" in told
    configure(tmp_path, **{"statscache.plugins.disabled": ["*"]})
    quiet = run(tmp_path, "plugins", uri=uri, PYTHONPATH=str(site))
    assert quiet.stderr == ""
    assert "the volume of shadowing" in quiet.stdout


def test_a_file_of_ours_that_another_distribution_has_overwritten_is_told_of(
    tmp_path: Path, new_database: Callable[[str], str]
) -> None:
    """Both are in one folder, as pip leaves them when it installs the other one after us."""
    file = "statscache_plugins/volume/__init__.py"
    site = of_2015(tmp_path, "plugins = []\n")
    overwriting = (site / file).read_text()
    for package in (statscache, statscache_plugins):
        source = Path(str(package.__file__)).parent
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, site / source.name, ignore=ignore, dirs_exist_ok=True)
    distribute(site, "statscache", "")
    (site / "statscache.py").unlink()
    metadata = site / "statscache-1.0.dist-info"
    (metadata / "entry_points.txt").write_text(
        "[statscache.plugin]\nvolume = statscache_plugins.volume:plugins\n"
    )
    digest = urlsafe_b64encode(hashlib.sha256((site / file).read_bytes()).digest()).decode()
    (metadata / "RECORD").write_text(f"{file},sha256={digest.rstrip('=')},\n")
    configure(tmp_path)
    uri = new_database("sqlite")
    good = run(tmp_path, "plugins", uri=uri, PYTHONPATH=str(site))
    assert "(statscache 1.0)" in good.stdout
    assert "is not the one" not in good.stderr
    (site / file).write_text(overwriting)
    told = run(tmp_path, "plugins", uri=uri, PYTHONPATH=str(site)).stderr
    assert "has overwritten files of the other (statscache_plugins.volume is not the one" in told
    assert "'pip install --force-reinstall --no-deps statscache' puts ours back" in told
