"""Times as people write them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statscache.app.http import times
from statscache.app.http.times import EARLIEST, LATEST, Time
from statscache.app.state.steps import Every
from tests.support.messages import NOON


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "1970-01-01T00:00:00Z"),
        ("1440000000", "2015-08-19T16:00:00Z"),
        ("+1440000000.25", "2015-08-19T16:00:00.250Z"),
        ("1.44e9", "2015-08-19T16:00:00Z"),
        ("2015", "2015-01-01T00:00:00Z"),
        ("1970", "1970-01-01T00:00:00Z"),
        ("1969", "1970-01-01T00:32:49Z"),
        ("2015-08", "2015-08-01T00:00:00Z"),
        ("2015-08-19", "2015-08-19T00:00:00Z"),
        ("2016-02-29", "2016-02-29T00:00:00Z"),
        ("2015-08-19T16:00", "2015-08-19T16:00:00Z"),
        ("2015-08-19 16:00:01", "2015-08-19T16:00:01Z"),
        ("2015-08-19T16:00:01.5Z", "2015-08-19T16:00:01.500Z"),
        ("2015-08-19t16:00:01,5z", "2015-08-19T16:00:01.500Z"),
        ("2015-08-19T16:00:00+02:00", "2015-08-19T14:00:00Z"),
        ("2015-08-19T16:00:00 05:45", "2015-08-19T10:15:00Z"),
        ("2015-08-19T16:00:00-0330", "2015-08-19T19:30:00Z"),
        ("9999", "9999-01-01T00:00:00Z"),
    ],
)
def test_absolute_times(text: str, expected: str) -> None:
    time = times.parse(text)
    assert not time.is_relative
    assert time.at(0) == time.at(NOON) == seconds(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2023-11-15T12:00:00Z"),
        ("-15s", "2023-11-15T11:59:45Z"),
        ("-5m", "2023-11-15T11:55:00Z"),
        ("-12h", "2023-11-15T00:00:00Z"),
        ("-7d", "2023-11-08T12:00:00Z"),
        ("now-7d", "2023-11-08T12:00:00Z"),
        ("-2w", "2023-11-01T12:00:00Z"),
        ("-1M", "2023-10-15T12:00:00Z"),
        ("-9M", "2023-02-15T12:00:00Z"),
        ("-1y", "2022-11-15T12:00:00Z"),
        ("now-1d-12h", "2023-11-14T00:00:00Z"),
        ("-500y", "1970-01-01T00:00:00Z"),
        ("-999999999y", "1970-01-01T00:00:00Z"),
        ("-999999999d-999999999d", "1970-01-01T00:00:00Z"),
        ("-999999999s", "1992-03-08T10:13:21Z"),
    ],
)
def test_relative_times(text: str, expected: str) -> None:
    time = times.parse(text)
    assert time.is_relative
    assert time.at(NOON) == seconds(expected)


def test_months_end_with_their_last_day() -> None:
    assert times.parse("-1M").at(seconds("2023-03-31T10:00:00Z")) == seconds("2023-02-28T10:00:00Z")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "yesterday",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1e400",
        "1e999",
        "-1",
        "1_0",
        "0x10",
        "\uff11",
        "1440000000000",  # milliseconds
        "10000-01-01",
        "1969-12-31",
        "1969-12-31T23:59:59Z",
        "2015-13",
        "2015-00",
        "2015-02-29",
        "2015-08-19T24:00",
        "2015-08-19T16:60",
        "2015-08-19T16:00:61",
        "2015-08-19T16:00+25:00",
        "2015-08-19T16:00+02:99",
        "2015-8-1",
        "2015-08-19Z",
        "now+1d",
        "+7d",
        "7d",
        "-7",
        "-d",
        "-7days",
        "-7 d",
        "-1.5h",
        "-9999999999s",
        "now-",
        "NOW",
        "\n2015",
        "2015\n",
        "\0",
        "9" * 10_000,
        "-1d" * 9,
        "1" + "0" * 63,
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|that there is not") as refused:
        times.parse(text)
    assert len(str(refused.value)) < 300


def test_milliseconds_are_told_apart_from_nonsense() -> None:
    with pytest.raises(ValueError, match="milliseconds"):
        times.parse("1440000000000")


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_iso_times_of_python_are_understood(moment: datetime) -> None:
    assert times.parse(moment.isoformat()).at(0) == pytest.approx(moment.timestamp(), abs=1e-3)


@given(st.text(max_size=80) | st.from_regex(r"[-+0-9.eETZnow smhdwMy:]{1,40}", fullmatch=True))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        time = times.parse(text)
    except ValueError:
        return
    moment = time.at(NOON)
    assert math.isfinite(moment)
    assert EARLIEST <= moment <= LATEST


@given(
    st.floats(0, 4e9),
    st.integers(1, 2_000_000),
    st.integers(0, 1_000_000),
)
def test_steps_are_next_to_each_other(moment: float, width: int, offset: int) -> None:
    steps = Every(width, offset)
    start, stop = steps.floor(moment), steps.after(moment)
    assert start <= moment < stop == start + width
    assert (start - offset) % width == 0
    assert steps.floor(start) == start
    assert steps.after(start) == stop


def test_local_times_are_those_of_a_zone() -> None:
    zone = ZoneInfo("Europe/Prague")
    assert times.parse("2015-08-19").at(0, zone) == seconds("2015-08-19T00:00:00+02:00")
    assert times.parse("2015-08-19T00:00Z").at(0, zone) == seconds("2015-08-19T00:00:00Z")
    # A day before the change of clocks was 25 hours before.
    after = seconds("2023-10-29T12:00:00+01:00")
    assert times.parse("-1d").at(after, zone) == after - timedelta(hours=25).total_seconds()
    assert times.parse("-24h").at(after, zone) == after - timedelta(hours=24).total_seconds()


def test_a_time_is_a_value() -> None:
    assert Time(5.0) == times.parse("5")
    assert times.parse("-7d") == times.parse("now-7d")
