"""Buckets of time, as calendars have them: hours, days, weeks, months and years of any time zone.

All instants are whole UNIX seconds. A bucket is labelled by its first instant. A day of a time zone
is what its clocks call one date, be it 23, 24 or 25 hours long; a date that a zone skipped has no
bucket. An hour that clocks show twice is two buckets.

Where clocks are put back across midnight (in St. John's until 2011, at 00:01), one date is two
pieces of time, with a piece of the day before between them. So a bucket has one piece or more.
"""

from __future__ import annotations

import math
import zoneinfo
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta

from statscache.plugins.buckets import MONDAY
from statscache.times import DAY, HOUR

WEEK = 7 * DAY

LAST_YEAR = 2100
"""From this year on the rules of time zones are taken as unknown."""

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MONDAY = int(MONDAY.total_seconds())


class TooManyBuckets(Exception):
    """A range has more buckets than are allowed."""


@dataclass(frozen=True)
class Resolution:
    """How wide buckets are.

    Attributes:
        name: such as ``15m`` or ``month``.
        width: seconds; of a month and a year about.
        offset: seconds from 1970 to the start of a bucket.
        months: of a bucket that is made of calendar months; otherwise 0.
    """

    name: str
    width: int
    offset: int = 0
    months: int = 0


WEEKS = Resolution("week", WEEK, _MONDAY)
MONTHS = Resolution("month", 30 * DAY, months=1)
YEARS = Resolution("year", 365 * DAY, months=12)
CALENDAR = (WEEKS, MONTHS, YEARS)

_UTC = frozenset({"UTC", "Etc/UTC"})
_UNITS = {"d": DAY, "h": HOUR, "m": 60, "s": 1}
_WIDTHS = (1, 5, 10, 15, 30, 60, 300, 600, 900, 1800, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR)


def fixed(width: int) -> Resolution:
    """Buckets of ``width`` seconds, counted from midnight, whole weeks from Monday."""
    if width == WEEK:
        return WEEKS
    unit, seconds = next(item for item in _UNITS.items() if width % item[1] == 0)
    return Resolution(f"{width // seconds}{unit}", width, _MONDAY if width % WEEK == 0 else 0)


def resolutions(stored: Collection[int]) -> dict[str, Resolution]:
    """The resolutions that rows of the widths ``stored`` make in UTC, by name, finest first."""
    finest = min(stored)
    found = [fixed(width) for width in {*stored, *_WIDTHS, DAY} if width % finest == 0]
    if DAY % finest == 0:
        found += [resolution for resolution in CALENDAR if resolution not in found]
    return {each.name: each for each in sorted(found, key=lambda each: each.width)}


@lru_cache(maxsize=1)
def names() -> frozenset[str]:
    """The names of all time zones that there are."""
    return frozenset(zoneinfo.available_timezones())


def time_zone(name: str) -> ZoneInfo | None:
    """The time zone of that name; None is UTC.

    Raises:
        ValueError: there is none.
    """
    if name not in names():
        raise ValueError("must be the name of a time zone, such as Europe/Berlin or Asia/Kolkata")
    return None if name in _UTC else ZoneInfo(name)


class Piece(NamedTuple):
    """A part of a bucket: from ``start`` to before ``stop``, of the bucket with that ``number``."""

    start: int
    stop: int
    number: int


@dataclass(frozen=True)
class Buckets:
    """Buckets that follow each other.

    Attributes:
        pieces: of all of them, in order.
        count: of the buckets.
    """

    pieces: tuple[Piece, ...]
    count: int

    @property
    def start(self) -> int:
        """The first instant of all."""
        return self.pieces[0].start

    @property
    def stop(self) -> int:
        """The end of the last one."""
        return self.pieces[-1].stop

    @cached_property
    def starts(self) -> list[int]:
        """The first instant of each."""
        return [piece.start for piece in self._ends(reversed(self.pieces))]

    @cached_property
    def stops(self) -> list[int]:
        """The end of each."""
        return [piece.stop for piece in self._ends(self.pieces)]

    @property
    def whole(self) -> tuple[Piece, ...]:
        """The time of all of them together, as one bucket."""
        joined: list[Piece] = []
        for start, stop, _ in self.pieces:
            if joined and joined[-1].stop == start:
                joined[-1] = Piece(joined[-1].start, stop, 0)
            else:
                joined.append(Piece(start, stop, 0))
        return tuple(joined)

    def last(self, count: int) -> Buckets:
        """The last ``count`` of them; all if there are fewer."""
        dropped = max(0, self.count - count)
        kept = (p._replace(number=p.number - dropped) for p in self.pieces if p.number >= dropped)
        return Buckets(tuple(kept), self.count - dropped)

    def until(self, moment: int) -> Buckets:
        """What of them is earlier than ``moment``; the last one may be a part of a bucket."""
        kept = [p._replace(stop=min(p.stop, moment)) for p in self.pieces if p.start < moment]
        return Buckets(tuple(kept), 1 + max((piece.number for piece in kept), default=-1))

    def _ends(self, pieces: Iterator[Piece] | tuple[Piece, ...]) -> list[Piece]:
        """Of each bucket the one of ``pieces`` that comes last."""
        found: dict[int, Piece] = {piece.number: piece for piece in pieces}
        return [found[number] for number in range(self.count)]


class Calendar:
    """The buckets of one resolution in one time zone.

    Args:
        resolution: of the buckets.
        zone: whose clocks show them; None is UTC.
    """

    def __init__(self, resolution: Resolution, zone: ZoneInfo | None = None) -> None:
        self.resolution = resolution
        self.zone = zone
        # Clocks that are put back make an hour two, and a day a longer one.
        self._splits = resolution.width <= HOUR

    def floor(self, moment: float) -> int:
        """The start of the bucket that ``moment`` is in."""
        if self.zone is None:
            return self._start(self._label(math.floor(moment)))
        return self._of(math.floor(moment), math.floor(moment)).start

    def after(self, moment: float) -> int:
        """The end of the bucket that ``moment`` is in."""
        if self.zone is None:
            return self._start(self._label(math.floor(moment)) + 1)
        return self._of(math.floor(moment), math.floor(moment)).stop

    def between(self, start: float, stop: float, most: int) -> Buckets:
        """All the buckets that have an instant between ``start`` and before ``stop``; whole ones.

        Raises:
            TooManyBuckets: there are more than ``most``.
        """
        first, last = math.floor(start), math.ceil(stop) - 1
        if last < first:
            return Buckets((), 0)
        # The shortest are the months of 28 days, and hours that clocks cut off, which are rare.
        if (last - first) / self.resolution.width > 2 * most:
            raise TooManyBuckets
        buckets = self._of(first, last)
        if buckets.count > most:
            raise TooManyBuckets
        return buckets

    def before(self, buckets: Buckets) -> Buckets:
        """As many buckets as ``buckets`` has, just before them; fewer at the beginning of 1970."""
        span = buckets.stop - buckets.start
        # Months differ in length: take some more than needed, and keep the last ones.
        first = buckets.start - span - span // 10 - 2 * self.resolution.width
        if buckets.start <= 0:
            return Buckets((), 0)
        return self._of(max(0, first), buckets.start - 1).last(buckets.count)

    def as_far(self, moment: int, buckets: Buckets, others: Buckets) -> int:
        """When clocks have come as far through ``others`` as through ``buckets`` at ``moment``.

        It is in the bucket of the same number, of which there may be less: not all months are of
        one length.
        """
        number = next(p.number for p in reversed(buckets.pieces) if p.start < moment)
        passed = self._wall(moment) - self._wall(buckets.starts[number])
        found = self._instant(self._wall(others.starts[number]) + passed)
        return min(found, others.stops[number])

    def year_before(self, buckets: Buckets) -> Buckets:
        """Those of the same dates, or weeks, one year earlier; none at the beginning of 1970."""
        start, stop = map(self.year_earlier, (buckets.start, buckets.stop))
        return Buckets((), 0) if start < 0 else self._of(start, stop - 1)

    def year_earlier(self, moment: int) -> int:
        """The same date, or day of the week, and time of day one year before ``moment``."""
        width = self.resolution.width
        whole_weeks = not self.resolution.months and width > DAY
        step = relativedelta(days=round(365 * DAY / width) * width // DAY)
        if not whole_weeks:
            step = relativedelta(years=1)
        return math.floor((datetime.fromtimestamp(moment, self.zone or UTC) - step).timestamp())

    def _of(self, first: int, last: int) -> Buckets:
        """The buckets of the instants from ``first`` to ``last``."""
        pieces: list[Piece] = []
        if self._splits:
            # A window that is wide enough for whole pieces at both ends.
            window = first - self.resolution.width, last + self.resolution.width + 1
            for start, stop, _ in self._pieces(*window):
                if start <= last and stop > first:
                    pieces.append(Piece(start, stop, len(pieces)))
            return Buckets(tuple(pieces), len(pieces))
        numbers: dict[int, int] = {}
        low, high = self._label_at(first), self._label_at(last)
        # No clock is a day away from UTC.
        margin = 0 if self.zone is None else DAY
        window = self._start(low) - margin, self._start(high + 1) + margin
        for start, stop, label in self._pieces(*window):
            if low <= label <= high:
                pieces.append(Piece(start, stop, numbers.setdefault(label, len(numbers))))
        return Buckets(tuple(pieces), len(numbers))

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The pieces of time between two instants of one label each: start, stop, label."""
        for start, stop, offset in spans(self.zone, begin, end):
            label = self._label(start + offset)
            while start < stop:
                border = min(stop, self._start(label + 1) - offset)
                yield start, border, label
                start, label = border, label + 1

    def _label_at(self, instant: int) -> int:
        return self._label(self._wall(instant))

    def _wall(self, instant: int) -> int:
        """What clocks show: seconds, as if they were UTC."""
        return instant + (0 if self.zone is None else _offset(self.zone, instant))

    def _instant(self, wall: int) -> int:
        """When clocks show ``wall``, for the first time."""
        shown = datetime.fromtimestamp(wall, UTC).replace(tzinfo=self.zone or UTC)
        return int(shown.timestamp())

    def _label(self, wall: int) -> int:
        """The number of the bucket in which clocks show ``wall``: seconds, as if they were UTC."""
        resolution = self.resolution
        if not resolution.months:
            return (wall - resolution.offset) // resolution.width
        day = date.fromordinal(wall // DAY + _EPOCH_DAY)
        return (day.year * 12 + day.month - 1) // resolution.months

    def _start(self, label: int) -> int:
        """What clocks show at the start of a bucket."""
        resolution = self.resolution
        if not resolution.months:
            return label * resolution.width + resolution.offset
        year, month = divmod(label * resolution.months, 12)
        if year > date.max.year:
            return (date.max.toordinal() + 1 - _EPOCH_DAY) * DAY
        return (date(year, month + 1, 1).toordinal() - _EPOCH_DAY) * DAY


def spans(zone: ZoneInfo | None, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The spans between two instants in which the clocks of ``zone`` are not changed.

    Each is a start, a stop, and the seconds by which clocks are ahead of UTC.
    """
    if zone is None:
        yield begin, end, 0
        return
    start, offset = begin, _offset(zone, begin)
    for year in range(_year(begin), _year(end) + 1):
        for instant, following in _changes(zone, year):
            if begin < instant < end:
                yield start, instant, offset
                start, offset = instant, following
    yield start, end, offset


@lru_cache(maxsize=10_000)
def _changes(zone: ZoneInfo, year: int) -> tuple[tuple[int, int], ...]:
    """When the clocks of ``zone`` are changed in a year of UTC, and how far ahead they are then.

    The database of time zones has no two changes in one week, so none hides between two days.
    """
    found = []
    begin, end = ((date(y, 1, 1).toordinal() - _EPOCH_DAY) * DAY for y in (year, year + 1))
    before = _offset(zone, begin - 1)
    for day in range(begin, end + 1, DAY):
        low, high = day - DAY, min(day, end - 1)
        following = _offset(zone, high)
        if following == before:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
        found.append((high, following))
        before = following
    return tuple(found)


def _offset(zone: ZoneInfo, instant: int) -> int:
    """By how many seconds the clocks of ``zone`` are ahead of UTC."""
    offset = datetime.fromtimestamp(instant, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def _year(instant: int) -> int:
    return date.fromordinal(instant // DAY + _EPOCH_DAY).year
