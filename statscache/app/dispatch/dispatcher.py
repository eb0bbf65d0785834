"""From a request to a reply, alike for all routes.

:mod:`statscache.app.dispatch.route` tells the steps.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Table
from sqlalchemy.exc import ProgrammingError

from statscache.app.dispatch import canonical
from statscache.app.dispatch.cache import AnswerCache, Entry, Flights, Memo
from statscache.app.dispatch.plan import Plan, Planner
from statscache.app.dispatch.route import Answer, Route, Scope
from statscache.app.http import formats, reply
from statscache.app.http.client import NOBODY, Client
from statscache.app.http.problems import too_much
from statscache.app.http.reply import COMMON_HEADERS, Reply, Stream, StreamReply, Wait
from statscache.app.http.request import Request
from statscache.app.state.datasets import Served
from statscache.app.state.revisions import Revision, Snapshot
from statscache.app.state.transaction import Outdated, Reading, Torn
from statscache.config import Settings
from statscache.errors import StatementTimeout, StatscacheError
from statscache.plugins.aggregate import Aggregate
from statscache.plugins.discovery import Dataset

if TYPE_CHECKING:
    from statscache.app.dispatch.service import Service

log = logging.getLogger(__name__)

MOST_PLANS = 4_096
LONGEST_REMEMBERED = 1_500
"""Characters of a request; what is remembered of all of them is a few megabytes at most."""

UNCHANGING = "unchanging"
"""The mark of what depends on nothing that the hub writes."""


class Dispatcher:
    """Answers requests; made once per application, for all its threads.

    Args:
        service: settings, plugins and the way to the database.
        routes: all of them.
        clock: UNIX seconds.

    Attributes:
        routes: all of them.
        answers: those that are kept.
    """

    def __init__(
        self, service: Service, routes: Iterable[Route], clock: Callable[[], float] = time.time
    ) -> None:
        self.routes = tuple(routes)
        self.answers = AnswerCache(service.settings.cache_bytes)
        self._clock = clock
        self._service = service
        self._planner = Planner(service, self.routes)
        self._plans: Memo[Request, Plan] = Memo(MOST_PLANS)
        # A stream is for the one who asked.
        self._flights: Flights[Hashable, Entry | StreamReply] = Flights(
            patience=_longest(service.settings).total_seconds(),
            may_share=lambda result: isinstance(result, Entry),
        )

    def respond(
        self,
        request: Request,
        if_none_match: str | None = None,
        reading: Reading | None = None,
        client: Client = NOBODY,
    ) -> Reply | StreamReply:
        """The reply to ``request``.

        Args:
            if_none_match: the header.
            reading: a transaction to answer in, so that several answers are of one moment.
            client: who asks.

        Raises:
            Problem: the request cannot be answered as it is.
            DatabaseUnavailable: the database does not answer.
            SchemaError: it has not been upgraded.
        """
        began = time.monotonic()
        while True:
            try:
                return self._respond(request, if_none_match, reading, client, began)
            except Outdated:
                log.info("the definition of a table changed meanwhile: once more")
                self.confirm()

    def _respond(
        self,
        request: Request,
        if_none_match: str | None,
        reading: Reading | None,
        client: Client,
        began: float,
    ) -> Reply | StreamReply:
        plan = self._plan(
            request, self._service.served if reading is None else partial(self._served_in, reading)
        )
        mark, etag = self._mark(plan, reading)
        kept = self._kept(plan, request, if_none_match, mark, etag)
        if kept is not None:
            return kept

        def compute() -> Entry | StreamReply:
            return self._compute(plan, client, reading, began)

        # What is read in a transaction of the caller may be older than what others ask for.
        alone = mark is None or reading is not None
        result = compute() if alone else self._flights.run((plan.key, mark), compute)
        return result if isinstance(result, StreamReply) else self._reply(plan, request, result)

    def mark(self, request: Request, snapshot: Snapshot) -> Hashable:
        """What the answer to ``request`` depends on, and the query: equal marks, equal answers.

        Raises:
            Problem: the request cannot be answered as it is.
        """
        plan = self._plan(request, lambda: self._service.stored.at(snapshot))
        mark = self._mark_in(plan, snapshot)
        # Where nobody would say when it changes, it has changed.
        return plan.key, self._clock() if mark is None else mark

    def route_of(self, request: Request) -> Route:
        """The route that answers ``request``.

        Raises:
            Problem: a 404, none does.
        """
        return self._planner.match(request.path)[0]

    def _served_in(self, reading: Reading) -> Served:
        return self._service.stored.at(reading.snapshot)

    def _plan(self, request: Request, serve: Callable[[], Served]) -> Plan:
        plan = self._plans.get(request)
        clock = self._clock()
        is_outdated = plan is not None and plan.served is not None and plan.served is not serve()
        if plan is None or is_outdated or clock >= plan.valid_until:
            plan = self._planner.plan(request, clock, serve)
            if sum(map(len, request)) <= LONGEST_REMEMBERED:
                self._plans.put(request, plan)
        return plan

    def confirm(self) -> None:
        """Let no answer from now on be older than this call, not even by a millisecond."""
        self._service.revisions.confirm()

    def kept(self, request: Request, if_none_match: str | None = None) -> Reply | None:
        """The reply to ``request``, if that needs no more than what is kept; never raises."""
        plan = self._plans.get(request)
        if plan is None or self._clock() >= plan.valid_until:
            return None
        try:
            mark, etag = self._mark(plan, None)
        except (StatscacheError, Outdated):
            return None
        kept = self._kept(plan, request, if_none_match, mark, etag)
        # Who waits, does not wait here.
        return None if kept is not None and kept.wait is not None else kept

    def _kept(
        self,
        plan: Plan,
        request: Request,
        if_none_match: str | None,
        mark: Hashable,
        etag: str,
    ) -> Reply | None:
        if mark is None:
            return None
        if if_none_match is not None and reply.matches(if_none_match, etag):
            headers = [("ETag", etag), *COMMON_HEADERS]
            if plan.cache_control is not None:
                headers.append(("Cache-Control", plan.cache_control))
            return Reply(304, headers, b"", _wait(plan, mark))
        entry = self.answers.get(plan.key)
        if entry is None or entry.mark != mark:
            return None
        return self._reply(plan, request, entry)

    def _mark(self, plan: Plan, reading: Reading | None) -> tuple[Hashable, str]:
        """What the answer depends on, as it is now (None where that cannot be told), and the ETag.

        Never reads a table of a plugin.
        """
        if plan.route.scope is Scope.EVERYTHING:
            return None, ""
        snapshot = None
        if plan.route.scope is not Scope.NOTHING or plan.route.state is not None:
            snapshot = self._service.revisions.all() if reading is None else reading.snapshot
        seen, mark, etag = plan.seen
        if seen is not snapshot or not etag:
            if snapshot is not None:
                self._check(plan, snapshot)
            mark = self._mark_in(plan, snapshot)
            etag = _etag(plan, mark)
            # One assignment, so that no other thread sees the half of it.
            plan.seen = (snapshot, mark, etag)
        return mark, etag

    def _mark_in(self, plan: Plan, snapshot: Snapshot | None) -> Hashable:
        if snapshot is None:
            return UNCHANGING
        mark: Hashable = UNCHANGING
        if plan.route.scope is Scope.IDENT:
            assert plan.dataset is not None
            mark = snapshot.revisions.get(plan.dataset.ident)
            if mark is None:
                # Nobody would say when it changes.
                return None
        elif plan.route.scope is Scope.ALL:
            mark = tuple(snapshot.revisions.items())
        if plan.route.state is None:
            return mark
        call = plan.call(Reading(self._service.reading), NOBODY)
        return mark, plan.route.state(call, snapshot)

    def _check(self, plan: Plan, snapshot: Snapshot) -> None:
        """See that the tables are still those that ``plan`` is made for.

        Raises:
            Outdated: they are not.
        """
        if plan.served is not None and plan.served is not self._service.stored.at(snapshot):
            raise Outdated

    def _compute(
        self, plan: Plan, client: Client, shared: Reading | None, began: float
    ) -> Entry | StreamReply:
        if shared is not None:
            return self._answer(plan, client, shared, began)
        settings = self._service.settings
        # What has no end is not a request that takes too long.
        is_endless = plan.format == formats.ENDLESS
        longest = settings.statement_timeout if is_endless else _longest(settings)
        seconds = longest.total_seconds()
        try:
            while True:
                try:
                    with Reading(self._service.reading, began + seconds) as reading:
                        return self._answer(plan, client, reading, began)
                except Torn:
                    log.info("a table was replaced while it was read: once more")
        except StatementTimeout as error:
            raise too_much(seconds) from error

    def _answer(
        self, plan: Plan, client: Client, reading: Reading, began: float
    ) -> Entry | StreamReply:
        if plan.dataset is not None:
            self._check(plan, reading.snapshot)
        call = plan.call(reading, client)
        try:
            answer = plan.route.answer(call)
        except ProgrammingError:
            if self._is_outdated(reading):
                raise Torn from None
            raise
        mark = self._mark_of_answer(plan, reading)
        if mark is not None and plan.dataset is not None:
            ident = plan.dataset.ident
            self._service.revisions.saw(ident, reading.snapshot.revisions.get(ident))
        headers = _headers(plan, answer, mark)
        links = tuple((name, tuple(changes.items())) for name, changes in answer.links.items())
        if answer.chunks is not None:
            until = math.inf
            if plan.format != formats.ENDLESS:
                until = began + self._service.settings.request_timeout.total_seconds()
            stream = Stream(
                answer.chunks,
                reading,
                compressed=plan.compressed,
                until=until,
                patience=self._service.patience,
                client=client,
            )
            try:
                # What has been read so far; the statement holds the table until its end.
                _check_rows(plan, reading)
            except BaseException:
                # Nobody else knows of it yet.
                stream.close()
                raise
            reading.keep_open(until)
            if plan.compressed:
                headers.append(GZIPPED)
            if links:
                headers.append(("Link", reply.link_header(call.request, links)))
            return StreamReply(answer.status, headers, stream)
        body = formats.body(answer, call)
        _check_rows(plan, reading)
        if plan.compressed and len(body) >= formats.SMALLEST_COMPRESSED:
            body = formats.compress(body)
            headers.append(GZIPPED)
        headers.insert(1, ("Content-Length", str(len(body))))
        entry = Entry(mark, answer.status, tuple(headers), links, body)
        if mark is not None and entry.status == 200:
            self.answers.put(plan.key, entry)
        return entry

    def _is_outdated(self, reading: Reading) -> bool:
        """Whether PostgreSQL may have found tables that came after the moment that is read."""
        if not reading.has_snapshot:
            return False
        before = self._served_in(reading)
        self.confirm()
        return self._service.served() is not before

    def _mark_of_answer(self, plan: Plan, reading: Reading) -> Hashable:
        """What the answer depends on, as it was in the transaction that it was computed in."""
        if plan.route.scope is Scope.EVERYTHING:
            return None
        if plan.route.scope is Scope.NOTHING and plan.route.state is None:
            return UNCHANGING
        return self._mark_in(plan, reading.snapshot)

    def _reply(self, plan: Plan, request: Request, entry: Entry) -> Reply:
        headers, body = list(entry.headers), entry.body
        if plan.callback is not None:
            body = formats.jsonp(body, plan.callback)
            headers[0] = ("Content-Type", formats.JSONP_TYPE)
            headers[1] = ("Content-Length", str(len(body)))
        if entry.links:
            links, header = plan.linked
            if links is not entry.links:
                header = reply.link_header(request, entry.links)
                plan.linked = (entry.links, header)
            headers.append(("Link", header))
        return Reply(entry.status, headers, body)


GZIPPED = ("Content-Encoding", "gzip")


def _longest(settings: Settings) -> timedelta:
    """How long it may take until all of an answer has been read."""
    return min(settings.statement_timeout, settings.request_timeout)


def _headers(plan: Plan, answer: Answer, mark: Hashable) -> reply.Headers:
    plan.cache_control = reply.cache_control(plan, answer.lifetime)
    headers = [
        ("Content-Type", answer.content_type or formats.FORMATS[plan.format].content_type),
        ("Cache-Control", plan.cache_control),
        *COMMON_HEADERS,
        *answer.headers.items(),
    ]
    if mark is not None:
        headers.append(("ETag", _etag(plan, mark)))
    return headers


def _check_rows(plan: Plan, reading: Reading) -> None:
    """See that the rows that may have been read just now are those of one table, see ``check``."""
    if plan.dataset is not None:
        reading.check(_tables_of(plan.dataset))


def _wait(plan: Plan, mark: Hashable) -> Wait | None:
    known = mark if isinstance(mark, Revision) or not isinstance(mark, tuple) else mark[0]
    if not plan.wait or plan.dataset is None or not isinstance(known, Revision):
        return None
    return Wait(plan.dataset.ident, known, plan.wait)


def _etag(plan: Plan, mark: Hashable) -> str:
    return f'"{canonical.digest(plan.key, mark)}"'


def _tables_of(dataset: Dataset) -> list[Table]:
    """The tables that an answer may be made of: those of all the windows of a plugin."""
    if isinstance(dataset.plugin, Aggregate):
        return [table.table for table in dataset.plugin.tables]
    return [dataset.model.__table__]
