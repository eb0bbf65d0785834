"""What is built over and over: the same thing, under a name with the compose in it."""

from __future__ import annotations

import re

_COMPOSE = re.compile(
    r"(?<=-)(?P<version>rawhide|[0-9]{1,3})"
    r"(?:_[a-z]+)?-[0-9]+(?:\.(?:[a-z]{1,2}\.)?[0-9]+)*(?=[-.]|$)",
    re.IGNORECASE,
)
"""In ``Fedora-Cloud-Base-24_Beta-20160710.n.0.x86_64``, the ``24_Beta-20160710.n.0``."""


def kind_of(name: str) -> str:
    """``name`` without the compose: ``Fedora-Cloud-Base-24.x86_64``.

    There are as many kinds as there are things to build, whereas the names of one night are others
    than those of the next: a row for each name would push all else off the first page of rows.
    """
    return _COMPOSE.sub(r"\g<version>", name, count=1)
