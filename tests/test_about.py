"""Who and what messages are about: as published for real ones, and nothing for nonsense."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statscache import about
from statscache.about import tables
from statscache.about.paths import TRANSFORMS, compile_finder
from statscache.errors import ConfigurationError
from tests.test_message import JSON

DATA = Path(__file__).parent / "data"


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def test_every_published_message_agrees() -> None:
    raws, published = lines("bus-messages.jsonl"), lines("bus-messages-expected.jsonl")
    assert len(raws) == len(published) == 272
    disagreements = [
        (raw["topic"], kind, sorted(found), expected[kind])
        for raw, expected in zip(raws, published, strict=True)
        for kind, found in (("usernames", about.usernames(raw)), ("packages", about.packages(raw)))
        if found != set(expected[kind] or ())
    ]
    assert disagreements == []


SERVICES = sorted({pattern.split(".")[0] for pattern in (*tables.USERS, *tables.PACKAGES)})
WORDS = sorted(
    {
        word
        for paths in (*tables.USERS.values(), *tables.PACKAGES.values())
        for path in paths
        for word in path.split("|")[0].strip().replace("[]", "").replace("{}", "").split(".")
    }
)
BODIES = st.recursive(
    JSON,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(st.sampled_from(SERVICES), st.text(max_size=5), BODIES)
def test_any_body_gives_names(service: str, rest: str, body: Any) -> None:
    raw = {"topic": f"org.fedoraproject.prod.{service}.{rest}", "msg": body}
    for names in (about.usernames(raw), about.packages(raw)):
        assert isinstance(names, set)
        assert all(type(name) is str and name for name in names)


@pytest.mark.parametrize("raw", [{}, {"topic": 7}, {"topic": ""}, {"topic": "a.b.c.git.receive"}])
def test_what_lacks_a_topic_or_a_body_has_none(raw: dict[str, Any]) -> None:
    assert about.usernames(raw) == about.packages(raw) == set()


def find(path: str, body: Any, **aliases: str) -> set[str]:
    found: set[str] = set()
    compile_finder([path], aliases)(body, found.add)
    return found


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        ("a", {"a": "x"}, {"x"}),
        ("a.b", {"a": {"b": "x"}}, {"x"}),
        ("a.b", {"a": "b"}, set()),
        ("a", {"a": ""}, set()),
        ("a", {"a": 7}, set()),
        ("a[]", {"a": ["x", None, "y"]}, {"x", "y"}),
        ("a[].b", {"a": [{"b": "x"}, {}, "b"]}, {"x"}),
        ("a[1]", {"a": ["x", "y"]}, {"y"}),
        ("a[1]", {"a": ["x"]}, set()),
        ("a{}", {"a": {"x": 1, "y": 2}}, {"x", "y"}),
        ("a{*}", {"a": {"k": "x", "l": "y"}}, {"x", "y"}),
        ("a[t=good].b", {"a": {"t": "good", "b": "x"}}, {"x"}),
        ("a[t=good].b", {"a": {"t": ["good"], "b": "x"}}, {"x"}),
        ("a[t=good].b", {"a": [{"t": "bad", "b": "x"}, {"t": "good", "b": "y"}]}, {"y"}),
        ("a[t=good].b", {"a": {"b": "x"}}, set()),
        ("a[t=good?].b", {"a": {"b": "x"}}, {"x"}),
        ("=kernel", None, {"kernel"}),
        ("a | build", {"a": "gnome-shell-3.6.1-1.fc18"}, {"gnome-shell"}),
        ("a | build", {"a": "python-x-0.1-1.fc20.src.rpm"}, {"python-x"}),
        ("a | build", {"a": "no build"}, set()),
        ("a | builds", {"a": "a-1-1.fc18,b-c-1-1.fc18 d-2-2"}, {"a", "b-c", "d"}),
        ("a | builds", {"a": "foo"}, {"foo"}),
        ("a | account", {"a": "ralph"}, {"ralph"}),
        ("a | account", {"a": "ralph@fedoraproject.org"}, {"ralph"}),
        ("a | account", {"a": "http://ralph.id.fedoraproject.org/"}, {"ralph"}),
        ("a | account", {"a": "ralph.id.fedoraproject.org"}, {"ralph"}),
        ("a | account", {"a": "somebody@example.com"}, set()),
        ("a | account", {"a": '"Some Body" <known@example.com>'}, {"alias"}),
        ("a | account", {"a": "devel@lists.fedoraproject.org"}, set()),
        ("a | person", {"a": "extras-qa@fedoraproject.org"}, set()),
        ("a | mentions", {"a": "thanks @ralph, not me@example.com"}, {"ralph"}),
        ("a | plain", {"a": "boost(x86-32)"}, {"boost"}),
        ("a | last", {"a": "rpms/kernel"}, {"kernel"}),
    ],
)
def test_paths(path: str, body: Any, found: set[str]) -> None:
    assert find(path, body, **{"known@example.com": "alias"}) == found


def test_every_transform_is_used_and_every_path_compiles() -> None:
    paths = [
        path for rules in (tables.USERS, tables.PACKAGES) for p in rules.values() for path in p
    ]
    compile_finder(paths, {})
    used = {name.strip() for path in paths for name in path.split("|")[1:]}
    assert used == set(TRANSFORMS)


def test_a_malformed_path_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a path"):
        compile_finder(["a[b"], {})


def test_messages_within_messages_end_somewhere() -> None:
    raw: dict[str, Any] = {"topic": "a.b.c.kerneltest.x", "msg": {}}
    for _ in range(50):
        raw = {"topic": "a.b.c.hotness.update.bug.file", "msg": {"trigger": raw}}
    assert about.packages(raw) == set()
    assert about.packages({"topic": "a.b.c.hotness.x", "msg": {"trigger": {"topic": 1}}}) == set()


def test_unknown_services_name_their_agent() -> None:
    raw = {"topic": "org.fedoraproject.prod.brandnew.thing.done", "msg": {"agent": "ralph"}}
    assert about.usernames(raw) == {"ralph"}
    assert about.packages(raw) == set()


@pytest.fixture
def _as_before() -> Any:
    yield
    about.configure({})


@pytest.mark.usefixtures("_as_before")
def test_aliases_are_configuration() -> None:
    raw = {"topic": "org.fedoraproject.prod.mailman.receive", "msg": {"msg": {"from": "x@y.org"}}}
    assert about.usernames(raw) == set()
    about.configure({"statscache.about.aliases": {"x@y.org": "ralph"}})
    assert about.usernames(raw) == {"ralph"}
    with pytest.raises(ConfigurationError, match="must map names to accounts"):
        about.configure({"statscache.about.aliases": ["x"]})


@pytest.mark.usefixtures("_as_before")
def test_fedmsg_meta_without_processors_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no processors are installed"):
        about.configure({"statscache.about": "fedmsg.meta"})


PROCESSOR = """
import re
from fedmsg.meta.base import BaseProcessor

class Processor(BaseProcessor):
    topic_prefix_re = r"org\\.example\\.(dev|stg|prod)"
    __name__ = "knower"
    __prefix__ = re.compile(r"org\\.example\\.prod\\.knower.*")
    __description__ = __link__ = __docs__ = __obj__ = "for tests"

    def usernames(self, msg, **config):
        if msg["topic"].endswith("fail"):
            raise RuntimeError("a processor with a bug")
        return {"told-by-processor"}

    def packages(self, msg, **config):
        return {"package-told-by-processor"}
"""


@pytest.mark.usefixtures("_as_before")
def test_fedmsg_meta_answers_where_processors_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: fedmsg.meta finds its processors once."""
    import subprocess

    (tmp_path / "knower.py").write_text(PROCESSOR)
    metadata = tmp_path / "knower-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: knower\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[fedmsg.meta]\nknower = knower:Processor\n")
    program = (
        "from statscache import about\n"
        "about.configure({'statscache.about': 'fedmsg.meta', 'topic_prefix': 'org.example',"
        " 'topic_prefix_re': r'org\\.example\\.(dev|stg|prod)', 'environment': 'prod'})\n"
        "raw = {'topic': 'org.example.prod.knower.x', 'msg': {'agent': 'ralph'}}\n"
        "print(about.usernames(raw), about.packages(raw))\n"
        "print(about.usernames(raw | {'topic': 'org.example.prod.knower.fail'}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "{'told-by-processor'} {'package-told-by-processor'}",
        "{'ralph'}",
    ], done.stderr
