"""Who and what messages are about: as published for real ones, and nothing for nonsense."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statscache import about
from statscache.about import tables
from statscache.about.agents import AGENTS
from statscache.about.paths import TRANSFORMS, compile_finder
from statscache.errors import ConfigurationError
from statscache_plugins.volume.by_package import VolumeByPackage
from tests.support.api_fixture import api_fixture
from tests.support.examples import JSON
from tests.support.messages import message
from tests.support.paths import DATA


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


NOT_WHO_ACTED = {("askbot", "ralph"), ("irc", "ralph"), ("trac", "ralph")}
"""Of these services the published agent is an arbitrary user; here is who acted in its place."""


def test_every_published_agent_agrees() -> None:
    raws, published = lines("bus-messages.jsonl"), lines("bus-messages-expected.jsonl")
    assert sum(expected["agent"] is not None for expected in published) == 167
    disagreements = [
        (raw["topic"].split(".")[3], about.agent(raw), expected)
        for raw, expected in zip(raws, published, strict=True)
        if about.agent(raw) != expected["agent"]
    ]
    assert len(disagreements) == len(NOT_WHO_ACTED)
    assert {(service, agent) for service, agent, _ in disagreements} == NOT_WHO_ACTED
    for _, agent, expected in disagreements:
        assert {agent, expected["agent"]} == set(expected["usernames"])


SERVICES = sorted({pattern.split(".")[0] for pattern in (*tables.USERS, *tables.PACKAGES)})
WORDS = sorted(
    {
        word
        for paths in (*tables.USERS.values(), *tables.PACKAGES.values(), *AGENTS.values())
        for path in paths
        for word in re.findall(r"\w+", path)
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
    agent = about.agent(raw)
    assert agent is None or (type(agent) is str and agent)


@pytest.mark.parametrize("raw", [{}, {"topic": 7}, {"topic": ""}, {"topic": "a.b.c.git.receive"}])
def test_what_lacks_a_topic_or_a_body_has_none(raw: dict[str, Any]) -> None:
    assert about.usernames(raw) == about.packages(raw) == set()
    assert about.agent(raw) is None


@pytest.mark.parametrize(
    ("topic", "body", "agent"),
    [
        # In the shape that the services' schemas have; the corpus has no message of these topics.
        ("bodhi.update.comment", {"comment": {"user": {"name": "a"}, "text": "@b"}}, "a"),
        (
            "bodhi.update.comment",
            {"comment": {"author": "a", "update": {"user": {"name": "b"}}}},
            "a",
        ),
        ("bodhi.update.comment", {"agent": "a", "comment": {"author": "b"}}, "a"),
        ("bodhi.update.complete.stable", {"update": {"user": {"name": "a"}}}, "a"),
        ("bodhi.update.request.stable", {"agent": "a", "update": {"user": {"name": "b"}}}, "a"),
        ("buildsys.untag", {"user": "a", "owner": "b"}, "a"),
        ("buildsys.untag", {"owner": "b"}, None),
        ("copr.build.start", {"user": "a", "owner": "b", "copr": "x"}, "a"),
        ("copr.chroot.start", {"user": "a", "owner": "@group"}, "a"),
        ("fas.user.create", {"agent": "a", "user": "a"}, "a"),
        ("fas.user.create", {"agent": {"username": "a"}, "user": {"username": "a"}}, "a"),
        ("fas.group.member.sponsor", {"agent": "a", "user": "b", "group": "x"}, "a"),
        ("fedbadges.person.rank.advance", {"person": {"nickname": "a", "rank": 1}}, "a"),
        ("fedimg.image.publish", {"compose": "x", "destination": "x"}, None),
        ("git.receive", {"agent": "a", "commit": {"username": "b"}}, "a"),
        ("git.receive", {"commit": {"agent": "a", "username": "b"}}, "a"),
        ("github.issue.reopened", {"fas_usernames": {"x": "b", "y": "a"}, "sender": {}}, None),
        (
            "github.issue.reopened",
            {"fas_usernames": {"x": "b", "y": "a"}, "sender": {"login": "y"}},
            "a",
        ),
        (
            "github.member",
            {"fas_usernames": {"x": "github_org_x"}, "sender": {"login": "x"}},
            None,
        ),
        ("github.star", {"fas_usernames": [], "sender": {"login": ["y"]}}, None),
        ("gitlab.issue", {"user": {"username": "a"}, "assignees": [{"username": "b"}]}, "a"),
        ("irc.karma", {"agent": "a", "recipient": "b"}, "a"),
        ("koschei.package.state.change", {"name": "x", "repo": "x"}, None),
        ("mbs.module.state.change", {"owner": "a", "name": "x"}, "a"),
        ("meetbot.meeting.start", {"owner": "a", "attendees": {"b": 1}, "chairs": {}}, "a"),
        ("meetbot.meeting.complete", {"owner": "a", "attendees": {"b": 1}}, "a"),
        ("mailman.receive", {"msg": {"from": '"A" <a@fedoraproject.org>'}}, "a"),
        ("nuancier.candidate.denied", {"agent": "a", "candidate": {"submitter": "b"}}, "a"),
        ("pagure.git.receive", {"agent": "a", "commit": {"username": "b"}}, "a"),
        ("pkgdb.acl.update", {"agent": ["a"], "acl": {"fas_name": "b"}}, "a"),
        ("planet.post.new", {"username": "a", "post": {}}, "a"),
        ("pungi.compose.status.change", {"status": "STARTED"}, None),
        ("trac.ticket.new", {"agent": "a", "ticket": {"owner": "b", "reporter": "a"}}, "a"),
        ("waiverdb.waiver.new", {"username": "a", "proxied_by": "x"}, "a"),
        ("wiki.article.edit", {"user": "A", "title": "x"}, "a"),
        ("anitya.project.version.update", {"message": {"agent": "anitya"}}, "anitya"),
        ("anitya.project.version.update", {}, None),
        ("brandnew.thing.done", {"agent": "a", "username": "b", "user": "c"}, "a"),
        ("brandnew.thing.done", {"username": "b"}, "b"),
        ("brandnew.thing.done", {"agent": "somebody@example.com"}, None),
    ],
)
def test_the_agent_is_who_acted(topic: str, body: Any, agent: str | None) -> None:
    raw = {"topic": f"org.fedoraproject.prod.{topic}", "username": "apache", "msg": body}
    assert about.agent(raw) == agent


def find(path: str, body: Any, **aliases: str) -> set[str]:
    found: set[str] = set()
    compile_finder([path], aliases)({"topic": "org.t.u.git.receive", "msg": body}, found.add)
    return found


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        ("a", {"a": "x"}, {"x"}),
        ("a", ["a"], set()),
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
        ("a[t=good].b", {"a": {"t": {}, "b": "x"}}, set()),
        ("a[t=good?].b", {"a": {"b": "x"}}, {"x"}),
        ("a[t=good?].b", {"a": {"t": "bad", "b": "x"}}, set()),
        ("a[t=good,fine].b", {"a": {"t": "fine", "b": "x"}}, {"x"}),
        ("a[t!=good].b", {"a": {"t": "good", "b": "x"}}, set()),
        ("a[t!=good].b", {"a": {"b": "x"}}, {"x"}),
        ("a[t].b", {"a": {"t": 0, "b": "x"}}, {"x"}),
        ("a[t].b", {"a": {"b": "x"}}, set()),
        ("[t=good].b", {"t": "good", "b": "x"}, {"x"}),
        ("^topic", None, {"org.t.u.git.receive"}),
        ("^msg[t=good].b", {"t": "good", "b": "x"}, {"x"}),
        ("a || b", {"a": "x", "b": "y"}, {"x"}),
        ("a || b", {"a": "", "b": "y"}, {"y"}),
        ("a || b", {"a": None, "b": "y"}, {"y"}),
        ("a[].n || b", {"a": [{"n": "x"}, {"n": "z"}], "b": "y"}, {"x", "z"}),
        ("a | account || b", {"a": "somebody@example.com", "b": "y"}, set()),
        ("a || [t=good].b || ^topic", {"t": "good", "b": "x"}, {"x"}),
        ("a || =anitya", {}, {"anitya"}),
        ("=kernel", None, {"kernel"}),
        ("a | build", {"a": "gnome-shell-3.6.1-1.fc18"}, {"gnome-shell"}),
        ("a | build", {"a": "foo"}, {"foo"}),
        ("a | builds", {"a": "a-1-1.fc18,b-c-1-1.fc18 d-2-2"}, {"a", "b-c", "d"}),
        ("a | builds", {"a": "foo"}, {"foo"}),
        ("a | account", {"a": "ralph"}, {"ralph"}),
        ("a | account", {"a": "ralph@fedoraproject.org"}, {"ralph"}),
        ("a | account", {"a": "http://ralph.id.fedoraproject.org/"}, {"ralph"}),
        ("a | account", {"a": "ralph.id.fedoraproject.org"}, {"ralph"}),
        ("a | account", {"a": "somebody@example.com"}, set()),
        ("a | account", {"a": '"Some Body" <known@example.com>'}, {"alias"}),
        ("a | account", {"a": '"Some Body" <ralph@fedoraproject.org>'}, {"ralph"}),
        ("a | account", {"a": "devel@lists.fedoraproject.org"}, set()),
        ("a | account", {"a": ">"}, set()),
        ("a | nick", {"a": "known@example.com"}, {"alias"}),
        ("a | nick", {"a": "ralph"}, {"ralph"}),
        ("a | somebody", {"a": "orphan"}, set()),
        ("a | person", {"a": "github_org_fedora-infra"}, set()),
        ("a | lower", {"a": "Ralph"}, {"ralph"}),
        ("a | commas", {"a": "ralph, , lmacken"}, {"ralph", "lmacken"}),
        ("a | mentions", {"a": "thanks @ralph, not me@example.com"}, {"ralph"}),
        ("a | component", {"a": "Package Review"}, set()),
        ("^topic | repository", None, set()),
        ("a | repository", {"a": "o.f.p.git.receive.foo.bar.f18"}, {"foo.bar"}),
        ("a[] | changed", {"a": [["boost(x86-32)", "EQ"]]}, {"boost"}),
        ("a[] | changed", {"a": [["/usr/bin/x", "file", "python3"]]}, {"python3"}),
        ("a[] | changed", {"a": [[], [None], "x", ["/", {}]]}, set()),
    ],
)
def test_paths(path: str, body: Any, found: set[str]) -> None:
    assert find(path, body, **{"known@example.com": "alias"}) == found


def test_every_transform_is_used_and_every_path_compiles() -> None:
    rules = (*tables.USERS.values(), *tables.PACKAGES.values(), *AGENTS.values())
    paths = [path for group in rules for path in group]
    compile_finder(paths, {})
    used = {
        name.strip()
        for path in paths
        for alternative in path.split("||")
        for name in alternative.split("|")[1:]
    }
    assert used == set(TRANSFORMS)


def test_every_service_with_packages_has_a_row_for_its_users() -> None:
    """Without one its users would be looked for as those of an unknown service."""
    known = {pattern.split(".")[0] for pattern in tables.USERS}
    assert {pattern.split(".")[0] for pattern in tables.PACKAGES} <= known


def test_the_services_with_users_are_those_with_agents() -> None:
    """Without a row the agent would be looked for as that of an unknown service."""
    services = [{pattern.split(".")[0] for pattern in each} for each in (AGENTS, tables.USERS)]
    assert services[0] == services[1]


@pytest.mark.parametrize(
    ("topic", "body", "users", "packages"),
    [
        # In 2012 the repository and the branch were in the topic only.
        ("git.receive.valgrind.master", {"commit": {"username": "mjw"}}, {"mjw"}, {"valgrind"}),
        ("git.branch.valgrind.f18", {"agent": "limburgher"}, {"limburgher"}, {"valgrind"}),
        (
            "git.receive",
            {"commit": {"username": "mjw", "repo": "valgrind", "namespace": "rpms"}},
            {"mjw"},
            {"valgrind"},
        ),
        (
            "git.receive",
            {"commit": {"username": "mjw", "repo": "valgrind", "namespace": "tests"}},
            {"mjw"},
            set(),
        ),
        (
            "git.receive",
            {"commit": {"username": "mjw", "repo": "valgrind"}, "namespace": "modules"},
            {"mjw"},
            set(),
        ),
        (
            "git.branch",
            {"agent": "pingou", "name": "tools", "namespace": "container"},
            {"pingou"},
            set(),
        ),
        (
            "bodhi.update.request.stable",
            {
                "agent": "bodhi",
                "update": {
                    "title": "the great update",
                    "builds": [{"nvr": "guake-3.0-1.fc30"}],
                    "user": {"name": "pingou"},
                },
            },
            {"bodhi", "pingou"},
            {"guake"},
        ),
        (
            "bodhi.update.comment",
            {
                "agent": "lmacken",
                "comment": {
                    "author": "lmacken",
                    "text": "@ralph works",
                    "update_title": "fedmsg-0.2.7-2.el6,moksha-1.0-1.el6",
                },
            },
            {"lmacken", "ralph"},
            {"fedmsg", "moksha"},
        ),
        (
            "pkgdb.acl.delete",
            {
                "agent": "pingou",
                "acl": {
                    "fas_name": "orphan",
                    "packagelist": {"package": {"name": "guake", "namespace": "rpms"}},
                },
            },
            {"pingou"},
            {"guake"},
        ),
        (
            "pkgdb.package.delete",
            {"agent": ["ralph"], "package": {"name": "tools", "namespace": "docker"}},
            {"ralph"},
            set(),
        ),
        (
            "hotness.update.bug.followup",
            {"trigger": {"msg": {"owner": "ralph", "srpm": "a-1-1.src.rpm", "new": "OPEN"}}},
            set(),
            set(),
        ),
        (
            "fedoratagger.rating.update",
            {"rating": {"user": {"username": "anonymous"}, "package": {"name": "mattd"}}},
            set(),
            {"mattd"},
        ),
        ("hubs.hub.updated", {"hub_name": "ralph", "hub_type": "user"}, {"ralph"}, set()),
        ("hubs.hub.updated", {"username": "ralph", "hub_type": "stream"}, set(), set()),
        ("buildsys.package.list.change", {"package": "gd", "user": "jmlich"}, set(), {"gd"}),
        ("faf.report.threshold1", {"components": ["gd"]}, set(), {"gd"}),
        ("infragit.receive", {"commit": {"username": "ralph"}}, {"ralph"}, set()),
        ("bugzilla.bug.new", {"bug": {"component": "Package Review", "cc": []}}, set(), set()),
        ("anitya.project.version.update", {}, {"apache"}, set()),
        ("logger.log", {"log": "x"}, {"apache"}, set()),
    ],
)
def test_formats_that_the_published_messages_do_not_show(
    topic: str, body: Any, users: set[str], packages: set[str]
) -> None:
    raw = {"topic": f"org.fedoraproject.prod.{topic}", "username": "apache", "msg": body}
    assert (about.usernames(raw), about.packages(raw)) == (users, packages)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_push_to_the_tests_of_a_package_is_not_one_to_the_package(migrated_uri: str) -> None:
    pushes = [
        message(msg={"commit": {"username": "mjw", "repo": "ember", "namespace": namespace}})
        for namespace in ("rpms", "tests", "tests", "modules", "container")
    ]
    with api_fixture(migrated_uri, VolumeByPackage) as api:
        api.count(*pushes)
        rows = api.client.get("/api/volume-by-package-1d?package=ember").json
    assert [row["volume"] for row in rows] == [1]


def test_a_malformed_path_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a path"):
        compile_finder(["a[b"], {})


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
    assert about.agent(raw) == "ralph"
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

    def agent(self, msg, **config):
        if msg["topic"].endswith("fail"):
            raise RuntimeError("a processor with a bug")
        return None if msg["topic"].endswith("nobody") else "agent-told-by-processor"

    def packages(self, msg, **config):
        return {"package-told-by-processor"}
"""


@pytest.mark.usefixtures("_as_before")
def test_fedmsg_meta_answers_where_processors_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: fedmsg.meta finds its processors once."""
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
        "print([about.agent(raw | {'topic': f'org.example.prod.knower.{topic}'})"
        " for topic in ('x', 'nobody', 'fail')])\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "{'told-by-processor'} {'package-told-by-processor'}",
        "{'ralph'}",
        "['agent-told-by-processor', None, 'ralph']",
    ], done.stderr
