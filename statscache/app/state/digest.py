"""Short names for what answers depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable


def digest(*parts: Hashable) -> str:
    """A name for ``parts``, whose representations tell them apart: 128 bits, as hexadecimals."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "replace"), digest_size=16).hexdigest()
