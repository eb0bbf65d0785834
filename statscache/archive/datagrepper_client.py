"""Ask datagrepper for one page over HTTP; retry with backoff, and honour Retry-After.

How it behaves, found by running it:

- ``/v2/search`` takes a tenth of the time of ``/raw``. Its rows have fedora-messaging's shape.
- ``start`` and ``end`` are both inclusive, as UNIX seconds; ``start=0`` switches the window off.
- What it cannot do in a minute ends as 502, with a page of HTML.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3

from statscache import __version__
from statscache.archive.base import Window
from statscache.clock import Clock
from statscache.config import root_of_datagrepper
from statscache.errors import ArchiveUnavailable
from statscache.logs.recurring import Recurring
from statscache.times import unix_seconds

log = logging.getLogger(__name__)

_RESOLUTION = 1e-6
"""Seconds; its times are in microseconds."""

_OLD_FOR = 3600.0
"""Seconds after which a server without ``/v2/search`` is asked for it again."""

_TIME_TO_CONNECT = 10.0
_LONGEST_RETRY_AFTER = 300.0
_BACKOFF = 0.5
_LONGEST_BACKOFF = 30.0

# When a window is too much: a time-out counts twice, an error that may be transient once.
_TIMED_OUT = 2
_PERHAPS_TIMED_OUT = 1
_TOO_SLOW = 2
_TOO_SLOW_FOR_A_SECOND = 4


class TooMuch(Exception):
    """A window holds more than is to be asked for: ask for less."""


class TooSlow(TooMuch):
    """A window is more than the server can find in its time."""


@dataclass
class _Trouble:
    """Why there is no answer."""

    problem: str
    slowness: int = 0
    retry_after: str | None = None


class DatagrepperClient:
    """A datagrepper; threads may share it. Pickled, it is its configuration.

    Args:
        endpoint: its URL, to which ``v2/search`` and ``raw`` are added; it may be that of ``raw``.
        timeout: seconds to wait for an answer; the server's own limit is a minute.
        tries: how often one page is asked for.
        clock: by which it waits between two tries.

    Attributes:
        requests: how many questions were asked.
        waited: seconds that their answers took, pauses included.
    """

    def __init__(self, endpoint: str, timeout: float, tries: int, clock: Clock) -> None:
        self.endpoint = root_of_datagrepper(endpoint)
        self._timeout = timeout
        self._tries = tries
        self._clock = clock
        self._begin_unconnected()

    def _begin_unconnected(self) -> None:
        self.requests = 0
        self.waited = 0.0
        self._not_before = 0.0
        self._old_until = 0.0
        self._idle: list[requests.Session] = []
        self._lock = threading.Lock()
        self._troubles = Recurring(self._clock)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_idle", "_lock", "_troubles"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_unconnected()

    def describe(self) -> str:
        """Returns its address, without credentials."""
        return f"datagrepper at {self._without_credentials(self.endpoint)}"

    def close(self) -> None:
        """Close the connections, except those that are waiting for an answer."""
        while self._idle:
            self._idle.pop().close()

    def pause_for_luck(self) -> None:
        """Wait a moment: the order within a second is random, and may differ the next time."""
        self._clock.sleep(_BACKOFF * random.random())  # noqa: S311

    def ask(
        self,
        window: Window,
        filters: list[tuple[str, str]],
        page: int,
        rows_per_page: int,
        order: str = "asc",
    ) -> dict[str, Any]:
        """Returns one page, checked; asks again while the server is in trouble.

        Asks for the whole seconds that the window touches, so adjacent windows that share a second
        lose no message.

        Args:
            filters: further parameters, see :func:`statscache.archive.datagrepper.filters_of`.
            page: the first is 1.
            order: "asc" or "desc", by time.

        Returns the answer with ``raw_messages`` (a list), ``total`` and ``pages`` (numbers).

        Raises:
            TooSlow: the server hits its own time limit: ask for a shorter window.
            ArchiveUnavailable: it has not answered after several tries, or a retry cannot help.
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
        began = self._clock.monotonic()
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
                    raise TooSlow(f"{self.describe()} {answer.problem}")
                if attempt >= self._tries:
                    raise ArchiveUnavailable(f"{self.describe()} {answer.problem}")
                self._back_off(attempt, answer.retry_after)
        finally:
            with self._lock:
                self.waited += self._clock.monotonic() - began

    def _tell(self, trouble: _Trouble) -> None:
        """Log repeated trouble now: the retries of one page take minutes."""
        # Without what differs from question to question.
        if self._troubles.happened(trouble.problem.partition(": ")[0]):
            log.warning("%s %s; it is asked again", self.describe(), trouble.problem)

    def _try(
        self, parameters: list[tuple[str, str]], rows_per_page: int
    ) -> dict[str, Any] | _Trouble:
        """Returns one page, checked; asks for it once.

        Raises:
            ArchiveUnavailable: a retry cannot help.
        """
        is_old = self._clock.monotonic() < self._old_until
        response = self._get("raw" if is_old else "v2/search", parameters)
        if not is_old and isinstance(response, requests.Response) and response.status_code == 404:
            response = self._get("raw", parameters)
            if isinstance(response, requests.Response) and response.status_code == 200:
                log.info("%s has no /v2/search: /raw is used", self.describe())
                self._old_until = self._clock.monotonic() + _OLD_FOR
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
        """Honour Retry-After, received by any thread."""
        pause = self._not_before - self._clock.monotonic()
        if pause > 0:
            self._clock.sleep(pause)

    def _back_off(self, attempt: int, retry_after: str | None) -> None:
        if retry_after is not None:
            pause = min(_seconds(retry_after, self._clock.time()), _LONGEST_RETRY_AFTER)
            self._not_before = max(self._not_before, self._clock.monotonic() + pause)
        pause = min(_BACKOFF * 2.0 ** (attempt - 1), _LONGEST_BACKOFF)
        self._clock.sleep(pause * (0.5 + random.random()))  # noqa: S311

    def _without_credentials(self, text: str) -> str:
        """``text`` without the name and the password that the endpoint may have."""
        authority = self.endpoint.partition("://")[2].partition("/")[0]
        credentials, at, _ = authority.rpartition("@")
        return text.replace(credentials + at, "") if at else text


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


def _seconds(retry_after: str, now: float) -> float:
    """The header's value, which is a number of seconds or a date."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, unix_seconds(moment) - now)
