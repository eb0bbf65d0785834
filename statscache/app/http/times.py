"""Times as people write them: UNIX seconds, ISO 8601, or relative to the present.

A relative time is not a number until it is known what the present is rounded down to: see
:class:`~statscache.app.state.steps.Steps`. ``now`` alone is the end of what is open, wherever it
stands, so that ranges that follow each other add up. Dates, and days, months and years before the
present, are those of a time zone; of UTC where a query names none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from dateutil.relativedelta import relativedelta

EARLIEST = 0.0
LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""The times that every database and language can express, in UNIX seconds."""

LONGEST = 64
"""Characters of a time; more are a mistake."""

EXAMPLES = "1440000000, 2015-08-19, 2015-08-19T16:00:00Z, 2015-08, -7d or now-12h"

_NUMBER = re.compile(r"[+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_YEAR = re.compile(r"(?:19[7-9][0-9]|[2-9][0-9]{3})")
_DATE = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2})"
    r"(?:[Tt ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
    r"(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    # A plus sign that was not escaped arrives as a blank.
    r"(?P<zone>[Zz]|[-+ ][0-9]{2}:?[0-9]{2})?)?)?"
)
_RELATIVE = re.compile(r"now|(?:now)?(?:-[0-9]{1,9}[smhdwMy]){1,8}")
PATTERN = "^(?:{})$".format(
    "|".join(re.sub(r"\?P<[a-z]+>", "?:", one.pattern) for one in (_RELATIVE, _NUMBER, _DATE))
)
"""What all of them look like, for JSON schemas; whether there is such a time, is another matter."""

_PART = re.compile(r"-([0-9]+)([smhdwMy])")

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DAYS = {"d": 1, "w": 7}
_MONTHS = {"M": 1, "y": 12}


@dataclass(frozen=True)
class Time:
    """A time of a query.

    Attributes:
        moment: UNIX seconds, of an absolute time; None of a relative one.
        seconds: before the present, of a relative one,
        days: and calendar days,
        months: and calendar months before it.
        is_local: whether it is a date or time without a zone, ``moment`` being what it is in UTC.
        is_now: whether it is ``now``, which is later than ``-0d``.
    """

    moment: float | None = None
    seconds: int = 0
    days: int = 0
    months: int = 0
    is_local: bool = False
    is_now: bool = False

    @property
    def is_relative(self) -> bool:
        """Whether it depends on the present."""
        return self.moment is None

    def at(self, now: float, zone: tzinfo | None = None, *, end: float | None = None) -> float:
        """UNIX seconds; never earlier than 1970.

        Args:
            now: the present, rounded down.
            zone: that of dates and days; None is UTC.
            end: of what is open at present; None where nothing is rounded.
        """
        if self.is_now and end is not None:
            return end
        if self.moment is not None:
            if not self.is_local or zone is None:
                return self.moment
            shown = datetime.fromtimestamp(self.moment, UTC)
            return max(EARLIEST, shown.replace(tzinfo=zone).timestamp())
        moment = now
        if self.months or self.days:
            try:
                present = datetime.fromtimestamp(now, zone or UTC)
                then = present - relativedelta(months=self.months, days=self.days)
            except (ValueError, OverflowError):
                return EARLIEST
            moment = then.timestamp()
        return max(EARLIEST, moment - self.seconds)


NOW = Time(is_now=True)


def parse(text: str) -> Time:
    """The time that ``text`` means.

    Four digits from 1970 on are a year, any other number is UNIX seconds. A month or a year is its
    first instant. A date or time without a zone is local, see :class:`Time`.

    Raises:
        ValueError: it means none, or one before 1970 or after 9999; the text says what to write.
    """
    if len(text) > LONGEST:
        raise ValueError(f"must be a time such as {EXAMPLES}, of {LONGEST} characters at most")
    if text == "now":
        return NOW
    if _RELATIVE.fullmatch(text):
        return _relative(text)
    is_local = False
    if _YEAR.fullmatch(text):
        moment, is_local = datetime(int(text), 1, 1, tzinfo=UTC).timestamp(), True
    elif _NUMBER.fullmatch(text):
        moment = float(text)
    elif match := _DATE.fullmatch(text):
        moment, is_local = _calendar(text, match), match["zone"] is None
    else:
        raise ValueError(f"must be a time such as {EXAMPLES}, not {text!r:.80}")
    if not EARLIEST <= moment <= LATEST:
        raise ValueError(
            f"must be a time from 1970 to 9999, in seconds and not milliseconds, not {text!r:.80}"
        )
    return Time(moment, is_local=is_local)


def _relative(text: str) -> Time:
    seconds = days = months = 0
    for amount, unit in _PART.findall(text):
        seconds += int(amount) * _SECONDS.get(unit, 0)
        days += int(amount) * _DAYS.get(unit, 0)
        months += int(amount) * _MONTHS.get(unit, 0)
    return Time(None, seconds, days, months)


def _calendar(text: str, match: re.Match[str]) -> float:
    number = {name: int(match[name] or 0) for name in ("hour", "minute", "second")}
    try:
        moment = datetime(
            int(match["year"]), int(match["month"]), int(match["day"] or 1), **number, tzinfo=UTC
        )
        zone = match["zone"]
        if zone and zone not in "Zz":
            sign = -1 if zone[0] == "-" else 1
            hours, minutes = int(zone[1:3]), int(zone[-2:])
            if minutes > 59:
                raise ValueError("minutes of a zone")
            offset = timezone(sign * timedelta(hours=hours, minutes=minutes))
            moment = moment.replace(tzinfo=offset)
        seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError):
        raise ValueError(f"is a date or time that there is not: {text!r:.80}") from None
    return seconds + float(f"0.{match['fraction'] or 0}")
