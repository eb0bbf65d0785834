"""What a worker has folded, for the engine to count: partial aggregates, and what they are of."""

from __future__ import annotations

from dataclasses import dataclass, field

from statscache.archive.base import Window
from statscache.counting.folding.fold import Partial
from statscache.counting.lanes.claims import FoldedDigest
from statscache.rejection import Rejection


@dataclass
class Folded:
    """What a window adds to the tables of some aggregates.

    Attributes:
        idents: of the tables, in the order of the plugins of the lane.
        digests: of the messages.
        partials: one for each folder of the plugins of the lane.
        missing: how many messages the archive has and did not return.
    """

    window: Window
    idents: tuple[str, ...]
    digests: list[FoldedDigest]
    partials: list[Partial]
    rejections: list[Rejection] = field(default_factory=list)
    missing: int = 0

    @property
    def size(self) -> int:
        """How many messages were folded."""
        return len(self.digests)
