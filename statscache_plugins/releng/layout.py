"""How a dashboard may draw the event logs: which categories side by side, in which words."""

from __future__ import annotations

from typing import Any

from statscache_plugins.releng import cloud_images, composes, koji_tasks, updates

_STATUSES = (
    *composes.STATUSES.values(),
    updates.SYNCED_OUT,
    *cloud_images.STATUSES.values(),
    *koji_tasks.STATES.values(),
)
_KEYS = {key: status for status in _STATUSES for key in (status.word, status.word.lower())}
"""Koji shouts its states, and the dashboard of 2015 looks them up in lower case."""


def _composes(branch: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"compose-{branch}_{architecture}",
            "name": f"{branch.title()} compose ({architecture})",
            "link_for": "name",
        }
        for architecture in composes.ARCHITECTURES
    ]


def _artifacts(method: str, *architectures: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"artifact-{method}_{architecture}",
            "name": architecture,
            "link_for": "name",
            "show_time_at": False,
        }
        for architecture in architectures
    ]


LAYOUT: dict[str, Any] = {
    "groups": [
        {"id": f"compose-{branch}", "components": _composes(branch)} for branch in composes.BRANCHES
    ]
    + [
        {
            "id": "updates",
            "components": [
                {"id": "updates-fedora", "name": "Repository updates (Fedora)"},
                {"id": "updates-epel", "name": "Repository updates (EPEL)"},
            ],
        },
        {
            "id": "amis",
            "components": [
                {"id": f"ami-{branch}", "name": f"AMIs ({branch})", "show_time_at": False}
                for branch in cloud_images.BRANCHES
            ],
        },
        {
            "id": "appliance",
            "name": "Appliance builds",
            "components": _artifacts("appliance", "armhfp", "x86_64", "i386", "i686", "aarch64"),
        },
        {
            "id": "livecd",
            "name": "Live CD builds",
            "components": _artifacts("livecd", "x86_64", "i686", "i386"),
        },
        {
            "id": "image",
            "name": "Image builds",
            "components": _artifacts(
                "image",
                "x86_64",
                "i386",
                "i686",
                "armhfp",
                "aarch64",
                "ppc64",
                "ppc64le",
                "s390x",
            ),
        },
    ],
    "default_options": {
        "show_time_at": True,
        "show_status": True,
        "status_verb_map": {key: status.verb for key, status in _KEYS.items()},
        "status_class_map": {key: status.text_class for key, status in _KEYS.items()},
        "old_log_threshold": {"key": "hours", "value": 24},
    },
}
"""Groups of components. The id of a component is the category of the rows that it shows.

An option of a component takes the place of the default: ``link_for`` names the key of a message
whose text becomes the link, ``show_status`` and ``show_time_at`` say whether the status and the
time are shown, and entries older than ``old_log_threshold`` are drawn as stale. The maps have each
status as it is sent, and in lower case.
"""
