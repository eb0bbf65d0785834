"""A batch: what is counted in one transaction, its origin, and its outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sqlalchemy import Connection

from statscache.archive.base import Slice, Window
from statscache.counting.folding.folded import Folded
from statscache.counting.folding.lane_plugins import LanePlugins, WriteResult
from statscache.counting.lanes.claims import Claimed
from statscache.counting.lanes.lane import PERMANENT, Lane
from statscache.errors import described
from statscache.message import Message
from statscache.rejection import Rejection


class Origin(Enum):
    """Where a batch comes from."""

    BUS = "bus"
    """Messages that a transport has just received."""

    FILE = "file"
    """A file that is replayed."""

    ARCHIVE = "archive"
    """A window of the archive."""

    GAP = "gap"
    """A window that the archive returned incompletely before."""

    LATE = "late"
    """Late messages that the archive has decided."""

    RETRY = "retry"
    """Messages that were rejected before."""

    REPAIR = "repair"
    """Rows that were recounted, because they differ from the archive."""

    @property
    def excludes(self) -> bool:
        """Whether no other process may count meanwhile.

        It may be counting a message without id, which the archive has under one: until that is
        committed, the two cannot be recognised as the same message.
        """
        return self not in (Origin.BUS, Origin.FILE)


@dataclass(frozen=True)
class Batch:
    """What is counted in one transaction.

    Attributes:
        live: messages of the bus, or of a file that is replayed.
        archived: messages of the archive.
        folded: what workers folded of messages of the archive, instead of these.
        replace: replaces wrong rows by recounted ones; returns the idents changed.
        rejections: input that is not a message.
        lanes: the numbers of those that count it; None: all.
        window: that the archive has returned, except ``missing`` messages.
        is_last: nothing older than now is missing after it: classic plugins that waited for their
            history get the live messages that were kept for them, and all that follow.
        idents: if set, only these idents count it (the others already have).
    """

    origin: Origin
    live: Sequence[Message] = ()
    archived: Sequence[Message] = ()
    folded: Folded | None = None
    replace: Callable[[Connection], list[str]] | None = None
    rejections: Sequence[Rejection] = ()
    lanes: frozenset[int] | None = None
    window: Window | None = None
    missing: int = 0
    is_last: bool = False
    idents: frozenset[str] = frozenset()

    @property
    def is_claimed(self) -> bool:
        """Whether its messages are claimed already, since only some plugins rejected them."""
        return bool(self.idents)

    @property
    def is_decided(self) -> bool:
        """Whether its lanes count all of it now, whatever their state."""
        return self.is_claimed or self.origin in (Origin.LATE, Origin.REPAIR)

    @property
    def advances(self) -> bool:
        """Whether it moves the checkpoint; False: the lane has counted it before."""
        return not self.is_claimed and self.origin is not Origin.REPAIR

    @property
    def backs_off(self) -> bool:
        """Whether a lane pauses where none of its plugins could write the batch.

        What workers folded is then counted by the engine itself, and may fail there. A retry was
        rejected before, and says nothing about the lane.
        """
        return self.folded is None and not self.is_claimed

    def counted_by(self, lane: Lane, plugins: LanePlugins) -> LanePlugins | None:
        """Those plugins of a lane that count it; None: there are none."""
        if self.lanes is not None and lane.id not in self.lanes:
            return None
        if not self.idents:
            return plugins
        return None if self.idents.isdisjoint(plugins.idents) else plugins.only(self.idents)

    def size(self, claimed: Claimed) -> int:
        """How many of its messages are new, and counted."""
        return len(claimed.messages) if self.folded is None else self.folded.size

    def newest(self, claimed: Claimed) -> float | None:
        """The largest timestamp among those; None: there are none."""
        if self.folded is None:
            return max((message.timestamp for message in claimed.messages), default=None)
        return max((timestamp for _, timestamp, _ in self.folded.digests), default=None)

    @classmethod
    def of_slice(cls, lanes: Iterable[int], piece: Slice, *, is_last: bool = False) -> Batch:
        """A window of the archive, of all topics to which the plugins of ``lanes`` subscribe."""
        return cls(
            Origin.ARCHIVE,
            archived=piece.messages,
            rejections=piece.rejected,
            lanes=frozenset(lanes),
            window=piece.window,
            missing=piece.missing,
            is_last=is_last,
        )

    @classmethod
    def of_gap(cls, lane: int, piece: Slice) -> Batch:
        """A gap, or its beginning, as the archive returns it now."""
        return cls(
            Origin.GAP,
            archived=piece.messages,
            rejections=piece.rejected,
            lanes=frozenset([lane]),
            window=piece.window,
            missing=piece.missing,
        )

    @classmethod
    def of_folded(cls, lane: int, folded: Folded) -> Batch:
        """What workers folded for a lane.

        If the lane has counted some of its messages before, it is not counted, and the window must
        be fetched and counted here: a partial does not tell which part comes from which message.
        """
        return cls(
            Origin.ARCHIVE,
            folded=folded,
            lanes=frozenset([lane]),
            window=folded.window,
            missing=folded.missing,
        )

    @classmethod
    def of_rejections(cls, origin: Origin, rejections: Sequence[Rejection]) -> Batch:
        """Rejections alone: no lane counts them."""
        return cls(origin, rejections=rejections, lanes=frozenset())

    @classmethod
    def of_repair(cls, lane: int, replace: Callable[[Connection], list[str]]) -> Batch:
        """Rows of a lane that differ from the archive, recounted."""
        return cls(Origin.REPAIR, replace=replace, lanes=frozenset([lane]))


@dataclass
class Outcome:
    """What became of a batch.

    Attributes:
        late: messages that wait until the archive decides whether they were counted.
        failing: ident to error of the plugins whose rows of this batch could not be written.
        changed: the idents whose rows changed.
        span: the first and the last time of the messages, UNIX seconds; None where there are none.
        lanes: name of a lane to the number of live or replayed messages that it counted.
        committed: the numbers of the lanes that have counted it.
        refusal: why the plugins of ``Batch.idents`` cannot count it.
    """

    counted: int = 0
    duplicates: int = 0
    late: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    span: tuple[float, float] | None = None
    lanes: dict[str, int] = field(default_factory=dict)
    committed: set[int] = field(default_factory=set)
    refusal: str | None = None

    def __add__(self, other: Outcome) -> Outcome:
        """The outcome of two batches of different messages."""
        spans = [span for span in (self.span, other.span) if span is not None]
        return Outcome(
            counted=self.counted + other.counted,
            duplicates=self.duplicates + other.duplicates,
            late=self.late + other.late,
            rejections=self.rejections + other.rejections,
            failing=self.failing | other.failing,
            changed=self.changed | other.changed,
            span=(min(first for first, _ in spans), max(last for _, last in spans))
            if spans
            else None,
            lanes=dict(Counter(self.lanes) + Counter(other.lanes)),
            committed=self.committed | other.committed,
            refusal=self.refusal or other.refusal,
        )

    def note(self, lane: Lane, batch: Batch, claimed: Claimed) -> None:
        """Note what a lane has counted.

        Several lanes count the same messages: the numbers are of the one that counted most.
        """
        self.committed.add(lane.id)
        brought, new = len(batch.archived), claimed.archived
        if batch.window is None:
            brought, new = len(batch.live), len(claimed.messages)
            self.lanes[lane.name] = new
            if lane.name not in PERMANENT and lane.watermark is not None:
                return
        if new > self.counted or not self.duplicates:
            self.counted, self.duplicates = new, brought - new

    def note_retry(self, idents: Iterable[str], result: WriteResult) -> bool:
        """Note whether plugins could count what they had rejected; False: one could not."""
        reasons = [rejection.reason for rejection in result.rejections]
        reasons += [described(error) for _, error in result.failed]
        if reasons:
            self.refusal = reasons[0]
            return False
        self.changed.update(idents)
        return True
