"""Image tasks: the nightly builds of live CDs, appliances and images in koji.

Koji announces only tasks without a parent, so the tasks ``createLiveCD``, ``createAppliance`` and
``createImage``, which do the work for those here, are never seen: only their ids are, in
``info.children``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from statscache.plugins import Message
from statscache_plugins.releng.entry import DONE, FAILED, RUNNING, STOPPED, Entry, Status

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

_HAS_ISO = ("livecd", "CLOSED")
"""The one method whose result has a name that can be told, and the state in which it is there."""

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

_HUBS = {
    "primary": "https://koji.fedoraproject.org",
    "arm": "http://arm.koji.fedoraproject.org",
    "ppc": "http://ppc.koji.fedoraproject.org",
    "s390": "http://s390.koji.fedoraproject.org",
}
"""What a message calls the koji that sent it, to where that koji is."""


def entries(message: Message) -> Iterator[Entry]:
    """One per architecture: only the method ``image`` builds for several at once."""
    match message.msg:
        case {
            "owner": str(owner),
            "method": str(method),
            "srpm": str(srpm),
            "new": str(state),
        } if owner == NIGHTLY_BUILDER and method in METHODS and state in STATES:
            request = _request(message.msg)
            details = (_format(request), _branch(srpm, request))
            name = " ".join([srpm, *(f"({detail})" for detail in details if detail)])
            page = _page(message.msg)
            for architecture in _architectures(srpm, request):
                yield Entry(
                    category=f"artifact-{method}_{architecture}",
                    constraint=name,
                    name=name,
                    status=STATES[state],
                    link=_iso(message.msg, request) if (method, state) == _HAS_ISO else "",
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


def _format(request: list[Any]) -> str:
    """``raw`` or ``qcow2``: one appliance is built in several formats, by a task each."""
    formats = _options(request).get("format")
    if isinstance(formats, list):
        return ", ".join(item for item in formats if isinstance(item, str))
    return formats if isinstance(formats, str) else ""


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


def _iso(body: dict[str, Any], request: list[Any]) -> str:
    """Where the live CD is, in the folder of the one task that made it; empty if that is unsure."""
    match body, request:
        case (
            {"info": {"children": [{"id": child}]}},
            [str(name), str(version), *_, {"release": str(release)}],
        ) if _is_id(child) and body.get("instance", "primary") == "primary":
            file = quote(f"{name}-{version}-{release}.iso", safe="", errors="replace")
            return f"https://kojipkgs.fedoraproject.org/work/tasks/{child % 10000}/{child}/{file}"
    return ""


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**63
