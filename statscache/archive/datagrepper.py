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

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from statscache import __version__
from statscache.archive.base import Archive, Slice, Window, distinct
from statscache.archive.rows import iso, message_of
from statscache.errors import ArchiveUnavailable, InvalidMessage
from statscache.message import Message
from statscache.rejections import Rejection
from statscache.topics import EVERYTHING, matcher

log = logging.getLogger(__name__)

ROWS_PER_PAGE = 100
"""The most that it gives; 0 would lift the limit, which is not ours to use."""

MOST_PAGES = 10
"""A window of more is split instead of paged."""

_INCLUSIVE = 1e-6
_TRIES_OF_A_WINDOW = 3
_TRIES_OF_A_SECOND = 8
_LONGEST_RETRY_AFTER = 300.0
_BACKOFF = 0.5
_LONGEST_BACKOFF = 30.0
_SECOND = 1.0


class _TooMuch(Exception):
    """A window holds more than is to be asked for, or than the server can find: ask for less."""


class DatagrepperArchive(Archive):
    """A datagrepper at ``endpoint``.

    Args:
        endpoint: its URL, to which ``v2/search`` and ``raw`` are added.
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
        self.endpoint = endpoint.rstrip("/") + "/"
        self._timeout = timeout
        self._tries = tries
        self._sleep = sleep
        self._is_old = False
        self._begin()

    def _begin(self) -> None:
        self.requests = 0
        self.waited = 0.0
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_local"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def describe(self) -> str:
        """Its address."""
        scheme, _, rest = self.endpoint.partition("://")
        return f"datagrepper at {scheme}://{rest.rpartition('@')[2]}"

    def close(self) -> None:
        """Close the connection of this thread."""
        session = getattr(self._local, "session", None)
        if session is not None:
            session.close()
            self._local = threading.local()

    def fetch(self, window: Window, topics: tuple[str, ...] = EVERYTHING) -> Slice:
        """All that it has of ``window``: see :meth:`Archive.fetch`."""
        wanted = matcher(topics)
        filters = _filters(topics)
        while True:
            try:
                answer = self._complete(window, filters)
            except _TooMuch as error:
                if window.stop - window.start <= _SECOND:
                    raise ArchiveUnavailable(str(error)) from error
                window = window.halves()[0]
            else:
                break
        found: list[Message] = []
        rejected: list[Rejection] = []
        rows, missing = answer
        for row in rows:
            try:
                message = message_of(row)
            except InvalidMessage as error:
                rejected.append(Rejection.of_frame(repr(row), f"{self.describe()}: {error}"))
                continue
            if window.start <= message.timestamp < window.stop and wanted(message.topic):
                found.append(message)
        return Slice(window, distinct(found), rejected, missing)

    def _complete(self, window: Window, filters: list[tuple[str, str]]) -> tuple[list[Any], int]:
        """The rows of a window, and how many are missing however often it is asked for."""
        is_short = window.stop - window.start <= _SECOND
        gathered: dict[Any, Any] = {}
        total = 0
        for attempt in range(_TRIES_OF_A_SECOND if is_short else _TRIES_OF_A_WINDOW):
            if attempt:
                # The order within a second is by chance: let it fall differently.
                self._sleep(_BACKOFF * random.random())  # noqa: S311
            rows, total = self._page_through(window, filters, None if is_short else MOST_PAGES)
            gathered |= rows
            if len(gathered) >= total:
                return list(gathered.values()), 0
        if is_short:
            missing = total - len(gathered)
            log.error(
                "%s did not give %d of %d messages of %s",
                self.describe(),
                missing,
                total,
                iso(window.start),
            )
            return list(gathered.values()), missing
        halves = [self._complete(half, filters) for half in window.halves()]
        return [row for rows, _ in halves for row in rows], sum(missing for _, missing in halves)

    def _page_through(
        self, window: Window, filters: list[tuple[str, str]], most_pages: int | None
    ) -> tuple[dict[Any, Any], int]:
        """The rows of all pages by what is unique in the archive, and how many it says there are.

        Raises:
            _TooMuch: there are more than ``most_pages``.
        """
        rows: dict[Any, Any] = {}
        page = 1
        while True:
            answer = self._ask(window, filters, page)
            rows |= {_key(row): row for row in answer["raw_messages"]}
            total: int = answer["total"]
            pages = math.ceil(total / ROWS_PER_PAGE)
            if most_pages is not None and pages > most_pages:
                raise _TooMuch(f"{self.describe()} has {pages} pages of {iso(window.start)}")
            if page >= pages:
                return rows, total
            page += 1

    def _ask(self, window: Window, filters: list[tuple[str, str]], page: int) -> dict[str, Any]:
        """One page, checked; asked for again and again while the server is in trouble."""
        parameters = [
            # 0 would be taken for no start at all.
            ("start", repr(max(window.start, _SECOND))),
            ("end", repr(window.stop - _INCLUSIVE)),
            ("order", "asc"),
            ("page", str(page)),
            ("rows_per_page", str(ROWS_PER_PAGE)),
            *filters,
        ]
        began = time.monotonic()
        problem = ""
        try:
            for attempt in range(self._tries):
                self.requests += 1
                try:
                    response = self._session().get(
                        self.endpoint + ("raw" if self._is_old else "v2/search"),
                        params=parameters,
                        timeout=self._timeout,
                    )
                except requests.Timeout as error:
                    raise _TooMuch(f"{self.describe()} does not answer: {error}") from error
                except requests.RequestException as error:
                    problem = f"cannot be reached: {error}"
                    self._pause(attempt, None)
                    continue
                if response.status_code == 404 and not self._is_old:
                    log.info("%s has no /v2/search: /raw is used", self.describe())
                    self._is_old = True
                    continue
                if response.status_code == 200:
                    answer = _checked(response)
                    if answer is not None:
                        return answer
                    problem = "gave an answer that is not what it should be"
                elif response.status_code in (502, 504) and attempt == 1:
                    # Twice: not a hiccup, but more than it can do in its minute.
                    raise _TooMuch(f"{self.describe()} answers {response.status_code}")
                elif response.status_code >= 500 or response.status_code in (408, 429):
                    problem = f"answers {response.status_code} {response.reason}"
                else:
                    raise ArchiveUnavailable(
                        f"{self.describe()} answers {response.status_code} {response.reason}: "
                        "see whether statscache.datagrepper.endpoint is its address"
                    )
                self._pause(attempt, response.headers.get("Retry-After"))
        finally:
            self.waited += time.monotonic() - began
        raise ArchiveUnavailable(f"{self.describe()} {problem}")

    def _pause(self, attempt: int, retry_after: str | None) -> None:
        if attempt + 1 >= self._tries:
            return
        pause = min(_BACKOFF * 2**attempt, _LONGEST_BACKOFF) * (0.5 + random.random())  # noqa: S311
        if retry_after is not None:
            pause = max(pause, min(_seconds(retry_after), _LONGEST_RETRY_AFTER))
        self._sleep(pause)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.headers["User-Agent"] = f"statscache/{__version__}"
            session.headers["Accept"] = "application/json"
        return session


def _checked(response: requests.Response) -> dict[str, Any] | None:
    """The answer, if it is one; the header says nothing: it echoes what was accepted."""
    try:
        answer = response.json()
    except ValueError:
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("raw_messages"), list):
        return None
    return answer if isinstance(answer.get("total"), int) else None


def _key(row: Any) -> Any:
    """What is unique in the archive: the id together with the time."""
    if not isinstance(row, dict):
        return repr(row)
    ident = row.get("id", row.get("msg_id"))
    when = row.get("sent_at", row.get("timestamp"))
    if ident is None:
        return repr(sorted(row.items(), key=str))
    return repr((ident, when))


def _filters(topics: tuple[str, ...]) -> list[tuple[str, str]]:
    """The parameters that let the server give less than everything; never less than is wanted."""
    patterns = [topic.split(".") for topic in topics]
    if not any({"*", "#"} & set(words) for words in patterns):
        return [("topic", topic) for topic in topics]
    if all(len(words) > 3 and not {"*", "#"} & set(words[3:4]) for words in patterns) and not any(
        "#" in words[:3] for words in patterns
    ):
        return [("category", category) for category in sorted({words[3] for words in patterns})]
    return []


def _seconds(retry_after: str) -> float:
    """The header's value, which is a number of seconds or a date."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
