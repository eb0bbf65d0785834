"""From a request to what it means: route, dataset, canonical query, format."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote

from statscache.app.dispatch import canonical, rankings
from statscache.app.dispatch.route import Call, Route, Subrequests
from statscache.app.dispatch.route_table import RouteTable
from statscache.app.dispatch.service import Service
from statscache.app.http import formats
from statscache.app.http.client import NO_CLIENT, Client
from statscache.app.http.parameters import Parameter, parse, refuse, split
from statscache.app.http.problems import Problem
from statscache.app.http.request import Request
from statscache.app.http.times import EARLIEST, Time
from statscache.app.state.datasets import ServedDatasets
from statscache.app.state.digest import digest
from statscache.app.state.filters import Filters
from statscache.app.state.steps import Steps
from statscache.app.state.transaction import ReadTransaction
from statscache.plugins.installed.discovery import Dataset


class CallMaker(Protocol):
    """Makes the calls of one plan."""

    def __call__(self, *, transaction: ReadTransaction, client: Client = NO_CLIENT) -> Call:
        """A call of ``client``, that reads in ``transaction``."""


@dataclass(frozen=True)
class Plan:
    """A request that was understood.

    Attributes:
        call: makes the call, for a transaction and a client.
        route: that answers; the page of a route, where HTML is wanted.
        dataset: of the ident, if there is one.
        served: that has the dataset.
        format: to answer in.
        compressed: whether the client takes gzip.
        callback: of JSON-P.
        key: of the answer in the cache: the canonical query, the format and the encoding.
        valid_until: UNIX seconds; a relative time means the same until then.
        width: of the step that the present is in, seconds.
        is_relative: whether a time of the query is.
        wait: seconds for which a client that has the answer already may wait for a newer one.
    """

    call: CallMaker
    route: Route
    dataset: Dataset | None
    served: ServedDatasets | None
    format: str
    compressed: bool
    callback: str | None
    key: str
    valid_until: float
    width: float
    is_relative: bool
    wait: int


class Planner:
    """Understands requests.

    Args:
        service: the plugins, and what the calls use.
        table: of the routes.
        subrequests: answers other requests within a call.
    """

    def __init__(self, service: Service, table: RouteTable, subrequests: Subrequests) -> None:
        self._service = service
        self._table = table
        self._subrequests = subrequests

    def plan(self, request: Request, clock: float, serve: Callable[[], ServedDatasets]) -> Plan:
        """What ``request`` means at the time ``clock``, UNIX seconds.

        Args:
            serve: what there is to serve.

        Raises:
            Problem: it means nothing that can be answered.
        """
        route, arguments = self._table.match(request.path)
        served = serve() if "ident" in arguments else None
        dataset = None if served is None else _dataset(served, arguments["ident"])
        pairs = split(request.query)
        texts = dict(pairs)
        form = _negotiate(request, route, texts)
        parameters = route.all_parameters
        if route.page is not None and form not in route.formats:
            parameters = (*route.page.all_parameters, *route.format_parameters)
            route = route.page
        query = _understand(pairs, request, route, parameters, dataset, clock)
        callback = texts.get("callback") if "json" in route.formats else None
        is_finite = form != formats.ENDLESS
        compressed = callback is None and is_finite and formats.takes_gzip(request.accept_encoding)
        call = partial(
            Call,
            service=self._service,
            subrequests=self._subrequests,
            route=route,
            request=request,
            arguments=arguments,
            values=query.values,
            given=frozenset(texts),
            filters=query.filters,
            format=form,
            now=query.now,
            canonical=query.canonical,
            served=served,
            found=dataset,
        )
        rankings.check_lists(call(transaction=ReadTransaction(self._service.database.begin)))
        tables = "" if served is None else served.validator
        key = (self._service.fingerprint, tables, route.name, query.canonical, form, compressed)
        return Plan(
            call=call,
            route=route,
            dataset=dataset,
            served=served,
            format=form,
            compressed=compressed,
            callback=callback,
            key=digest(*key),
            valid_until=query.after if query.is_relative or route.clock else math.inf,
            width=query.after - query.now,
            is_relative=query.is_relative,
            wait=query.values.get("wait", 0),
        )


@dataclass(frozen=True)
class _Query:
    """What a query means at a moment.

    Attributes:
        values: of all parameters, by name; times are UNIX seconds.
        filters: by column.
        is_relative: whether a time is.
        now: the start of the step that the present is in, UNIX seconds.
        after: its end.
        canonical: the canonical query.
    """

    values: Mapping[str, Any]
    filters: Filters
    is_relative: bool
    now: float
    after: float
    canonical: str


def _understand(
    pairs: Sequence[tuple[str, str]],
    request: Request,
    route: Route,
    parameters: Sequence[Parameter],
    dataset: Dataset | None,
    clock: float,
) -> _Query:
    parsed = parse(pairs, parameters, dataset, filterable=route.filterable)
    steps = route.steps(dataset, parsed.values)
    now = steps.floor(clock)
    values, is_relative = _resolve(parameters, parsed.values, steps, clock)
    address = quote(request.path.encode("latin-1"), safe="/")
    tells_time = now if route.clock else None
    text = canonical.write(address, parameters, values, parsed.filters, dataset, tells_time)
    return _Query(values, parsed.filters, is_relative, now, steps.after(clock), text)


def _dataset(served: ServedDatasets, ident: str) -> Dataset:
    datasets = served.installed.datasets
    if ident not in datasets:
        similar = difflib.get_close_matches(ident[:200], datasets, n=3)
        hint = f"did you mean {' or '.join(similar)}? " if similar else ""
        raise Problem(
            404,
            f"nothing is called {ident[:200]!r}; {hint}/api/ lists all there is",
            allowed=similar or None,
        )
    return datasets[ident]


def _negotiate(request: Request, route: Route, texts: Mapping[str, str]) -> str:
    offered: Sequence[str] = route.offered
    wanted = texts.get("format") if len(offered) > 1 else None
    if wanted is not None and wanted not in offered:
        refuse("format", f"must be one of {', '.join(offered)}", offered)
    return formats.negotiate(request.accept, offered, wanted=wanted, callback=texts.get("callback"))


def _resolve(
    parameters: Iterable[Parameter], values: Mapping[str, Any], steps: Steps, clock: float
) -> tuple[Mapping[str, Any], bool]:
    """The values with times in UNIX seconds, and whether one of them was relative.

    Dates and days are those of the time zone that the query names.
    """
    resolved, is_relative = dict(values), False
    now, end = steps.floor(clock), steps.end(clock)
    for parameter in parameters:
        time = values[parameter.name]
        if isinstance(time, Time):
            moment = time.at(now, values.get("tz"), end=end)
            if time.is_relative and not time.is_now:
                # What is before the present may be within a step, and is rounded like it.
                moment = max(EARLIEST, steps.floor(moment))
            resolved[parameter.name] = moment
            is_relative |= time.is_relative
    return resolved, is_relative
