"""Image tasks: the nightly builds of live CDs, appliances and images in koji.

Koji announces only tasks without a parent, so the tasks ``createLiveCD``, ``createAppliance`` and
``createImage``, which do the work for those here, are never seen: only their ids are, in
``info.children``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import quote

from statscache.plugins import Message
from statscache_plugins.releng.entry import DONE, FAILED, RUNNING, STOPPED, Entry, Status
from statscache_plugins.releng.kinds import kind_of

TOPICS = ("org.fedoraproject.prod.buildsys.task.state.change",)

NIGHTLY_BUILDER = "masher"
"""The account of the nightly builds. What others build is their own business."""

STATES = {
    "FREE": Status("FREE", "queued", RUNNING),
    "ASSIGNED": Status("ASSIGNED", "assigned", RUNNING),
    "OPEN": Status("OPEN", "started", RUNNING),
    "CLOSED": Status("CLOSED", "completed", DONE),
    "CANCELED": Status("CANCELED", "canceled", STOPPED),
    "FAILED": Status("FAILED", "failed", FAILED),
}
"""All the states that koji knows."""

METHODS = ("appliance", "livecd", "image")
ARCHITECTURES = (
    "x86_64",
    "i686",
    "i386",
    "armhfp",
    "armv7hl",
    "aarch64",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390",
    "s390x",
)

_DISKS = {"qcow2": "qcow2", "raw": "raw.xz"}
"""The formats of appliances, to how the names of their files end."""

_SUFFIXES = {
    "docker": "tar.xz",
    "raw-xz": "raw.xz",
    "rhevm-ova": "rhevm.ova",
    "vagrant-libvirt": "vagrant-libvirt.box",
    "vagrant-virtualbox": "vagrant-virtualbox.box",
    "vsphere-ova": "vsphere.ova",
}
"""The formats of images whose files are not called as they are."""

_HUBS = {
    "primary": "https://koji.fedoraproject.org",
    "arm": "http://arm.koji.fedoraproject.org",
    "ppc": "http://ppc.koji.fedoraproject.org",
    "s390": "http://s390.koji.fedoraproject.org",
}
"""What a message calls the koji that sent it, to where that koji is."""


def entries(message: Message) -> Iterator[Entry]:
    """One per architecture and format: only the method ``image`` builds several at once."""
    match message.msg:
        case {
            "owner": str(owner),
            "method": str(method),
            "srpm": str(srpm),
            "new": str(state),
        } if owner == NIGHTLY_BUILDER and method in METHODS and state in STATES:
            request = _request(message.msg)
            branch = _branch(srpm, request)
            page = _page(message.msg)
            for architecture, format_ in product(_architectures(srpm, request), _formats(request)):
                details = "".join(f" ({detail})" for detail in (format_, branch) if detail)
                file = _file(message.msg, request, architecture, format_)
                yield Entry(
                    category=f"artifact-{method}_{architecture}",
                    constraint=kind_of(srpm) + details,
                    name=srpm + details,
                    status=STATES[state],
                    link=file if state == "CLOSED" else "",
                    extra_text="(details)" if page else "",
                    extra_link=page,
                )


def _request(body: dict[str, Any]) -> list[Any]:
    """The arguments of the task: name, version, architecture, target, kickstart file, options."""
    match body:
        case {"info": {"request": list(request)}}:
            return request
    return []


def _options(request: list[Any]) -> dict[str, Any]:
    return request[-1] if request and isinstance(request[-1], dict) else {}


def _formats(request: list[Any]) -> list[str]:
    """Such as ``raw`` and ``qcow2``, each in a task for appliances; an empty text for unknown."""
    formats = _options(request).get("format")
    if isinstance(formats, str):
        return [formats]
    named = formats if isinstance(formats, list) else []
    return [item for item in named if isinstance(item, str)] or [""]


def _branch(srpm: str, request: list[Any]) -> str:
    """``rawhide`` or ``branched``; empty where nothing says which."""
    name_to_target = [item for item in request[:4] if isinstance(item, str)]
    if any("rawhide" in text.lower() for text in (srpm, *name_to_target)):
        return "rawhide"
    has_version = len(request) > 1 and isinstance(request[1], str) and request[1]
    return "branched" if has_version else ""


def _architectures(srpm: str, request: list[Any]) -> list[str]:
    """The one that ends the name, as in ``Fedora-Live-KDE-i686``, or else those asked for.

    In this order because the name says i686 where the request, in koji's words, says i386.
    """
    for word in reversed(re.split(r"[-.]", srpm)):
        if word in ARCHITECTURES:
            return [word]
    asked = request[2] if len(request) > 2 else []
    words = asked.split() if isinstance(asked, str) else asked
    if not isinstance(words, list):
        return []
    return [architecture for architecture in ARCHITECTURES if architecture in words]


def _page(body: dict[str, Any]) -> str:
    """Where koji tells about the task."""
    hub = body.get("instance", "primary")
    task = body.get("id")
    if isinstance(hub, str) and hub in _HUBS and _is_id(task):
        return f"{_HUBS[hub]}/koji/taskinfo?taskID={task}"
    return ""


def _file(body: dict[str, Any], request: list[Any], architecture: str, format_: str) -> str:
    """Where the result is, in the folder of the task that made it; empty if that is unsure."""
    method = body["method"]
    child = _child(body, architecture if method == "image" else None)
    match request:
        case [str(name), str(version), *_, {"release": str(release)}] if child:
            build = f"{name}-{version}-{release}"
        case _:
            return ""
    if method == "livecd":
        file = f"{build}.iso"
    elif method == "appliance" and format_ in _DISKS:
        file = f"{build}-sda.{_DISKS[format_]}"
    elif method == "image" and format_:
        file = f"{build}.{architecture}.{_SUFFIXES.get(format_, format_)}"
    else:
        return ""
    folder = f"https://kojipkgs.fedoraproject.org/work/tasks/{child % 10000}/{child}"
    return f"{folder}/{quote(file, safe='', errors='replace')}"


def _child(body: dict[str, Any], architecture: str | None) -> int:
    """The id of the one task that did the work, for an architecture if one is named; 0: unsure."""
    match body:
        case {"info": {"children": list(children)}} if body.get("instance", "primary") == "primary":
            found = [
                child.get("id")
                for child in children
                if isinstance(child, dict)
                and (architecture is None or child.get("arch") == architecture)
            ]
            match found:
                case [int(task)] if _is_id(task):
                    return task
    return 0


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**63
