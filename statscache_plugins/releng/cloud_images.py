"""Cloud images: the upload of each kind of image to each region of EC2, and its test there.

A row has the newest event of either. Every night has its own images, and with a row for each of
them, or for each stage of them, one night would be more than a page of rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from statscache.plugins import Message
from statscache_plugins.releng.entry import DONE, FAILED, RUNNING, Entry, Status
from statscache_plugins.releng.kinds import kind_of

_UPLOAD = "org.fedoraproject.prod.fedimg.image.upload"
_TEST = "org.fedoraproject.prod.fedimg.image.test"
TOPICS = (_UPLOAD, _TEST)

# All that fedimg sends, not the successes alone: the page shows as well what has failed or hangs.
STATUSES = {
    "started": Status("started", "started", RUNNING),
    "completed": Status("completed", "completed", DONE),
    "failed": Status("failed", "failed", FAILED),
}

BRANCHES = ("branched", "rawhide")

_VERSION = re.compile(r"-(rawhide|[0-9]{1,3})(?=[-_.]|$)", re.IGNORECASE)
"""In ``Fedora-Cloud-Base-24_Beta-20160710.0.x86_64``, the 24: a date has more digits."""
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]+")
"""In ``EC2 (us-east-1)``, ``EC2-eu-west-1`` and ``eu-west-1``, which all have been sent."""
_AMI = re.compile(r"ami-[0-9a-z]+")
_LAUNCH = (
    "https://redirect.fedoraproject.org/console.aws.amazon.com/ec2/v2/home"
    "?region={region}#LaunchInstanceWizard:ami={ami}"
)


def entries(message: Message) -> Iterator[Entry]:
    """At most one."""
    match message.msg:
        case {
            "image_name": str(image),
            "destination": str(destination),
            "status": str(status),
        } if destination and status in STATUSES and (version := _VERSION.search(image)):
            region = _REGION.search(destination)
            place = region[0] if region else destination
            yield Entry(
                category="ami-rawhide" if version[1].lower() == "rawhide" else "ami-branched",
                constraint=f"{kind_of(image)}:{place}",
                name=image,
                status=STATUSES[status],
                extra_text=f"{place} (test)" if message.topic == _TEST else place,
                extra_link=_launch(message.msg, place) if region else "",
            )


def _launch(body: dict[str, Any], region: str) -> str:
    """Where a person can start the image, which has an AMI from the end of its upload on."""
    match body:
        case {"extra": {"id": str(ami)}} if _AMI.fullmatch(ami):
            return _LAUNCH.format(region=region, ami=ami)
    return ""
