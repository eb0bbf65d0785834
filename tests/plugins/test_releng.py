"""The event logs of release engineering: what each message becomes, and which of them stays."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statscache.counting.folding.fold import Folder
from statscache.message import Message
from statscache.plugins.installed import discovery
from statscache.plugins.installed.discovery import Source
from statscache_plugins.releng import ReleaseEngineeringEventLogs, plugins
from statscache_plugins.releng.kinds import kind_of
from tests.support.api_fixture import api_fixture, links
from tests.support.messages import NOON, bus_messages, message

PLUGIN = ReleaseEngineeringEventLogs({})
PROD = "org.fedoraproject.prod."
UPLOAD = PROD + "fedimg.image.upload"
TEST = PROD + "fedimg.image.test"
TASK = PROD + "buildsys.task.state.change"
CORPUS = [Message.from_fedmsg(raw) for raw in bus_messages() if "timestamp" in raw]

Rows = dict[tuple[str, str], dict[str, Any]]
"""By category and constraint, the messages."""


def table(messages: Iterable[Message]) -> list[tuple[Any, ...]]:
    """The rows of the table, as the engine would write them."""
    folder, partial = Folder(PLUGIN), {}
    for one in messages:
        if folder.subscribes(one.topic):
            folder.fold(one, partial)
    [(_, rows)] = folder.tables(partial)
    return rows


def latest(*messages: Message) -> Rows:
    return {(row[1], row[2]): json.loads(row[3]) for row in table(messages)}


def compose(path: str, timestamp: float = NOON, **body: Any) -> Message:
    return message(f"{PROD}compose.{path}", timestamp, body)


def sync(distribution: str, timestamp: float = NOON, **body: Any) -> Message:
    return message(f"{PROD}bodhi.updates.{distribution}.sync", timestamp, body)


def image(topic: str = UPLOAD, timestamp: float = NOON, **body: Any) -> Message:
    """What fedimg sent about an image of 2016."""
    complete = {
        "image_name": "Fedora-Cloud-Base-24-20160710.0.x86_64",
        "image_url": "http://kojipkgs.fedoraproject.org/compose/Fedora-Cloud-Base-24.raw.xz",
        "destination": "EC2-eu-west-1",
        "status": "started",
    }
    return message(topic, timestamp, complete | body)


def task(timestamp: float = NOON, **body: Any) -> Message:
    """What koji sent about a live CD of 2015."""
    complete = {
        "attribute": "state",
        "old": "FREE",
        "new": "OPEN",
        "owner": "masher",
        "method": "livecd",
        "srpm": "Fedora-Live-Workstation-x86_64",
        "id": 10177586,
        "instance": "primary",
        "info": {
            "id": 10177586,
            "children": [{"id": 10177590, "method": "createLiveCD"}],
            "request": [
                "Fedora-Live-Workstation-x86_64",
                "rawhide",
                "x86_64",
                "rawhide",
                "fedora-live-workstation.ks",
                {"scratch": True, "release": "20150622"},
            ],
        },
    }
    return message(TASK, timestamp, complete | body)


def appliance(*, file_format: str | None, version: str = "rawhide", **body: Any) -> Message:
    name = "Fedora-Minimal-armhfp"
    options = {"scratch": True, "release": "20150622"}
    if file_format:
        options["format"] = file_format
    request = [name, version, "armhfp", version, "fedora-arm-minimal.ks", options]
    info = {"request": request, "children": [{"id": 10177590, "method": "createAppliance"}]}
    return task(method="appliance", srpm=name, info=info, **body)


def test_the_declaration_is_accepted() -> None:
    installed = discovery.load([(Source("releng = m:plugins", "dist", "1"), lambda: plugins)], {})
    assert installed.broken == []
    assert list(installed.datasets) == ["release-engineering-event-logs"]
    dataset = installed.datasets["release-engineering-event-logs"]
    assert dataset.model.columns() == ["timestamp", "category", "category_constraint", "message"]
    assert dataset.schedule is None
    assert dataset.layout is ReleaseEngineeringEventLogs.layout


@pytest.mark.parametrize(
    ("topic", "wanted"),
    [
        (PROD + "compose.rawhide.start", True),
        (PROD + "compose.28.rsync.start", True),
        (PROD + "bodhi.updates.epel.sync", True),
        (UPLOAD, True),
        (TEST, True),
        (TASK, True),
        ("org.fedoraproject.stg.compose.rawhide.start", False),
        ("org.fedoraproject.stg.bodhi.updates.epel.sync", False),
        ("org.fedoraproject.stg.fedimg.image.upload", False),
        ("org.fedoraproject.dev.buildsys.task.state.change", False),
        (PROD + "bodhi.compose.start", False),
        (PROD + "bodhi.update.complete.testing", False),
        (PROD + "fedimg.image.copy", False),
        (PROD + "buildsys.build.state.change", False),
        (PROD + "pungi.compose.ostree", False),
        ("org.centos.prod.ci.pipeline.compose.running", False),
    ],
)
def test_topics(topic: str, wanted: bool) -> None:
    assert PLUGIN.subscribes(topic) is wanted


def test_the_corpus() -> None:
    assert {key: (found["name"], found["status"]) for key, found in latest(*CORPUS).items()} == {
        ("compose-branched_arm", "image"): ("Image", "start"),
        ("compose-branched_arm", "mash"): ("Mash", "complete"),
        ("compose-branched_arm", "pungify"): ("Pungify", "start"),
        ("compose-branched_arm", "rsync"): ("Rsync", "complete"),
        ("compose-branched_primary", "23-atomic-lorax"): ("23-Atomic-Lorax", "complete"),
        ("compose-branched_primary", "23-cloudimg-build"): ("23-Cloudimg-Build", "complete"),
        ("compose-branched_primary", "23-cloudimg-checksum"): ("23-Cloudimg-Checksum", "start"),
        ("compose-branched_primary", "23-cloudimg-staging"): ("23-Cloudimg-Staging", "complete"),
        ("compose-branched_primary", "23-make-updates"): ("23-Make-Updates", "start"),
        ("compose-branched_primary", "28"): ("28", "start"),
        ("compose-branched_primary", "atomic:28-rsync"): ("28-Rsync (Atomic)", "start"),
        ("compose-branched_primary", "branched"): ("Branched", "complete"),
        ("compose-branched_primary", "image"): ("Image", "complete"),
        ("compose-branched_primary", "mash"): ("Mash", "complete"),
        ("compose-branched_primary", "modular:28"): ("28 (Modular)", "complete"),
        ("compose-branched_primary", "pungify"): ("Pungify", "complete"),
        ("compose-branched_primary", "rsync"): ("Rsync", "complete"),
        ("compose-epelbeta_primary", "epelbeta"): ("Epelbeta", "complete"),
        ("compose-rawhide_arm", "mash"): ("Mash", "start"),
        ("compose-rawhide_arm", "rsync"): ("Rsync", "start"),
        ("compose-rawhide_primary", "image"): ("Image", "start"),
        ("compose-rawhide_primary", "mash"): ("Mash", "complete"),
        ("compose-rawhide_primary", "modular:rawhide"): ("Rawhide (Modular)", "complete"),
        ("compose-rawhide_primary", "pungify"): ("Pungify", "complete"),
        ("compose-rawhide_primary", "rawhide"): ("Rawhide", "complete"),
        ("compose-rawhide_primary", "rsync"): ("Rsync", "start"),
        ("updates-epel", "7-epel-testing"): ("7-epel-testing", "synced out"),
        ("updates-fedora", "30m-updates"): ("30m-updates", "synced out"),
    }


@pytest.mark.parametrize(
    ("path", "body", "category", "constraint"),
    [
        ("rawhide.start", {}, "compose-rawhide_primary", "rawhide"),
        ("rawhide.start", {"arch": None}, "compose-rawhide_primary", "rawhide"),
        ("rawhide.mash.start", {"arch": ""}, "compose-rawhide_primary", "mash"),
        ("rawhide.mash.start", {"arch": "s390"}, "compose-rawhide_s390", "mash"),
        ("branched.start", {"branch": "18", "arch": "ppc"}, "compose-branched_ppc", "branched"),
        ("branched.rsync.start", {"branch": "f24"}, "compose-branched_primary", "rsync"),
        ("28.start", {"branch": "28", "short": "Fedora"}, "compose-branched_primary", "28"),
        ("28.rsync.start", {}, "compose-branched_primary", "28-rsync"),
        ("29.rsync.start", {}, "compose-branched_primary", "29-rsync"),
        # Older than the key short.
        (
            "28.rsync.start",
            {"compose_id": "Fedora-Modular-28-20171215.n.0"},
            "compose-branched_primary",
            "modular:28-rsync",
        ),
        (
            "rawhide.rsync.start",
            {"branch": "Modular-Rawhide"},
            "compose-rawhide_primary",
            "modular:rsync",
        ),
        (
            "rawhide.start",
            {"compose_id": "Fedora-Rawhide-20171204.n.0", "branch": "rawhide"},
            "compose-rawhide_primary",
            "rawhide",
        ),
        # The step of one compose is not the variant of another.
        ("23.atomic-lorax.start", {}, "compose-branched_primary", "23-atomic-lorax"),
        (
            "23.lorax.start",
            {"short": "Fedora-Atomic"},
            "compose-branched_primary",
            "atomic:23-lorax",
        ),
    ],
)
def test_composes(path: str, body: dict[str, Any], category: str, constraint: str) -> None:
    assert list(latest(compose(path, **body))) == [(category, constraint)]


@pytest.mark.parametrize("path", ["rawhide.failed", "rawhide", "start", "rawhide.mash.progress"])
def test_other_actions_of_composes(path: str) -> None:
    assert table([compose(path)]) == []


def test_a_modular_compose_leaves_the_log_of_the_main_one_alone() -> None:
    main = compose("rawhide.start", NOON, branch="rawhide", arch="")
    modular = compose("rawhide.complete", NOON + 60, branch="Modular-Rawhide", arch="")
    assert latest(main, modular)["compose-rawhide_primary", "rawhide"]["status"] == "start"


@pytest.mark.parametrize(
    ("action", "location", "link"),
    [
        ("complete", "https://dl.fedoraproject.org/pub/x", "https://dl.fedoraproject.org/pub/x"),
        ("complete", "javascript:alert(1)", None),
        ("complete", ["https://dl.fedoraproject.org"], None),
        ("start", "https://dl.fedoraproject.org/pub/x", None),
    ],
)
def test_a_complete_compose_links_to_its_location(
    action: str, location: Any, link: str | None
) -> None:
    [found] = latest(compose(f"rawhide.{action}", location=location)).values()
    assert found.get("link") == link
    assert set(found) <= {"name", "status", "link"}


def test_five_syncs_of_a_repository_are_one_row() -> None:
    syncs = [sync("fedora", NOON + i, release="22", repo="updates") for i in range(5)]
    assert [row[:3] for row in table(syncs)] == [(NOON + 4, "updates-fedora", "22-updates")]


def test_updates() -> None:
    syncs = [
        sync("fedora", release="22", repo="updates"),
        sync("fedora", release="22", repo="updates-testing"),
        sync("fedora", release="21", repo="updates"),
        sync("epel", release="7", repo="epel"),
    ]
    assert latest(*syncs) == {
        (category, name): {"name": name, "status": "synced out"}
        for category, name in [
            ("updates-fedora", "22-updates"),
            ("updates-fedora", "22-updates-testing"),
            ("updates-fedora", "21-updates"),
            ("updates-epel", "7-epel"),
        ]
    }


@pytest.mark.parametrize(
    "body", [{"release": "22"}, {"repo": "updates"}, {"release": 22, "repo": "u"}, {"repo": ""}]
)
def test_a_sync_of_nothing(body: dict[str, Any]) -> None:
    assert table([sync("fedora", **body)]) == []


@pytest.mark.parametrize("stage", ["upload", "test"])
@pytest.mark.parametrize("destination", ["EC2 (us-east-1)", "EC2-us-east-1", "us-east-1"])
def test_a_completed_cloud_image(stage: str, destination: str) -> None:
    body = {"destination": destination, "status": "completed", "extra": {"id": "ami-1234fda"}}
    name = "Fedora-Cloud-Base-24-20160710.0.x86_64"
    assert latest(image(f"{PROD}fedimg.image.{stage}", **body)) == {
        ("ami-branched", "Fedora-Cloud-Base-24.x86_64:us-east-1"): {
            "name": name,
            "status": "completed",
            "extra_text": "us-east-1" if stage == "upload" else "us-east-1 (test)",
            "extra_link": (
                "https://redirect.fedoraproject.org/console.aws.amazon.com/ec2/v2/home"
                "?region=us-east-1#LaunchInstanceWizard:ami=ami-1234fda"
            ),
        }
    }


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("fedora-cloud-base-rawhide-20140604.x86_64", "ami-rawhide"),
        ("Fedora-Cloud-Base-Rawhide-20171120.n.0.x86_64", "ami-rawhide"),
        ("Fedora-Cloud-Base-24-20160710.0.x86_64", "ami-branched"),
        ("Fedora-Cloud-Base-24_Beta-20160510.0.x86_64", "ami-branched"),
        ("Fedora-Cloud-Atomic-25-20160710.0.x86_64", "ami-branched"),
        ("Fedora-Atomic-27-20171110.1.x86_64", "ami-branched"),
        ("Fedora-AtomicHost-28-20180625.0.x86_64", "ami-branched"),
        ("Fedora-x86_64-20-20140407-sda", "ami-branched"),
        # No version: what fedimg said before it knew which image it was to upload.
        ("Fedimg build", None),
        ("Fedora-Cloud-Base-20160710.0.x86_64", None),
    ],
)
def test_the_branch_of_a_cloud_image(name: str, category: str | None) -> None:
    assert [row[1] for row in table([image(image_name=name)])] == ([category] if category else [])


@pytest.mark.parametrize("status", ["started", "completed", "failed"])
def test_every_status_of_a_cloud_image_shows(status: str) -> None:
    [found] = latest(image(status=status)).values()
    assert found["status"] == status
    assert "extra_link" not in found


def test_kinds_of_images_and_regions_are_kept_apart() -> None:
    found = latest(
        image(destination="EC2 (eu-west-1)", status="started"),
        image(timestamp=NOON + 1, destination="EC2-eu-west-1", status="completed"),
        image(destination="us-west-2"),
        image(image_name="Fedora-Cloud-Atomic-24-20160710.0.x86_64"),
        image(image_name="Fedora-Cloud-Base-24-20160710.0.i386"),
        image(image_name="Fedora-Cloud-Base-25-20160710.0.x86_64"),
    )
    assert {constraint: body["status"] for (_, constraint), body in found.items()} == {
        "Fedora-Cloud-Base-24.x86_64:eu-west-1": "completed",
        "Fedora-Cloud-Base-24.x86_64:us-west-2": "started",
        "Fedora-Cloud-Atomic-24.x86_64:eu-west-1": "started",
        "Fedora-Cloud-Base-24.i386:eu-west-1": "started",
        "Fedora-Cloud-Base-25.x86_64:eu-west-1": "started",
    }


def test_a_test_that_has_started_keeps_the_link_to_the_image() -> None:
    extra = {"id": "ami-1234fda"}
    uploaded = image(status="completed", extra=extra)
    [before] = latest(uploaded).values()
    [found] = latest(uploaded, image(TEST, NOON + 1, status="started", extra=extra)).values()
    assert (found["status"], found["extra_text"]) == ("started", "eu-west-1 (test)")
    assert found["extra_link"] == before["extra_link"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Fedora-Cloud-Base-24-20160710.0.x86_64", "Fedora-Cloud-Base-24.x86_64"),
        ("Fedora-Cloud-Base-24-20160711.n.0.x86_64", "Fedora-Cloud-Base-24.x86_64"),
        ("Fedora-Cloud-Base-24_Beta-20160510.0.x86_64", "Fedora-Cloud-Base-24.x86_64"),
        ("Fedora-Cloud-Base-24-1.2.x86_64", "Fedora-Cloud-Base-24.x86_64"),
        ("fedora-cloud-base-rawhide-20140604.x86_64", "fedora-cloud-base-rawhide.x86_64"),
        ("Fedora-x86_64-20-20140407-sda", "Fedora-x86_64-20-sda"),
        ("fedora-livecd-xfce-rawhide-20140101", "fedora-livecd-xfce-rawhide"),
        ("Fedora-Live-KDE-i686", "Fedora-Live-KDE-i686"),
        ("Fedora-Cloud-Base-24", "Fedora-Cloud-Base-24"),
        ("Fedora-Cloud-Base-20160710.0.x86_64", "Fedora-Cloud-Base-20160710.0.x86_64"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind


NIGHTS = 14
IMAGES = [
    f"Fedora-{image_}-{branch}-{{night}}.x86_64"
    for branch in ("Rawhide", "24")
    for image_ in ("Cloud-Base", "Cloud-Atomic", "Docker-Base")
]
REGIONS = [
    *("ap-northeast-1", "ap-southeast-1", "ap-southeast-2", "eu-central-1", "eu-west-1"),
    *("sa-east-1", "us-east-1", "us-west-1", "us-west-2"),
]


def cloud_images_of(night: int) -> Iterator[Message]:
    """All that fedimg sends in a night: each image is uploaded, and tested, in each region."""
    start = NOON + night * 86_400
    steps = [(UPLOAD, "started"), (UPLOAD, "completed"), (TEST, "started"), (TEST, "completed")]
    pairs = itertools.product(IMAGES, REGIONS)
    for (number, (name, region)), (step, (topic, status)) in itertools.product(
        enumerate(pairs), enumerate(steps)
    ):
        yield image(
            topic,
            start + 100 * step + number,
            image_name=name.format(night=f"202311{night + 1:02}.n.0"),
            destination=f"EC2 ({region})",
            status=status,
            **({} if (step, status) == (0, "started") else {"extra": {"id": f"ami-{night}"}}),
        )


@pytest.mark.parametrize("backend", ["sqlite"])
def test_nights_of_cloud_images_leave_room_on_the_page_for_all_else(
    new_database: Callable[[str], str], backend: str
) -> None:
    others = [one for one in CORPUS if PLUGIN.subscribes(one.topic)]
    built = [task(NOON - 1, srpm=f"Fedora-Live-{flavour}-x86_64") for flavour in ("KDE", "Xfce")]
    nights = [one for night in range(NIGHTS) for one in cloud_images_of(night)]
    assert len(nights) == NIGHTS * len(IMAGES) * len(REGIONS) * 4
    address = "/api/release-engineering-event-logs"
    pages = []
    for seed in (None, 1):
        sent = [*others, *built, *nights]
        if seed is not None:
            # In another order, and some of it twice.
            sent = random.Random(seed).sample(sent, len(sent)) + sent[::7]
        with api_fixture(new_database(backend), *plugins) as api:
            for first in range(0, len(sent), 1_000):
                api.count(*sent[first : first + 1_000])
            answer = api.client.get(address)
            assert "next" not in links(answer)
            pages.append(answer.json)
    page, other_page = pages
    assert page == other_page
    found = [row | json.loads(row["message"]) for row in page]
    clouds = [row for row in found if row["category"].startswith("ami-")]
    last = f"202311{NIGHTS:02}.n.0"
    assert {(row["name"], row["extra_text"], row["status"]) for row in clouds} == {
        (name.format(night=last), f"{region} (test)", "completed")
        for name, region in itertools.product(IMAGES, REGIONS)
    }
    assert all(row["extra_link"].endswith(f"ami=ami-{NIGHTS - 1}") for row in clouds)
    rest = {(row["category"], row["category_constraint"]) for row in found if row not in clouds}
    assert rest == latest(*others, *built).keys()


def test_a_destination_that_is_no_region_of_ec2() -> None:
    [found] = latest(
        image(destination="Rackspace", status="completed", extra={"id": "ami-1"})
    ).values()
    assert found["extra_text"] == "Rackspace"
    assert "extra_link" not in found


@pytest.mark.parametrize(
    "body",
    [{"status": "published"}, {"status": []}, {"destination": None}, {"destination": ""}],
)
def test_a_cloud_image_without_the_essentials(body: dict[str, Any]) -> None:
    assert table([image(**body)]) == []


@pytest.mark.parametrize("extra", [None, {}, {"id": 7}, {"id": "ami-1&x=y"}, ["ami-1"]])
def test_a_completed_cloud_image_without_an_ami(extra: Any) -> None:
    [found] = latest(image(status="completed", extra=extra)).values()
    assert "extra_link" not in found


def test_a_live_cd() -> None:
    name = "Fedora-Live-Workstation-x86_64 (rawhide)"
    details = {
        "extra_text": "(details)",
        "extra_link": "https://koji.fedoraproject.org/koji/taskinfo?taskID=10177586",
    }
    key = ("artifact-livecd_x86_64", name)
    assert latest(task()) == {key: {"name": name, "status": "OPEN", **details}}
    assert latest(task(), task(NOON + 900, new="CLOSED")) == {
        key: {
            "name": name,
            "status": "CLOSED",
            "link": (
                "https://kojipkgs.fedoraproject.org/work/tasks/7590/10177590/"
                "Fedora-Live-Workstation-x86_64-rawhide-20150622.iso"
            ),
            **details,
        }
    }


@pytest.mark.parametrize(
    "change",
    [
        {"children": []},
        {"children": [{"id": 1}, {"id": 2}]},
        {"children": [{"id": "1"}]},
        {"children": None},
        {"request": ["Fedora-Live-Workstation-x86_64", "rawhide", {"scratch": True}]},
        {"request": [None, None, {"release": "1"}]},
        {"request": None},
    ],
)
def test_a_live_cd_whose_file_is_unknown(change: dict[str, Any]) -> None:
    closed = task(new="CLOSED")
    closed.msg["info"] |= change
    [found] = latest(closed).values()
    assert "link" not in found


WORK = "https://kojipkgs.fedoraproject.org/work/tasks"


@pytest.mark.parametrize(
    ("file_format", "link"),
    [
        ("raw", f"{WORK}/7590/10177590/Fedora-Minimal-armhfp-rawhide-20150622-sda.raw.xz"),
        ("qcow2", f"{WORK}/7590/10177590/Fedora-Minimal-armhfp-rawhide-20150622-sda.qcow2"),
        ("vmdk", None),
        (None, None),
    ],
)
def test_the_file_of_an_appliance(file_format: str | None, link: str | None) -> None:
    [found] = latest(appliance(file_format=file_format, new="CLOSED")).values()
    assert found.get("link") == link
    [found] = latest(appliance(file_format=file_format, new="OPEN")).values()
    assert "link" not in found


def test_an_appliance_per_format_and_branch() -> None:
    assert {
        (category, body["name"])
        for (category, _), body in latest(
            appliance(file_format="raw"),
            appliance(file_format="qcow2"),
            appliance(file_format=None),
            appliance(file_format="raw", version="22"),
        ).items()
    } == {
        ("artifact-appliance_armhfp", "Fedora-Minimal-armhfp (raw) (rawhide)"),
        ("artifact-appliance_armhfp", "Fedora-Minimal-armhfp (qcow2) (rawhide)"),
        ("artifact-appliance_armhfp", "Fedora-Minimal-armhfp (rawhide)"),
        ("artifact-appliance_armhfp", "Fedora-Minimal-armhfp (raw) (branched)"),
    }


def cloud_base(*children: dict[str, Any], formats: Any, **body: Any) -> Message:
    """What koji sent about the build of an image for two architectures."""
    name = "Fedora-Cloud-Base"
    request = [
        *(name, "rawhide", ["x86_64", "i386"], "rawhide"),
        "http://kojipkgs.fedoraproject.org/mash/rawhide/$arch/os/",
        {"scratch": True, "format": formats, "release": "20150622"},
    ]
    info = {"request": request, "children": list(children)}
    return task(method="image", srpm=name, info=info, **body)


def test_an_image_per_architecture_and_format() -> None:
    built = cloud_base(
        {"id": 10177590, "method": "createImage", "arch": "x86_64"},
        {"id": 10180012, "method": "createImage", "arch": "i386"},
        formats=["qcow2", "raw-xz", "docker", "rhevm-ova"],
        new="CLOSED",
    )
    build = "Fedora-Cloud-Base-rawhide-20150622"
    assert {key: found["link"] for key, found in latest(built).items()} == {
        (f"artifact-image_{architecture}", f"Fedora-Cloud-Base ({file_format}) (rawhide)"): (
            f"{WORK}/{folder}/{build}.{architecture}.{suffix}"
        )
        for architecture, folder in [("x86_64", "7590/10177590"), ("i386", "12/10180012")]
        for file_format, suffix in [
            ("qcow2", "qcow2"),
            ("raw-xz", "raw.xz"),
            ("docker", "tar.xz"),
            ("rhevm-ova", "rhevm.ova"),
        ]
    }


@pytest.mark.parametrize(
    "children",
    [
        [],
        [{"id": 1}],
        [{"id": 1, "arch": "x86_64"}, {"id": 2, "arch": "x86_64"}],
        [{"id": "1", "arch": "x86_64"}],
        [None, "x86_64"],
    ],
)
def test_an_image_that_nobody_knows_who_built(children: list[Any]) -> None:
    found = latest(cloud_base(*children, formats=["qcow2"], new="CLOSED"))
    assert len(found) == 2
    assert not any("link" in each for each in found.values())


def test_an_image_without_formats() -> None:
    child = {"id": 10177590, "arch": "x86_64"}
    for formats in (None, [], [7], {"qcow2": 1}):
        found = latest(cloud_base(child, formats=formats, new="CLOSED"))
        key = ("artifact-image_x86_64", "Fedora-Cloud-Base (rawhide)")
        assert found[key]["name"] == "Fedora-Cloud-Base (rawhide)"
        assert "link" not in found[key]


@pytest.mark.parametrize(
    ("srpm", "request_", "keys"),
    [
        ("Fedora-Live-KDE-i686", ["Fedora-Live-KDE-i686", "22", "i386"], ("i686", "branched")),
        ("fedora-livecd-xfce-rawhide-20140101.x86_64", [], ("x86_64", "rawhide")),
        ("fedora-livecd-xfce-rawhide-20140101", ["x", "y", "i386 x"], ("i386", "rawhide")),
        ("Fedora-Live-KDE-x86_64", [], ("x86_64", "")),
        ("fedora-livecd-xfce-rawhide-20140101", [], None),
        ("fedora-livecd-xfce-rawhide-20140101", ["x", "y", {"x86_64": 1}], None),
        ("", [], None),
    ],
)
def test_the_architecture_and_branch_of_a_task(
    srpm: str, request_: list[Any], keys: tuple[str, str] | None
) -> None:
    rows = table([task(srpm=srpm, info={"request": request_})])
    if keys is None:
        assert rows == []
        return
    architecture, branch = keys
    kind = f"{kind_of(srpm)} ({branch})" if branch else kind_of(srpm)
    assert [row[1:3] for row in rows] == [(f"artifact-livecd_{architecture}", kind)]


@pytest.mark.parametrize(
    "body",
    [
        {"owner": "ralph"},
        {"owner": None},
        {"method": "build"},
        {"method": "createLiveCD"},
        {"method": ["livecd"]},
        {"srpm": None},
        {"new": "GONE"},
        {"new": None},
    ],
)
def test_tasks_that_are_no_nightly_builds(body: dict[str, Any]) -> None:
    assert table([task(**body)]) == []


@pytest.mark.parametrize(
    ("body", "page"),
    [
        ({"instance": "arm"}, "http://arm.koji.fedoraproject.org/koji/taskinfo?taskID=10177586"),
        ({"instance": "elsewhere"}, None),
        ({"id": None}, None),
        ({"id": "10177586"}, None),
        ({"id": True}, None),
    ],
)
def test_the_page_of_a_task(body: dict[str, Any], page: str | None) -> None:
    [found] = latest(task(**body)).values()
    assert found.get("extra_link") == page
    assert ("extra_text" in found) is (page is not None)


def test_an_older_message_never_wins_in_any_order() -> None:
    messages = [
        compose("rawhide.start", NOON, arch=""),
        compose("rawhide.complete", NOON + 3600, arch=""),
        compose("rawhide.start", NOON + 86400, arch=""),
        task(NOON + 1),
        task(NOON + 2, new="FAILED"),
    ]
    expected = table(messages)
    assert [row[0] for row in expected] == [NOON + 2, NOON + 86400]
    for order in itertools.permutations(messages):
        assert table(order) == expected


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (compose("rawhide.rsync.start"), compose("rawhide.rsync.complete")),
        (compose("28.start"), compose("28.done")),
        (image(status="started"), image(status="failed")),
        (image(status="started"), image(status="completed", extra={"id": "ami-1"})),
        (task(new="OPEN"), task(new="CLOSED")),
        (task(new="OPEN"), task(new="FAILED")),
        (task(new="FREE"), task(new="CANCELED")),
    ],
)
def test_of_one_second_the_end_wins(start: Message, end: Message) -> None:
    assert start.timestamp == end.timestamp
    assert table([start, end]) == table([end, start]) == table([end])


def everything() -> list[Message]:
    """A message for each kind of row."""
    return [
        *CORPUS,
        *(
            compose(f"{branch}.{action}", arch=architecture)
            for branch in ("rawhide", "branched", "28")
            for action in ("start", "complete", "done")
            for architecture in ("", "arm", "ppc", "s390")
        ),
        *(sync(distribution, release="7", repo="x") for distribution in ("fedora", "epel")),
        *(
            image(topic, status=status, image_name=f"Fedora-Cloud-Base-{version}-20160710.0")
            for topic in (UPLOAD, TEST)
            for status in ("started", "completed", "failed")
            for version in ("24", "rawhide")
        ),
        *(
            task(method=method, srpm=f"Fedora-X-{architecture}", new=state)
            for method, architectures in [
                ("appliance", ("armhfp", "x86_64", "i386", "i686")),
                ("livecd", ("x86_64", "i686")),
                ("image", ("x86_64", "i386", "armhfp", "aarch64", "ppc64le", "s390x")),
            ]
            for architecture in architectures
            for state in ("FREE", "ASSIGNED", "OPEN", "CLOSED", "CANCELED", "FAILED")
        ),
    ]


def test_the_layout_covers_everything() -> None:
    layout = json.loads(json.dumps(PLUGIN.layout))
    assert set(layout) == {"groups", "default_options"}
    assert len({group["id"] for group in layout["groups"]}) == len(layout["groups"])
    components = [component for group in layout["groups"] for component in group["components"]]
    assert all(component["name"] for component in components)
    shown = [component["id"] for component in components]
    assert len(set(shown)) == len(shown)
    assert {row[1] for row in table(everything())} <= set(shown)

    options = layout["default_options"]
    statuses = {
        json.loads(text)["status"]
        for one in everything()
        if PLUGIN.subscribes(one.topic)
        for _, _, text in PLUGIN.rows(one)
    }
    keys = statuses | {status.lower() for status in statuses}
    assert set(options["status_verb_map"]) == set(options["status_class_map"]) == keys
    assert set(options["status_class_map"].values()) == {
        "text-primary",
        "text-warning",
        "text-danger",
        "text-muted",
    }
    assert options["old_log_threshold"] == {"key": "hours", "value": 24}
    assert options["show_time_at"] is options["show_status"] is True


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_dashboard_finds_words_and_colours_for_every_state(migrated_uri: str) -> None:
    said = {
        "FREE": ("queued", "text-warning"),
        "ASSIGNED": ("assigned", "text-warning"),
        "OPEN": ("started", "text-warning"),
        "CLOSED": ("completed", "text-primary"),
        "CANCELED": ("canceled", "text-muted"),
        "FAILED": ("failed", "text-danger"),
    }
    with api_fixture(migrated_uri, *plugins) as api:
        address = "/api/release-engineering-event-logs"
        options = api.client.get(f"{address}/layout").json["default_options"]
        api.count(*(task(srpm=f"Fedora-{state}-x86_64", new=state) for state in said))
        rows = [json.loads(row["message"]) for row in api.client.get(address).json]
    assert {row["name"]: row["status"] for row in rows} == {
        f"Fedora-{state}-x86_64 (rawhide)": state for state in said
    }
    for row in rows:
        # As of 2015; others look up what they are sent.
        for key in (row["status"].lower(), row["status"]):
            found = (options["status_verb_map"][key], options["status_class_map"][key])
            assert found == said[row["status"]]


TEXTS = st.text() | st.sampled_from(
    ["", "rawhide", "22", "EC2 (us-east-1)", "Fedora-Modular-28-1", "x-x86_64", "-", "\0", "\ud800"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
COMPOSE_TOPICS = st.from_regex(
    r"org\.fedoraproject\.prod\.compose(\.[^.]+){0,4}(\.(start|complete|done))?", fullmatch=True
)
GOOD = [one for one in everything() if PLUGIN.subscribes(one.topic)]
GOOD_INFO = task().msg["info"]


@st.composite
def topics_and_bodies(draw: st.DrawFn) -> tuple[str, Any]:
    """A good message, or a new topic of a compose, with something else in a part of its body."""
    good = draw(st.sampled_from(GOOD))
    topic = draw(st.just(good.topic) | COMPOSE_TOPICS)
    keys = st.sampled_from(sorted({"arch", "short", "compose_id", "location", "extra", *good.msg}))
    body = good.msg | draw(st.dictionaries(keys, JSON, max_size=2))
    if draw(st.booleans()) and isinstance(body.get("info"), dict):
        children = st.lists(JSON | st.builds(lambda value: {"id": value}, JSON), max_size=2)
        body["info"] = GOOD_INFO | draw(
            st.fixed_dictionaries({}, optional={"children": children, "request": st.lists(JSON)})
        )
    return topic, draw(st.just(body) | JSON)


@given(topics_and_bodies())
def test_any_body_makes_rows_that_fit_or_none(topic_and_body: tuple[str, Any]) -> None:
    topic, body = topic_and_body
    assert PLUGIN.subscribes(topic)
    one = message(topic, msg=body)
    rows = PLUGIN.rows(one)
    assert PLUGIN.rows(one) == rows
    for category, constraint, text in rows:
        assert category
        assert constraint
        found = json.loads(text)
        assert {"name", "status"} <= set(found)
        assert set(found) <= {"name", "status", "link", "extra_text", "extra_link"}
        assert all(isinstance(value, str) and value for value in found.values())
        assert found["status"] in PLUGIN.layout["default_options"]["status_verb_map"]
    assert len(table([one])) <= len(rows)
