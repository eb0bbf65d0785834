"""From a request to a reply, alike for all routes; :mod:`statscache.app.route` tells the steps."""

from __future__ import annotations

import difflib
import time
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from werkzeug.datastructures import ETags
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_etags
from werkzeug.routing import Map, RequestRedirect, Rule

from statscache.app import canonical, formats, query
from statscache.app.cache import AnswerCache, Entry, Flights, Memo
from statscache.app.problems import Problem, nothing_there
from statscache.app.query import Parameter
from statscache.app.reading import Reading
from statscache.app.revisions import Revisions, Snapshot
from statscache.app.route import Answer, Call, Lifetime, Request, Route, Scope
from statscache.app.times import Steps, Time
from statscache.plugins.discovery import Dataset

if TYPE_CHECKING:
    from statscache.app.service import Service

MOST_PLANS = 4_096
LONGEST_REMEMBERED_QUERY = 1_024
"""What is remembered of requests is a few megabytes at most."""

RECONCILED_SECONDS = 3_600
STATIC_SECONDS = 300
LONGEST_OPEN_SECONDS = 60
SHARES_OF_A_STEP = 12
"""An open range is kept for a twelfth of a step: five seconds for buckets of a minute."""

VARY = ("Vary", "Accept, Accept-Encoding")


@dataclass(frozen=True)
class Reply:
    """What is sent: ``body`` is bytes, or, of a stream, an iterable with ``close()``."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | Iterable[bytes]


@dataclass
class Plan:
    """A request that was understood, and until when it means the same.

    Attributes:
        key: of the answer in the cache: the canonical query, the format and the encoding.
        valid_until: UNIX seconds; the canonical query of a relative time stands until then.
        seen: what was found to be its mark, in which snapshot.
    """

    call: Callable[[Reading, str | None], Call]
    route: Route
    dataset: Dataset | None
    format: str
    compressed: bool
    callback: str | None
    key: str
    valid_until: float
    steps: Steps
    is_relative: bool
    seen: tuple[Snapshot | None, Hashable] = (None, None)


class Dispatcher:
    """Answers requests; made once per application, for all its threads.

    Args:
        service: settings, plugins and the way to the database.
        routes: all of them.
        clock: UNIX seconds.
    """

    def __init__(
        self, service: Service, routes: Iterable[Route], clock: Callable[[], float] = time.time
    ) -> None:
        self.routes = tuple(routes)
        self.clock = clock
        self._service = service
        self._revisions: Revisions = service.revisions
        self._by_name = {route.name: route for route in self.routes}
        self._map = Map(
            [Rule(route.rule, endpoint=route.name) for route in self.routes], strict_slashes=False
        )
        self._plans: Memo[Request, Plan] = Memo(MOST_PLANS)
        self.answers = AnswerCache(service.settings.cache_bytes)
        patience = service.settings.statement_timeout.total_seconds()
        self._flights: Flights[Hashable, Entry | Reply] = Flights(patience)

    def respond(
        self, request: Request, if_none_match: str | None = None, reading: Reading | None = None
    ) -> Reply:
        """The reply to ``request``.

        Args:
            if_none_match: the header.
            reading: a transaction to answer in, so that several answers are of one moment.

        Raises:
            Problem: the request cannot be answered as it is.
            DatabaseUnavailable: the database does not answer.
            SchemaError: it has not been upgraded.
        """
        plan = self._plans.get(request)
        if plan is None or self.clock() >= plan.valid_until:
            plan = self._plan(request)
            if len(request.query) <= LONGEST_REMEMBERED_QUERY:
                self._plans.put(request, plan)
        mark = self._mark(plan, reading)
        if mark is None:
            result = self._compute(plan, if_none_match, reading)
        else:
            etag = self._etag(plan, mark)
            if if_none_match is not None and _matches(if_none_match, etag):
                return Reply(304, [("ETag", etag), VARY], b"")
            entry = self.answers.get(plan.key)
            if entry is not None and entry.mark == mark:
                result = entry
            elif reading is not None:
                result = self._compute(plan, if_none_match, reading)
            else:
                # A stream is for the one who asked.
                result = self._flights.run(
                    (plan.key, mark), lambda: self._compute(plan, if_none_match, None)
                )
        return result if isinstance(result, Reply) else self._reply(plan, request, result)

    def match(self, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route of an address, and the parts that its rule names.

        Raises:
            Problem: a 404.
        """
        text = path.encode("latin-1").decode("utf-8", "replace")
        try:
            name, arguments = self._map.bind("").match(text)
        except (HTTPException, RequestRedirect):
            raise nothing_there() from None
        return self._by_name[name], arguments

    def _plan(self, request: Request) -> Plan:
        route, arguments = self.match(request.path)
        dataset = self._dataset(arguments["ident"]) if "ident" in arguments else None
        pairs = query.split(request.query)
        given = dict(pairs)
        wanted = given.get("format")
        if wanted is not None and wanted in _offered(route):
            pass
        else:
            wanted = None
        callback = given.get("callback")
        form = formats.negotiate(
            request.accept,
            route.formats,
            wanted=wanted,
            callback=callback,
            has_page=route.page is not None,
        )
        if form not in route.formats and route.page is not None:
            route = route.page
        parsed = query.parse(pairs, parameters_of(route), dataset, filterable=route.filterable)
        steps = route.steps(dataset, parsed.values)
        clock = self.clock()
        now = steps.floor(clock)
        is_relative = any(
            isinstance(value, Time) and value.is_relative for value in parsed.values.values()
        )
        values = {
            name: value.at(now) if isinstance(value, Time) else value
            for name, value in parsed.values.items()
        }
        address = quote(request.path.encode("latin-1"), safe="/")
        text = canonical.write(
            address,
            parameters_of(route),
            values,
            parsed.filters,
            dataset,
            now if route.clock else None,
        )
        compressed = callback is None and formats.takes_gzip(request.accept_encoding)

        def call(reading: Reading, if_none_match: str | None) -> Call:
            return Call(
                self._service,
                route,
                request,
                arguments,
                values,
                frozenset(given),
                parsed.filters,
                form,
                now,
                text,
                reading,
                if_none_match,
                dataset,
            )

        return Plan(
            call,
            route,
            dataset,
            form,
            compressed,
            callback,
            canonical.digest(self._service.fingerprint, route.name, text, form, compressed),
            steps.after(clock) if is_relative or route.clock else float("inf"),
            steps,
            is_relative,
        )

    def _dataset(self, ident: str) -> Dataset:
        datasets = self._service.installed.datasets
        if ident not in datasets:
            similar = difflib.get_close_matches(ident[:200], datasets, n=3)
            hint = f"did you mean {' or '.join(similar)}? " if similar else ""
            raise Problem(
                404,
                f"nothing is called {ident[:200]!r}; {hint}/api/ lists all there is",
                allowed=similar or None,
            )
        return datasets[ident]

    def _mark(self, plan: Plan, reading: Reading | None) -> Hashable:
        """What the answer depends on, as it is now; None where that cannot be told."""
        if plan.route.scope is Scope.EVERYTHING:
            return None
        if plan.route.scope is Scope.NOTHING and plan.route.state is None:
            return "static"
        snapshot = self._revisions.all() if reading is None else reading.snapshot
        seen, mark = plan.seen
        if seen is not snapshot:
            mark = self._mark_in(plan, snapshot)
            # One assignment, so that no other thread sees the half of it.
            plan.seen = (snapshot, mark)
        return mark

    def _mark_in(self, plan: Plan, snapshot: Snapshot) -> Hashable:
        mark: Hashable
        if plan.route.scope is Scope.IDENT:
            assert plan.dataset is not None
            mark = snapshot.revisions.get(plan.dataset.ident)
            if mark is None:
                # Nobody would say when it changes.
                return None
        elif plan.route.scope is Scope.ALL:
            mark = tuple(snapshot.revisions.items())
        else:
            mark = "static"
        if plan.route.state is None:
            return mark
        call = plan.call(Reading(self._service.reading), None)
        return (mark, plan.route.state(call, snapshot))

    def _etag(self, plan: Plan, mark: Hashable) -> str:
        return f'"{canonical.digest(plan.key, mark)}"'

    def _compute(
        self, plan: Plan, if_none_match: str | None, shared: Reading | None
    ) -> Entry | Reply:
        reading = shared or Reading(self._service.reading)
        try:
            answer = plan.route.answer(plan.call(reading, if_none_match))
            mark: Hashable = None
            if plan.route.scope is not Scope.EVERYTHING:
                needs = plan.route.scope is not Scope.NOTHING or plan.route.state is not None
                mark = self._mark_in(plan, reading.snapshot) if needs else "static"
            entry = self._entry(plan, answer, mark)
            if answer.chunks is not None:
                chunks = _Stream(answer.chunks, reading, compressed=plan.compressed)
                reading = Reading(self._service.reading)
                headers = [header for header in entry.headers if header[0] != "Content-Length"]
                if plan.compressed:
                    headers.append(("Content-Encoding", "gzip"))
                return Reply(entry.status, headers, chunks)
        finally:
            if shared is None:
                reading.close()
        if mark is not None and entry.status == 200:
            self.answers.put(plan.key, entry)
        return entry

    def _entry(self, plan: Plan, answer: Answer, mark: Hashable) -> Entry:
        form = formats.FORMATS[plan.format]
        body = b"" if answer.chunks is not None else formats.body(answer, plan.format)
        headers = [("Content-Type", answer.content_type or form.content_type)]
        if plan.compressed and len(body) >= formats.SMALLEST_COMPRESSED:
            body = formats.compress(body)
            headers.append(("Content-Encoding", "gzip"))
        etag = None if mark is None else self._etag(plan, mark)
        if etag is not None:
            headers.append(("ETag", etag))
        headers += [("Cache-Control", self._cache_control(plan, answer.lifetime)), VARY]
        headers += answer.headers.items()
        links = tuple(
            (relation, tuple(changes.items())) for relation, changes in answer.links.items()
        )
        return Entry(mark, etag, answer.status, tuple(headers), links, body)

    def _cache_control(self, plan: Plan, lifetime: Lifetime) -> str:
        step = plan.steps.after(0.0) - plan.steps.floor(0.0)
        if lifetime is Lifetime.NONE:
            return "no-store"
        if lifetime is Lifetime.STATIC:
            seconds: float = STATIC_SECONDS
        elif lifetime is Lifetime.RECONCILED:
            seconds = min(RECONCILED_SECONDS, step) if plan.is_relative else RECONCILED_SECONDS
        else:
            seconds = min(LONGEST_OPEN_SECONDS, max(1, step // SHARES_OF_A_STEP))
        return f"public, max-age={int(seconds)}"

    def _reply(self, plan: Plan, request: Request, entry: Entry) -> Reply:
        headers, body = list(entry.headers), entry.body
        if plan.callback is not None:
            body = formats.jsonp(body, plan.callback)
            headers = [header for header in headers if header[0] != "Content-Type"]
            headers.append(("Content-Type", formats.JSONP_TYPE))
            headers.append(("X-Content-Type-Options", "nosniff"))
        if entry.links:
            headers.append(("Link", _link_header(request, entry.links)))
        headers.append(("Content-Length", str(len(body))))
        return Reply(entry.status, headers, body)


def parameters_of(route: Route) -> tuple[Parameter, ...]:
    """All the parameters of ``route``, those that no declaration names included."""
    parameters = route.parameters
    offered = _offered(route)
    if len(offered) > 1:
        words = query.choice(*offered)
        summary = "The format, whatever the Accept header says."
        parameters += (Parameter("format", words, summary),)
    return (*parameters, *query.PLAIN) if "json" in route.formats else parameters


def _offered(route: Route) -> tuple[str, ...]:
    return (*route.formats, "html") if route.page is not None else route.formats


def _matches(header: str, etag: str) -> bool:
    if header == etag:
        return True
    tags: ETags = parse_etags(header)
    # A proxy that compresses makes the tag weak, and the answer is the same.
    return tags.contains_weak(etag.strip('"'))


def _link_header(
    request: Request, links: Iterable[tuple[str, Iterable[tuple[str, str | None]]]]
) -> str:
    path = quote((request.root + request.path).encode("latin-1"), safe="/")
    address = f"{request.scheme}://{quote(request.host, safe=':[]')}{path}"
    given = [pair for pair in query.split(request.query) if pair[0] != "_"]
    texts = []
    for relation, changes in links:
        changed = dict(changes)
        pairs = [pair for pair in given if pair[0] not in changed]
        pairs += [(name, text) for name, text in changed.items() if text is not None]
        texts.append(f'<{address}?{urlencode(pairs)}>; rel="{relation}"')
    return ", ".join(texts)


class _Stream:
    """The pieces of a body; ends the transaction that they are read in."""

    def __init__(self, chunks: Iterator[bytes], reading: Reading, *, compressed: bool) -> None:
        self._chunks = _compressed(chunks) if compressed else chunks
        self._source = chunks
        self._reading = reading

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Called by the server, at the end or when the client is gone."""
        try:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
        finally:
            self._reading.close()


def _compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    gzip_window = 31
    compressor = zlib.compressobj(formats.COMPRESSION_LEVEL, zlib.DEFLATED, gzip_window)
    for chunk in chunks:
        smaller = compressor.compress(chunk)
        if smaller:
            yield smaller
    yield compressor.flush()


def request_of(environ: Mapping[str, Any]) -> Request:
    """The request of a WSGI environment."""
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return Request(
        environ["wsgi.url_scheme"],
        host,
        environ.get("SCRIPT_NAME", ""),
        environ.get("PATH_INFO", "/"),
        environ.get("QUERY_STRING", ""),
        environ.get("HTTP_ACCEPT", ""),
        environ.get("HTTP_ACCEPT_ENCODING", ""),
    )
