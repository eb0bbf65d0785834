"""From a request to what it means: route, dataset, canonical query, format."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from statscache.app.dispatch import canonical, rankings
from statscache.app.dispatch.cache import Links
from statscache.app.dispatch.route import Call, Route
from statscache.app.http import formats
from statscache.app.http.client import NOBODY, Client
from statscache.app.http.parameters import Parameter, parse, refuse, split
from statscache.app.http.problems import Problem, nothing_there
from statscache.app.http.request import Request
from statscache.app.http.times import EARLIEST, Steps, Time
from statscache.app.state.datasets import Served
from statscache.app.state.revisions import Snapshot
from statscache.app.state.transaction import Reading
from statscache.plugins.discovery import Dataset

if TYPE_CHECKING:
    from statscache.app.dispatch.service import Service


@dataclass
class Plan:
    """A request that was understood.

    Attributes:
        call: makes the call, in a transaction and for a client.
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
        wait: seconds that who has the answer already may be kept waiting for another one.
        seen: in this snapshot, the mark and the ETag were these.
        linked: for these links the header was this.
        cache_control: of the answer, once there was one.
    """

    call: Callable[[Reading, Client], Call]
    route: Route
    dataset: Dataset | None
    served: Served | None
    format: str
    compressed: bool
    callback: str | None
    key: str
    valid_until: float
    width: float
    is_relative: bool
    wait: int = 0
    seen: tuple[Snapshot | None, Hashable, str] = (None, None, "")
    linked: tuple[Links, str] = ((), "")
    cache_control: str | None = None


class Planner:
    """Understands requests.

    Args:
        service: the plugins, and what the calls are given.
        routes: all of them.
    """

    def __init__(self, service: Service, routes: Iterable[Route]) -> None:
        self._service = service
        self._routes = {route.name: route for route in routes}
        rules = [Rule(route.rule, endpoint=name) for name, route in self._routes.items()]
        self._map = Map(rules, strict_slashes=False)

    def match(self, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route of an address, a WSGI string, and the parts that its rule names.

        Raises:
            Problem: a 404.
        """
        text = path.encode("latin-1").decode("utf-8", "replace")
        try:
            name, arguments = self._map.bind("").match(text)
        except HTTPException:
            raise nothing_there() from None
        return self._routes[name], arguments

    def plan(self, request: Request, clock: float, serve: Callable[[], Served]) -> Plan:
        """What ``request`` means at the time ``clock``, UNIX seconds.

        Args:
            serve: what there is to serve.

        Raises:
            Problem: it means nothing that can be answered.
        """
        route, arguments = self.match(request.path)
        served = serve() if "ident" in arguments else None
        dataset = None if served is None else _dataset(served, arguments["ident"])
        pairs = split(request.query)
        texts = dict(pairs)
        form = _negotiate(request, route, texts)
        if route.page is not None and form not in route.formats:
            formats_offered, route = route.format_parameters, route.page
            parameters = (*route.all_parameters, *formats_offered)
        else:
            parameters = route.all_parameters
        parsed = parse(pairs, parameters, dataset, filterable=route.filterable)
        steps = route.steps(dataset, parsed.values)
        now, after = steps.floor(clock), steps.after(clock)
        values, is_relative = _resolve(parameters, parsed.values, steps, clock)
        address = quote(request.path.encode("latin-1"), safe="/")
        tells_time = now if route.clock else None
        text = canonical.write(address, parameters, values, parsed.filters, dataset, tells_time)
        callback = texts.get("callback") if "json" in route.formats else None
        is_finite = form != formats.ENDLESS
        compressed = callback is None and is_finite and formats.takes_gzip(request.accept_encoding)

        def call(reading: Reading, client: Client) -> Call:
            return Call(
                service=self._service,
                route=route,
                request=request,
                arguments=arguments,
                values=values,
                given=frozenset(texts),
                filters=parsed.filters,
                format=form,
                now=now,
                canonical=text,
                reading=reading,
                client=client,
                served=served,
                found=dataset,
            )

        rankings.check_lists(call(Reading(self._service.reading), NOBODY))
        mark = "" if served is None else served.mark
        return Plan(
            call=call,
            route=route,
            dataset=dataset,
            served=served,
            format=form,
            compressed=compressed,
            callback=callback,
            key=canonical.digest(
                self._service.fingerprint, mark, route.name, text, form, compressed
            ),
            valid_until=after if is_relative or route.clock else math.inf,
            width=after - now,
            is_relative=is_relative,
            wait=values.get("wait", 0),
        )


def _dataset(served: Served, ident: str) -> Dataset:
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
