"""Schedules, as classic plugins use them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statscache.plugins import Schedule


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (timedelta(days=1), "1d"),
        (timedelta(hours=1), "1h"),
        (timedelta(minutes=1), "1m"),
        (timedelta(seconds=15), "15s"),
        (timedelta(days=1, hours=1, minutes=1, seconds=1), "1d1h1m1s"),
        (timedelta(weeks=1), "7d"),
        (timedelta(hours=25), "1d1h"),
        (timedelta(milliseconds=1500), "1.5s"),
    ],
)
def test_text(interval: timedelta, text: str) -> None:
    assert str(Schedule(interval)) == text


def test_last_and_next_are_around_now() -> None:
    schedule = Schedule(timedelta(hours=1), datetime(2015, 1, 1, 0, 30))
    now = datetime(2015, 6, 1, 12, 45)
    assert schedule.last(now) == datetime(2015, 6, 1, 12, 30)
    assert schedule.next(now) == datetime(2015, 6, 1, 13, 30)
    assert schedule.last(now=schedule.last(now)) == schedule.last(now)
    assert schedule.next(now=schedule.last(now)) == schedule.next(now)


def test_before_the_epoch() -> None:
    schedule = Schedule(timedelta(days=1), datetime(2015, 1, 1))
    assert schedule.last(datetime(2014, 12, 30, 5)) == datetime(2014, 12, 30)


def test_aware_times_are_converted() -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    schedule = Schedule(timedelta(days=1))
    assert schedule.next(datetime(2015, 1, 1, 3, tzinfo=india)) == datetime(2015, 1, 1, tzinfo=UTC)


def test_the_time_to_fire_is_within_the_interval() -> None:
    schedule = Schedule(timedelta(seconds=15), datetime(2015, 1, 1))
    assert timedelta(0) < schedule.time_to_fire() <= timedelta(seconds=15)
    assert schedule.time_to_fire(now=datetime(2015, 1, 1, 0, 0, 5)) == timedelta(seconds=10)
    assert schedule.time_to_fire(datetime(2015, 1, 1, 0, 0, 15)) == timedelta(seconds=15)
    assert 0 < float(schedule) <= 15


def test_the_parts_of_the_interval() -> None:
    schedule = Schedule(timedelta(days=2, hours=3, minutes=4, seconds=5))
    assert (schedule.days, schedule.hours, schedule.minutes, schedule.seconds) == (2, 3, 4, 5)
    assert schedule.__json__() == 2 * 86_400 + 3 * 3600 + 4 * 60 + 5
    assert Schedule(timedelta(milliseconds=1500)).__json__() == 1.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((15,), "the interval of a schedule must be a timedelta, not 15"),
        ((timedelta(1), "2015-01-01"), "the epoch of a schedule must be a datetime"),
    ],
)
def test_what_is_no_time_is_refused(arguments: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Schedule(*arguments)


@pytest.mark.parametrize("interval", [timedelta(0), timedelta(seconds=-1)])
def test_an_interval_is_longer_than_zero(interval: timedelta) -> None:
    with pytest.raises(ValueError, match="longer than zero"):
        Schedule(interval)


@given(
    st.timedeltas(timedelta(seconds=1), timedelta(days=400)),
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)),
)
def test_points_are_multiples_of_the_interval(interval: timedelta, now: datetime) -> None:
    schedule = Schedule(interval)
    last, following = schedule.last(now), schedule.next(now)
    assert last <= now < following == last + interval
    assert (last - schedule.epoch) % interval == timedelta(0)
