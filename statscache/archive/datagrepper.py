"""datagrepper, the archive of Fedora's bus, over HTTP.

What to know of it, all of it found by running it:

- ``/v2/search`` takes a tenth of the time of ``/raw``, and gives rows of fedora-messaging's shape.
- It pages by OFFSET, and counts for each page: deep pages are slow, windows of a few pages are not.
- Rows are ordered by time alone, in whole seconds. From one page to the next the order within a
  second may change, so that a row comes twice and another not at all, while ``count`` and ``total``
  agree: only the number of distinct rows tells.
- ``start`` and ``end`` are both inclusive, as UNIX seconds; ``start=0`` switches the window off.
- What it cannot do in a minute ends as 502, with a page of HTML.
"""

from __future__ import annotations

import json
import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3

from statscache import __version__
from statscache.archive.base import Archive, Slice, Window, distinct
from statscache.archive.rows import key_of, message_of
from statscache.config import root_of_datagrepper
from statscache.errors import ArchiveUnavailable, InvalidMessage
from statscache.logs.recurring import Recurring
from statscache.message import Message
from statscache.rejection import Rejection
from statscache.times import iso, unix_seconds
from statscache.topics import EVERYTHING, matcher

log = logging.getLogger(__name__)

ROWS_PER_PAGE = 100
"""The most that it gives; 0 would lift the limit, which is not ours to use."""

MOST_PAGES = 10
"""A window of more is split instead of paged."""

_RESOLUTION = 1e-6
"""Seconds; its times are in microseconds."""

_MICRO = 1_000_000

_LONGEST_FILTER = 2000
"""Characters of a query, which servers do not accept in any length."""

_OLD_FOR = 3600.0
"""Seconds after which a server that had no ``/v2/search`` is asked for it again."""

_INDEX_TOLERANCE = 1.0
"""Seconds by which the time in a message may differ from the one under which it is found."""

_TIME_TO_CONNECT = 10.0
_TRIES_OF_A_WINDOW = 2
_FRUITLESS_TRIES = 8
_LONGEST_RETRY_AFTER = 300.0
_BACKOFF = 0.5
_LONGEST_BACKOFF = 30.0
_GROWTH = 1.25

# What tells that a window is too much: a time-out at once, what may be a hiccup when repeated.
_TIMED_OUT = 2
_PERHAPS_TIMED_OUT = 1
_TOO_SLOW = 2
_TOO_SLOW_FOR_A_SECOND = 4


class _TooMuch(Exception):
    """A window holds more than is to be asked for: ask for less."""


class _TooSlow(_TooMuch):
    """A window is more than the server can find in its time."""


@dataclass
class _Trouble:
    """Why there is no answer."""

    problem: str
    slowness: int = 0
    retry_after: str | None = None


@dataclass
class _Found:
    """The rows of a window by what is unique in the archive.

    Attributes:
        total: how many it says there are.
        torn: whole seconds whose rows are on two pages, so that some may be on neither.
    """

    rows: dict[Any, Any] = field(default_factory=dict)
    total: int = 0
    torn: set[int] = field(default_factory=set)

    @property
    def missing(self) -> int:
        return max(0, self.total - len(self.rows))


class DatagrepperArchive(Archive):
    """A datagrepper at ``endpoint``; threads may share it.

    Args:
        endpoint: its URL, to which ``v2/search`` and ``raw`` are added; it may be that of ``raw``.
        timeout: seconds after which an answer is given up; its own limit is a minute.
        tries: how often one page is asked for.
        sleep: how to wait, for tests.

    Attributes:
        requests: how many questions were asked.
        waited: seconds that their answers took, pauses included.
    """

    target = 5 * ROWS_PER_PAGE

    def __init__(
        self,
        endpoint: str,
        timeout: float = 70.0,
        tries: int = 6,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = root_of_datagrepper(endpoint)
        self._timeout = timeout
        self._tries = tries
        self._sleep = sleep
        self._begin()

    def _begin(self) -> None:
        self.requests = 0
        self.waited = 0.0
        self._not_before = 0.0
        self._old_until = 0.0
        self._idle: list[requests.Session] = []
        self._lock = threading.Lock()
        self._troubles = Recurring()
        self._gaps = Recurring()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_idle", "_lock", "_troubles", "_gaps"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def describe(self) -> str:
        """Its address."""
        return f"datagrepper at {self._without_credentials(self.endpoint)}"

    def close(self) -> None:
        """Close the connections, except those that are waiting for an answer."""
        while self._idle:
            self._idle.pop().close()

    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        """All that it has of ``window``: see :meth:`Archive.fetch`."""
        wanted = matcher(topics)
        filters = _filters(topics)
        widest = self.widest
        while True:
            try:
                rows, missing = self._complete(window, filters)
                break
            except _TooMuch as error:
                if window.is_one_second:
                    # Nothing was learned about widths: it was too slow for any.
                    self.widest = widest
                    raise ArchiveUnavailable(str(error)) from error
                window = window.halves()[0]
                if isinstance(error, _TooSlow):
                    self.widest = max(1.0, window.stop - window.start)
            except ArchiveUnavailable:
                self.widest = widest
                raise
        if window.stop - window.start > self.widest - 1.0:
            self.widest *= _GROWTH
        if missing and self._gaps.happened("missing"):
            when = f"{iso(window.start)} to {iso(window.stop)}"
            log.error("%s does not give %d of what it has of %s", self.describe(), missing, when)
        found: list[Message] = []
        rejected: list[Rejection] = []
        for row in rows:
            try:
                message = message_of(row)
            except InvalidMessage as error:
                reason = f"{self.describe()}: {error}"
                rejected.append(Rejection.of_archive(json.dumps(row), reason))
                continue
            if not wanted(message.topic):
                continue
            if _is_of(window, message):
                found.append(message)
            elif not window.whole.start <= message.timestamp < window.whole.stop:
                reason = f"{self.describe()} has it at another time, near {iso(window.start)}"
                rejected.append(Rejection.of_archive(message.to_json(), reason))
        return Slice(window, distinct(found), rejected, missing)

    def newest_of(self, window: Window) -> float | None:
        """The time of its newest message of a window; None: it has none."""
        try:
            answer = self._ask(window, [], 1, 1, order="desc")
        except _TooSlow as error:
            if window.is_one_second:
                raise ArchiveUnavailable(str(error)) from error
            earlier, later = window.halves()
            found = self.newest_of(later)
            return self.newest_of(earlier) if found is None else found
        times = [when for _, when in map(key_of, answer["raw_messages"]) if when is not None]
        return max(times) / _MICRO if times else None

    def count(self, window: Window) -> int:
        """How many rows it says that it has of the whole seconds of a window."""
        try:
            return self._count(window, [])
        except _TooSlow as error:
            if window.is_one_second:
                raise ArchiveUnavailable(str(error)) from error
            return sum(map(self.count, window.halves()))

    def _complete(self, window: Window, filters: list[tuple[str, str]]) -> tuple[list[Any], int]:
        """The rows of a window, and how many are missing however often it is asked for.

        Raises:
            _TooMuch: there are more than :data:`MOST_PAGES`, or it takes too long.
        """
        if window.is_one_second:
            found = self._second(window, filters)
            return list(found.rows.values()), found.missing
        gathered: dict[Any, Any] = {}
        for attempt in range(_TRIES_OF_A_WINDOW):
            if attempt:
                self._pause_for_luck()
            found = self._page_through(window, filters)
            gathered |= found.rows
            explained = 0
            if len(gathered) < found.total and found.torn:
                for second in sorted(found.torn):
                    part = self._second(Window(second, second + 1.0), filters)
                    gathered |= part.rows
                    there = sum(
                        when is not None and when // _MICRO == second for _, when in gathered
                    )
                    explained += max(0, part.total - there)
                # Some of them may have come since.
                found.total = self._count(window, filters)
            missing = max(0, found.total - len(gathered))
            if missing <= explained:
                return list(gathered.values()), missing
        halves = [self._complete(half, filters) for half in window.halves()]
        return [row for rows, _ in halves for row in rows], sum(missing for _, missing in halves)

    def _second(self, window: Window, filters: list[tuple[str, str]]) -> _Found:
        """What is to be had of a second, whose rows have no order at all.

        Asked for again and again, they fall on other pages each time.
        """
        gathered = _Found()
        fruitless = 0
        while True:
            found = self._page_through(window, filters)
            is_fruitless = found.rows.keys() <= gathered.rows.keys()
            fruitless = fruitless + 1 if is_fruitless else 0
            gathered.rows |= found.rows
            gathered.total = found.total
            if not gathered.missing:
                return gathered
            enough = _FRUITLESS_TRIES if found.total > ROWS_PER_PAGE else _TRIES_OF_A_WINDOW
            if fruitless == enough:
                return gathered
            self._pause_for_luck()

    def _page_through(self, window: Window, filters: list[tuple[str, str]]) -> _Found:
        """All the pages of a window.

        Raises:
            _TooMuch: they are more than :data:`MOST_PAGES`, and it could be split.
        """
        found = _Found()
        whole = window.whole
        page = 1
        last = None
        while True:
            answer = self._ask(window, filters, page, ROWS_PER_PAGE)
            keys = [key_of(row) for row in answer["raw_messages"]]
            found.rows |= zip(keys, answer["raw_messages"], strict=True)
            found.total = answer["total"]
            seconds = [when // _MICRO for _, when in keys if when is not None]
            if seconds and seconds[0] == last and whole.start <= last < whole.stop:
                found.torn.add(last)
            last = seconds[-1] if seconds else None
            pages = answer["pages"]
            if pages > MOST_PAGES and not window.is_one_second:
                raise _TooMuch(f"{self.describe()} has {pages} pages of {iso(window.start)}")
            if page >= pages:
                return found
            page += 1

    def _count(self, window: Window, filters: list[tuple[str, str]]) -> int:
        """How many rows it says there are."""
        total: int = self._ask(window, filters, 1, 1)["total"]
        return total

    def _ask(
        self,
        window: Window,
        filters: list[tuple[str, str]],
        page: int,
        rows_per_page: int,
        order: str = "asc",
    ) -> dict[str, Any]:
        """One page, checked; asked for again and again while the server is in trouble.

        Of the whole seconds that the window touches, so that no message is in none of two windows
        that meet within a second.
        """
        parameters = [
            # 0 would be taken for no start at all.
            ("start", f"{max(window.whole.start, _RESOLUTION):.6f}"),
            ("end", f"{window.whole.stop - _RESOLUTION:.6f}"),
            ("order", order),
            ("page", str(page)),
            ("rows_per_page", str(rows_per_page)),
            *filters,
        ]
        enough = _TOO_SLOW_FOR_A_SECOND if window.is_one_second else _TOO_SLOW
        slowness = attempt = 0
        began = time.monotonic()
        try:
            while True:
                self._hold_off()
                answer = self._try(parameters, rows_per_page)
                if isinstance(answer, dict):
                    if self._troubles.ended():
                        log.info("%s answers again", self.describe())
                    return answer
                attempt += 1
                if attempt > 1 or answer.slowness == _TIMED_OUT:
                    self._tell(answer)
                slowness += answer.slowness
                if slowness >= enough:
                    raise _TooSlow(f"{self.describe()} {answer.problem}")
                if attempt >= self._tries:
                    raise ArchiveUnavailable(f"{self.describe()} {answer.problem}")
                self._back_off(attempt, answer.retry_after)
        finally:
            with self._lock:
                self.waited += time.monotonic() - began

    def _tell(self, trouble: _Trouble) -> None:
        """Say what is more than a hiccup: a question is given up after minutes only."""
        # Without what differs from question to question.
        if self._troubles.happened(trouble.problem.partition(": ")[0]):
            log.warning("%s %s; it is asked again", self.describe(), trouble.problem)

    def _try(
        self, parameters: list[tuple[str, str]], rows_per_page: int
    ) -> dict[str, Any] | _Trouble:
        """One page, checked; asked for once.

        Raises:
            ArchiveUnavailable: it is of no use to ask again.
        """
        is_old = time.monotonic() < self._old_until
        response = self._get("raw" if is_old else "v2/search", parameters)
        if not is_old and isinstance(response, requests.Response) and response.status_code == 404:
            response = self._get("raw", parameters)
            if isinstance(response, requests.Response) and response.status_code == 200:
                log.info("%s has no /v2/search: /raw is used", self.describe())
                self._old_until = time.monotonic() + _OLD_FOR
        if isinstance(response, _Trouble):
            return response
        status = response.status_code
        if status == 200:
            answer = _checked(response, rows_per_page)
            return answer or _Trouble("gave an answer that is not what it should be")
        problem = f"answers {status} {response.reason}"
        if status in (502, 504):
            return _Trouble(problem, _PERHAPS_TIMED_OUT, response.headers.get("Retry-After"))
        if status >= 500 or status in (408, 429):
            return _Trouble(problem, retry_after=response.headers.get("Retry-After"))
        what = "has the right name and password" if status in (401, 403) else "is its address"
        raise ArchiveUnavailable(
            f"{self.describe()} {problem}: see whether statscache.datagrepper.endpoint {what}"
        )

    def _get(self, path: str, parameters: list[tuple[str, str]]) -> requests.Response | _Trouble:
        with self._lock:
            self.requests += 1
            session = self._idle.pop() if self._idle else _session()
        try:
            timeout = (min(_TIME_TO_CONNECT, self._timeout), self._timeout)
            return session.get(self.endpoint + path, params=parameters, timeout=timeout)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            raise ArchiveUnavailable(
                f"{self.describe()} is no URL: see statscache.datagrepper.endpoint"
            ) from None
        except requests.RequestException as error:
            problem = self._without_credentials(str(error))
            if _has_timed_out(error):
                return _Trouble(f"does not answer: {problem}", _TIMED_OUT)
            return _Trouble(f"cannot be reached: {problem}")
        finally:
            self._idle.append(session)

    def _hold_off(self) -> None:
        """Wait while the server has asked, whichever thread it was that it has told."""
        pause = self._not_before - time.monotonic()
        if pause > 0:
            self._sleep(pause)

    def _back_off(self, attempt: int, retry_after: str | None) -> None:
        if retry_after is not None:
            pause = min(_seconds(retry_after), _LONGEST_RETRY_AFTER)
            self._not_before = max(self._not_before, time.monotonic() + pause)
        pause = min(_BACKOFF * 2.0 ** (attempt - 1), _LONGEST_BACKOFF)
        self._sleep(pause * (0.5 + random.random()))  # noqa: S311

    def _pause_for_luck(self) -> None:
        """The order within a second is by chance: let it fall differently."""
        self._sleep(_BACKOFF * random.random())  # noqa: S311

    def _without_credentials(self, text: str) -> str:
        """``text`` without the name and the password that the endpoint may have."""
        authority = self.endpoint.partition("://")[2].partition("/")[0]
        credentials, at, _ = authority.rpartition("@")
        return text.replace(credentials + at, "") if at else text


def _is_of(window: Window, message: Message) -> bool:
    """Whether ``window`` is where a message belongs that was found in its whole seconds."""
    start, stop = window.start, window.stop
    # No other window has what it has beyond an edge that was asked for as it is.
    if start == window.whole.start:
        start -= _INDEX_TOLERANCE
    if stop == window.whole.stop:
        stop += _INDEX_TOLERANCE
    return start <= message.timestamp < stop


def _session() -> requests.Session:
    session = requests.Session()
    session.headers["User-Agent"] = f"statscache/{__version__}"
    session.headers["Accept"] = "application/json"
    return session


def _has_timed_out(error: requests.RequestException) -> bool:
    """Whether it took too long to answer, not to be reached."""
    if isinstance(error, requests.ReadTimeout):
        return True
    # So it looks when only the rest of the answer does not come.
    return bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError)


def _checked(response: requests.Response, rows_per_page: int) -> dict[str, Any] | None:
    """The answer, if it is one; the header says nothing: it echoes what was accepted."""
    try:
        answer = response.json()
    except ValueError:
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("raw_messages"), list):
        return None
    if not isinstance(answer.get("total"), int):
        return None
    if not isinstance(answer.get("pages"), int):
        answer["pages"] = math.ceil(answer["total"] / rows_per_page)
    return answer


def _filters(topics: tuple[str, ...]) -> list[tuple[str, str]]:
    """The parameters that let the server give less than everything; never less than is wanted."""
    patterns = [topic.split(".") for topic in topics]
    if not any({"*", "#"} & set(words) for words in patterns):
        filters = [("topic", topic) for topic in topics]
        if sum(len(name) + len(value) + 2 for name, value in filters) <= _LONGEST_FILTER:
            return filters
    if all(_has_category(words) for words in patterns):
        categories = sorted({words[3] for words in patterns})
        if sum(len(category) + 10 for category in categories) <= _LONGEST_FILTER:
            return [("category", category) for category in categories]
    return []


def _has_category(words: list[str]) -> bool:
    """Whether all topics of a pattern are in the category that its fourth token names."""
    if len(words) < 4 or words[3] in ("*", "#") or "#" in words[:3]:
        return False
    # Topics of another bus, of which the archive takes the third one.
    return words[0] != "*" and not any("VirtualTopic" in word for word in words)


def _seconds(retry_after: str) -> float:
    """The header's value, which is a number of seconds or a date."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, unix_seconds(moment) - time.time())
