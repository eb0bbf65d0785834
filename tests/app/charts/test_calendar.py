"""Buckets of time in time zones: those of a naive look at the clock, at every edge."""

from __future__ import annotations

import itertools
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from statscache.app.charts import calendar
from statscache.app.charts.calendar import Calendar, TooManyBuckets
from statscache.app.http import times
from tests.support.charts import label, local

HOUR, DAY = 3600, 86_400
ODD = (
    "Africa/Casablanca",  # clocks are changed around Ramadan
    "Africa/Monrovia",  # 44 minutes and 30 seconds behind, until 1972
    "America/Havana",  # midnight comes twice
    "America/New_York",
    "America/Santiago",  # midnight does not come
    "America/Sao_Paulo",
    "America/St_Johns",  # clocks were changed at one minute past midnight
    "Antarctica/Troll",  # by two hours
    "Asia/Kathmandu",  # 5:45; 5:30 until 1986
    "Asia/Kolkata",
    "Australia/Eucla",  # 8:45
    "Australia/Lord_Howe",  # by half an hour
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",  # there was no 2011-12-30
    "Pacific/Chatham",  # 12:45 and 13:45
    "Pacific/Kwajalein",  # there was no 1993-08-21
    "UTC",
)
ZONE_NAMES = st.sampled_from(ODD) | st.sampled_from(sorted(calendar.names()))
MOMENTS = st.integers(0, int(datetime(2045, 1, 1, tzinfo=UTC).timestamp()))
NAMED = calendar.resolutions([1])
RESOLUTIONS = ("15m", "1h", "6h", "1d", "week", "month", "year")


def calendar_of(resolution: str, zone: str = "UTC") -> Calendar:
    return Calendar(NAMED[resolution], calendar.time_zone(zone))


@example(zone="America/St_Johns", moment=1_130_038_200, resolution="1d", span=1)
@example(zone="America/St_Johns", moment=1_130_038_200, resolution="1h", span=2 * HOUR)
@example(zone="Pacific/Apia", moment=1_325_239_200, resolution="1d", span=3 * DAY)
@example(zone="Australia/Lord_Howe", moment=1_459_609_200, resolution="1h", span=DAY)
@given(
    zone=ZONE_NAMES,
    moment=MOMENTS,
    resolution=st.sampled_from(RESOLUTIONS),
    span=st.sampled_from([1, 900, HOUR, DAY, 3 * DAY, 40 * DAY, 400 * DAY]),
)
def test_buckets_are_what_clocks_show(zone: str, moment: int, resolution: str, span: int) -> None:
    span = min(span, 1000 * NAMED[resolution].width)
    buckets = calendar_of(resolution, zone).between(moment, moment + span, 10_000)
    pieces = buckets.pieces
    # All the instants that were asked for are in one piece each, in order.
    assert pieces[0].start <= moment
    assert pieces[-1].stop >= moment + span
    for piece, following in itertools.pairwise(pieces):
        assert piece.start < piece.stop <= following.start
        if piece.stop < following.start:
            # What lies between belongs to a bucket that was not asked for.
            assert resolution not in ("15m", "1h")
            assert not moment <= piece.stop < moment + span
    # Each piece shows one label from its first to its last instant, each bucket another one.
    labels: dict[Any, int] = {}
    for piece in pieces:
        first = label(piece.start, resolution, zone)
        middle = (piece.start + piece.stop) // 2
        assert label(middle, resolution, zone) == label(piece.stop - 1, resolution, zone) == first
        assert labels.setdefault(first, piece.number) == piece.number
    assert sorted(labels.values()) == list(range(buckets.count))
    # They are whole: just before and after there is another one.
    for outside in (buckets.start - 1, buckets.stop):
        assert label(outside, resolution, zone) not in labels
    assert buckets.starts == sorted(buckets.starts)


@given(zone=ZONE_NAMES, moment=MOMENTS, resolution=st.sampled_from(RESOLUTIONS))
def test_floor_and_after_are_the_ends_of_one_bucket(
    zone: str, moment: int, resolution: str
) -> None:
    found = calendar_of(resolution, zone)
    buckets = found.between(moment + 0.5, moment + 1, 1)
    assert (found.floor(moment + 0.5), found.after(moment + 0.5)) == (buckets.start, buckets.stop)
    assert found.floor(moment) <= moment < found.after(moment)


def hours_of_days(zone: str, start: str, days: int) -> list[float]:
    begin = datetime.fromisoformat(start).replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()
    buckets = calendar_of("1d", zone).between(begin, begin + days * DAY - 2 * HOUR, 100)
    return [
        sum(p.stop - p.start for p in buckets.pieces if p.number == n) / HOUR
        for n in range(buckets.count)
    ]


def test_days_are_as_long_as_they_were() -> None:
    assert hours_of_days("Europe/Berlin", "2023-03-25", 3) == [24, 23, 24]
    assert hours_of_days("Europe/Berlin", "2023-10-28", 3) == [24, 25, 24]
    assert hours_of_days("Australia/Lord_Howe", "2023-10-01", 1) == [23.5]
    assert hours_of_days("Australia/Lord_Howe", "2023-04-02", 1) == [24.5]
    assert hours_of_days("Antarctica/Troll", "2023-03-26", 1) == [22]


def test_a_day_that_was_skipped_has_no_bucket() -> None:
    start, stop = (datetime(2011, 12, d, 12, tzinfo=UTC).timestamp() for d in (28, 31))
    buckets = calendar_of("1d", "Pacific/Apia").between(start, stop, 100)
    assert [local(moment, "Pacific/Apia").date() for moment in buckets.starts] == [
        date(2011, 12, 28),
        date(2011, 12, 29),
        date(2011, 12, 31),
        date(2012, 1, 1),
    ]


def test_a_day_that_comes_back_is_one_bucket_of_two_pieces() -> None:
    # At 0:01 of Sunday clocks were put back to 23:01 of Saturday.
    noon = datetime(2005, 10, 30, 12, tzinfo=zoneinfo.ZoneInfo("America/St_Johns")).timestamp()
    sunday = calendar_of("1d", "America/St_Johns").between(noon, noon + 1, 1)
    assert [piece.number for piece in sunday.pieces] == [0, 0]
    assert [piece.stop - piece.start for piece in sunday.pieces] == [60, DAY]
    both = calendar_of("1d", "America/St_Johns").between(noon - DAY, noon + 1, 2)
    assert [piece.number for piece in both.pieces] == [0, 1, 0, 1]
    assert both.whole == ((both.start, both.stop, 0),)


def test_an_hour_that_comes_twice_is_two_buckets() -> None:
    start = datetime(2023, 10, 29, 0, tzinfo=UTC).timestamp()
    buckets = calendar_of("1h", "Europe/Berlin").between(start, start + 2 * HOUR, 10)
    assert [local(moment, "Europe/Berlin").hour for moment in buckets.starts] == [2, 2]


@given(
    zone=ZONE_NAMES,
    moment=MOMENTS,
    resolution=st.sampled_from(RESOLUTIONS),
    count=st.integers(1, 20),
)
def test_the_buckets_before(zone: str, moment: int, resolution: str, count: int) -> None:
    found = calendar_of(resolution, zone)
    moment += 25 * 366 * DAY  # so that there are some
    width = NAMED[resolution].width
    buckets = found.between(moment, moment + count * width, 1000)
    earlier = found.before(buckets)
    assert earlier.count == buckets.count
    together = found.between(earlier.start, buckets.stop, 2000)
    assert together.starts == earlier.starts + buckets.starts


def test_nothing_is_before_the_beginning() -> None:
    buckets = calendar_of("1d").between(0, 5 * DAY, 10)
    assert calendar_of("1d").before(buckets).count == 0
    later = calendar_of("1d").between(2 * DAY, 5 * DAY, 10)
    assert calendar_of("1d").before(later).starts == [0, DAY]


def test_too_many_are_refused_before_they_are_laid() -> None:
    with pytest.raises(TooManyBuckets):
        calendar_of("1s").between(0, 200_000_000_000, 10_000)
    with pytest.raises(TooManyBuckets):
        calendar_of("1d").between(0, 11 * DAY, 10)
    assert calendar_of("1d").between(0, 10 * DAY, 10).count == 10
    assert calendar_of("year").between(0, 253_402_214_400, 10_000).count == 8030
    assert calendar_of("1d").between(DAY, DAY, 10).count == 0


def test_resolutions() -> None:
    calendar_units = ["week", "month", "year"]
    assert list(calendar.resolutions([900, DAY])) == [
        *("15m", "30m", "1h", "2h", "3h", "6h", "12h", "1d"),
        *calendar_units,
    ]
    assert list(calendar.resolutions([DAY])) == ["1d", *calendar_units]
    assert list(calendar.resolutions([7 * HOUR])) == ["7h"]
    assert list(calendar.resolutions([7 * DAY])) == ["week"]
    assert list(calendar.resolutions([7 * DAY, 14 * DAY])) == ["week", "14d"]
    assert calendar.resolutions([90])["90s"].width == 90


@pytest.mark.parametrize(
    "name", ["", "Berlin", "../../etc/passwd", "europe/berlin", "\0", "America"]
)
def test_no_zones(name: str) -> None:
    with pytest.raises(ValueError, match="name of a time zone"):
        calendar.time_zone(name)


def test_weeks_begin_on_monday() -> None:
    moment = calendar_of("week", "Asia/Kolkata").floor(
        datetime(2023, 11, 15, tzinfo=UTC).timestamp()
    )
    start = local(moment, "Asia/Kolkata")
    assert (start.weekday(), start.time().isoformat()) == (0, "00:00:00")
    assert timedelta(seconds=calendar_of("week").after(0) - calendar_of("week").floor(0)).days == 7


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2015-10-01", "Asia/Kolkata", "2015-09-30T18:30:00Z"),
        ("2015-10", "America/New_York", "2015-10-01T04:00:00Z"),
        ("2015", "Asia/Kathmandu", "2014-12-31T18:15:00Z"),
        ("2015-10-01T12:00", "Europe/Berlin", "2015-10-01T10:00:00Z"),
        ("2015-10-01T12:00Z", "Europe/Berlin", "2015-10-01T12:00:00Z"),
        ("2015-10-01T12:00-01:00", "Europe/Berlin", "2015-10-01T13:00:00Z"),
        ("1443700800", "Europe/Berlin", "2015-10-01T12:00:00Z"),
        # The present is the midnight of 2023-03-28 in Berlin, two days after the clocks went on.
        ("now", "Europe/Berlin", "2023-03-27T22:00:00Z"),
        ("-2d", "Europe/Berlin", "2023-03-25T23:00:00Z"),
        ("-48h", "Europe/Berlin", "2023-03-25T22:00:00Z"),
        ("-1w", "Europe/Berlin", "2023-03-20T23:00:00Z"),
        ("-1M", "Europe/Berlin", "2023-02-27T23:00:00Z"),
        ("-1y-1d-1h", "Europe/Berlin", "2022-03-26T22:00:00Z"),
        ("-2d", "UTC", "2023-03-25T22:00:00Z"),
    ],
)
def test_dates_and_days_are_those_of_the_zone(text: str, zone: str, expected: str) -> None:
    present = datetime(2023, 3, 27, 22, tzinfo=UTC).timestamp()
    moment = times.parse(text).at(present, calendar.time_zone(zone))
    assert datetime.fromtimestamp(moment, UTC) == datetime.fromisoformat(expected)


def test_no_time_is_before_1970() -> None:
    assert times.parse("1970").at(0, calendar.time_zone("Asia/Kolkata")) == 0
    assert times.parse("-999999999d").at(0, calendar.time_zone("Asia/Kolkata")) == 0
