"""From a request to a response, alike for all routes.

:mod:`statscache.app.dispatch.route` tells the steps.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlalchemy import Table
from sqlalchemy.exc import ProgrammingError

from statscache.app.dispatch.answer_cache import AnswerCache, Entry
from statscache.app.dispatch.plan import Plan, Planner
from statscache.app.dispatch.route import Call, Route, Scope
from statscache.app.dispatch.route_table import RouteTable
from statscache.app.dispatch.service import Service
from statscache.app.dispatch.single_flight import SingleFlight
from statscache.app.http import formats, response
from statscache.app.http.answer import Answer, Links
from statscache.app.http.client import NO_CLIENT, Client
from statscache.app.http.problems import too_much
from statscache.app.http.request import Request
from statscache.app.http.response import (
    COMMON_HEADERS,
    AwaitedChange,
    BodyStream,
    Response,
    StreamResponse,
)
from statscache.app.state.datasets import ServedDatasets
from statscache.app.state.digest import digest
from statscache.app.state.memo import Memo
from statscache.app.state.revisions import Revision, Snapshot
from statscache.app.state.transaction import DefinitionsChanged, ReadTransaction, TableReplaced
from statscache.config import Settings
from statscache.errors import StatementTimeout, StatscacheError
from statscache.plugins.installed.discovery import Dataset

log = logging.getLogger(__name__)

MOST_PLANS = 4_096
LONGEST_REMEMBERED = 1_500
"""Characters of a request; what is remembered of all of them is a few megabytes at most."""

UNCHANGING = "unchanging"
"""The validator of what depends on nothing that the hub writes."""


@dataclass
class _PlannedRequest:
    """A plan, and what was computed for it last.

    Attributes:
        plan: what the request means.
        validated: the last snapshot, and the validator and the ETag of the answer in it.
        linked: the last links, and the header for them.
        cache_control: of the answer; None before the first one.
    """

    plan: Plan
    validated: tuple[Snapshot | None, Hashable, str] = (None, None, "")
    linked: tuple[Links, str] = ((), "")
    cache_control: str | None = None


class Dispatcher:
    """Answers requests; made once per application, for all its threads.

    Args:
        service: settings, plugins and the way to the database.
        table: of the routes.
        answers: where answers are kept.
        clock: UNIX seconds.
    """

    def __init__(
        self,
        service: Service,
        table: RouteTable,
        answers: AnswerCache,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._answers = answers
        self._clock = clock
        self._service = service
        self._planner = Planner(service, table, self)
        self._planned: Memo[Request, _PlannedRequest] = Memo(MOST_PLANS)
        # A stream can be read once.
        self._single_flight: SingleFlight[Hashable, Entry | StreamResponse] = SingleFlight(
            patience=_longest(service.settings).total_seconds(),
            may_share=lambda result: isinstance(result, Entry),
        )

    @property
    def routes(self) -> RouteTable:
        """All routes."""
        return self._table

    def respond(
        self,
        request: Request,
        if_none_match: str | None = None,
        transaction: ReadTransaction | None = None,
        client: Client = NO_CLIENT,
    ) -> Response | StreamResponse:
        """The response to ``request``.

        Args:
            if_none_match: the header.
            transaction: to answer in, so that several answers are of one moment.
            client: that asks.

        Raises:
            Problem: the request cannot be answered as it is.
            DatabaseUnavailable: the database does not answer.
            SchemaError: it has not been upgraded.
        """
        began = time.monotonic()
        while True:
            try:
                return self._respond(request, if_none_match, transaction, client, began)
            except DefinitionsChanged:
                log.info("the definition of a table changed meanwhile: once more")
                self.confirm()

    def _respond(
        self,
        request: Request,
        if_none_match: str | None,
        transaction: ReadTransaction | None,
        client: Client,
        began: float,
    ) -> Response | StreamResponse:
        served: Callable[[], ServedDatasets] = self._service.served
        if transaction is not None:
            served = partial(self._served_in, transaction)
        planned = self._plan(request, served)
        validator, etag = self._validate(planned, transaction)
        kept = self._kept(planned, request, if_none_match, validator, etag)
        if kept is not None:
            return kept

        def compute() -> Entry | StreamResponse:
            return self._compute(planned, client, transaction, began)

        # A caller's transaction may be older than the answers that other threads ask for.
        is_alone = validator is None or transaction is not None
        key = (planned.plan.key, validator)
        result = compute() if is_alone else self._single_flight.share(key, compute)
        if isinstance(result, StreamResponse):
            return result
        return self._response(planned, request, result)

    def validator_of(self, request: Request, snapshot: Snapshot) -> Hashable:
        """What the answer to ``request`` depends on: equal validators, equal answers.

        Raises:
            Problem: the request cannot be answered as it is.
        """
        plan = self._plan(request, lambda: self._service.datasets.at(snapshot)).plan
        validator = self._validator_in(plan, snapshot)
        # Without a validator the answer may have changed at any time.
        return plan.key, self._clock() if validator is None else validator

    def route_of(self, request: Request) -> Route:
        """The route that answers ``request``.

        Raises:
            Problem: a 404, none does.
        """
        return self._table.match(request.path)[0]

    def _served_in(self, transaction: ReadTransaction) -> ServedDatasets:
        return self._service.datasets.at(transaction.snapshot)

    def _plan(self, request: Request, serve: Callable[[], ServedDatasets]) -> _PlannedRequest:
        planned = self._planned.get(request)
        clock = self._clock()
        if planned is not None and clock < planned.plan.valid_until:
            served = planned.plan.served
            if served is None or served is serve():
                return planned
        planned = _PlannedRequest(self._planner.plan(request, clock, serve))
        if sum(map(len, request)) <= LONGEST_REMEMBERED:
            self._planned.put(request, planned)
        return planned

    def confirm(self) -> None:
        """Ensure that later answers include all that was committed before this call."""
        self._service.revisions.confirm()

    def kept(self, request: Request, if_none_match: str | None = None) -> Response | None:
        """The response to ``request``, if that needs no more than what is kept; never raises."""
        planned = self._planned.get(request)
        if planned is None or self._clock() >= planned.plan.valid_until:
            return None
        try:
            validator, etag = self._validate(planned, None)
        except (StatscacheError, DefinitionsChanged):
            return None
        kept = self._kept(planned, request, if_none_match, validator, etag)
        # A long poll is not answered from memory: it waits for a change.
        return None if kept is not None and kept.awaited is not None else kept

    def _kept(
        self,
        planned: _PlannedRequest,
        request: Request,
        if_none_match: str | None,
        validator: Hashable,
        etag: str,
    ) -> Response | None:
        if validator is None:
            return None
        if if_none_match is not None and response.matches(if_none_match, etag):
            headers = [("ETag", etag), *COMMON_HEADERS]
            if planned.cache_control is not None:
                headers.append(("Cache-Control", planned.cache_control))
            return Response(304, headers, b"", _awaited(planned.plan, validator))
        entry = self._answers.get(planned.plan.key)
        if entry is None or entry.validator != validator:
            return None
        return self._response(planned, request, entry)

    def _validate(
        self, planned: _PlannedRequest, transaction: ReadTransaction | None
    ) -> tuple[Hashable, str]:
        """The validator, as it is now (None where it cannot be told), and the ETag.

        Never reads a table of a plugin.
        """
        plan = planned.plan
        if plan.route.scope is Scope.EVERYTHING:
            return None, ""
        snapshot = None
        if plan.route.scope is not Scope.NOTHING or plan.route.state is not None:
            snapshot = (
                self._service.revisions.all() if transaction is None else transaction.snapshot
            )
        known, validator, etag = planned.validated
        if known is not snapshot or not etag:
            if snapshot is not None:
                self._check(plan, snapshot)
            validator = self._validator_in(plan, snapshot)
            etag = _etag(plan, validator)
            # One assignment, so that no other thread sees a part of it.
            planned.validated = (snapshot, validator, etag)
        return validator, etag

    def _validator_in(self, plan: Plan, snapshot: Snapshot | None) -> Hashable:
        if snapshot is None:
            return UNCHANGING
        validator: Hashable = UNCHANGING
        if plan.route.scope is Scope.IDENT:
            assert plan.dataset is not None
            validator = snapshot.revisions.get(plan.dataset.ident)
            if validator is None:
                # There is no revision that would tell when it changes.
                return None
        elif plan.route.scope is Scope.ALL:
            validator = tuple(snapshot.revisions.items())
        if plan.route.state is None:
            return validator
        call = plan.call(transaction=ReadTransaction(self._service.database.begin))
        return validator, plan.route.state(call, snapshot)

    def _check(self, plan: Plan, snapshot: Snapshot) -> None:
        """Check that the tables are still those that ``plan`` is made for.

        Raises:
            DefinitionsChanged: they are not.
        """
        if plan.served is not None and plan.served is not self._service.datasets.at(snapshot):
            raise DefinitionsChanged

    def _compute(
        self,
        planned: _PlannedRequest,
        client: Client,
        shared: ReadTransaction | None,
        began: float,
    ) -> Entry | StreamResponse:
        if shared is not None:
            return self._answer(planned, client, shared, began)
        settings = self._service.settings
        # An endless stream is limited by statement, not as a whole.
        is_endless = planned.plan.format == formats.ENDLESS
        longest = settings.statement_timeout if is_endless else _longest(settings)
        seconds = longest.total_seconds()
        try:
            while True:
                try:
                    begin, until = self._service.database.begin, began + seconds
                    with ReadTransaction(begin, until) as transaction:
                        return self._answer(planned, client, transaction, began)
                except TableReplaced:
                    log.info("a table was replaced while it was read: once more")
        except StatementTimeout as error:
            raise too_much(seconds) from error

    def _answer(
        self,
        planned: _PlannedRequest,
        client: Client,
        transaction: ReadTransaction,
        began: float,
    ) -> Entry | StreamResponse:
        plan = planned.plan
        if plan.dataset is not None:
            is_endless = plan.format == formats.ENDLESS
            # Who listens reads no rows here: the copy that all threads share needs no connection.
            snapshot = self._service.revisions.all() if is_endless else transaction.snapshot
            self._check(plan, snapshot)
        call = plan.call(transaction=transaction, client=client)
        try:
            answer = plan.route.answer(call)
        except ProgrammingError:
            if self._is_outdated(transaction):
                raise TableReplaced from None
            raise
        validator = self._validator_of_answer(plan, transaction)
        if validator is not None and plan.dataset is not None:
            ident = plan.dataset.ident
            self._service.revisions.observe(ident, transaction.snapshot.revisions.get(ident))
        planned.cache_control = response.cache_control(
            answer.lifetime, plan.width, is_relative=plan.is_relative
        )
        headers = _headers(plan, answer, planned.cache_control, validator)
        links = tuple((name, tuple(changes.items())) for name, changes in answer.links.items())
        if answer.chunks is not None:
            stream = self._stream(plan, answer.chunks, call, began)
            if plan.compressed:
                headers.append(GZIPPED)
            if links:
                headers.append(("Link", response.link_header(call.request, links)))
            return StreamResponse(answer.status, headers, stream)
        entry = _entry(plan, answer, call, validator, headers, links)
        if validator is not None and entry.status == 200:
            self._answers.put(plan.key, entry)
        return entry

    def _stream(self, plan: Plan, chunks: Iterator[bytes], call: Call, began: float) -> BodyStream:
        until = math.inf
        if plan.format != formats.ENDLESS:
            until = began + self._service.settings.request_timeout.total_seconds()
        stream = BodyStream(
            chunks,
            call.transaction,
            compressed=plan.compressed,
            until=until,
            patience=self._service.patience,
            client=call.client,
        )
        try:
            # Check now: from here on the running statement keeps the table from being replaced.
            _check_rows(plan, call.transaction)
        except BaseException:
            # Nothing else would close it.
            stream.close()
            raise
        if plan.format == formats.ENDLESS:
            # A listener stays for hours, and would keep a connection and a snapshot as long.
            call.transaction.close()
        else:
            call.transaction.keep_open(until)
        return stream

    def _is_outdated(self, transaction: ReadTransaction) -> bool:
        """Whether PostgreSQL may have found tables that came after the moment that is read."""
        if not transaction.has_snapshot:
            return False
        before = self._served_in(transaction)
        self.confirm()
        return self._service.served() is not before

    def _validator_of_answer(self, plan: Plan, transaction: ReadTransaction) -> Hashable:
        """The validator, as it was in the transaction that the answer was computed in."""
        if plan.route.scope is Scope.EVERYTHING:
            return None
        if plan.route.scope is Scope.NOTHING and plan.route.state is None:
            return UNCHANGING
        return self._validator_in(plan, transaction.snapshot)

    def _response(self, planned: _PlannedRequest, request: Request, entry: Entry) -> Response:
        headers, body = list(entry.headers), entry.body
        callback = planned.plan.callback
        if callback is not None:
            body = formats.jsonp(body, callback)
            headers[0] = ("Content-Type", formats.JSONP_TYPE)
            headers[1] = ("Content-Length", str(len(body)))
        if entry.links:
            links, header = planned.linked
            if links is not entry.links:
                header = response.link_header(request, entry.links)
                planned.linked = (entry.links, header)
            headers.append(("Link", header))
        return Response(entry.status, headers, body)


GZIPPED = ("Content-Encoding", "gzip")


def _longest(settings: Settings) -> timedelta:
    """How long it may take to read all of an answer."""
    return min(settings.statement_timeout, settings.request_timeout)


def _headers(
    plan: Plan, answer: Answer, cache_control: str, validator: Hashable
) -> response.Headers:
    headers = [
        ("Content-Type", answer.content_type or formats.FORMATS[plan.format].content_type),
        ("Cache-Control", cache_control),
        *COMMON_HEADERS,
        *answer.headers.items(),
    ]
    if validator is not None:
        headers.append(("ETag", _etag(plan, validator)))
    return headers


def _entry(
    plan: Plan,
    answer: Answer,
    call: Call,
    validator: Hashable,
    headers: response.Headers,
    links: Links,
) -> Entry:
    body = formats.body(answer, call.format, call.values.get("csv"))
    _check_rows(plan, call.transaction)
    if plan.compressed and len(body) >= formats.SMALLEST_COMPRESSED:
        body = formats.compress(body)
        headers.append(GZIPPED)
    headers.insert(1, ("Content-Length", str(len(body))))
    return Entry(validator, answer.status, tuple(headers), links, body)


def _check_rows(plan: Plan, transaction: ReadTransaction) -> None:
    """Check that the rows just read are those of one table, see ``ReadTransaction.check``."""
    if plan.dataset is not None:
        transaction.check(_tables_of(plan.dataset))


def _awaited(plan: Plan, validator: Hashable) -> AwaitedChange | None:
    known = validator
    if isinstance(validator, tuple) and not isinstance(validator, Revision):
        known = validator[0]
    if not plan.wait or plan.dataset is None or not isinstance(known, Revision):
        return None
    return AwaitedChange(plan.dataset.ident, known, plan.wait)


def _etag(plan: Plan, validator: Hashable) -> str:
    return f'"{digest(plan.key, validator)}"'


def _tables_of(dataset: Dataset) -> list[Table]:
    """The tables that an answer may be made of: those of all the windows of a plugin."""
    return [table.table for table in dataset.declared_tables] or [dataset.model.__table__]
