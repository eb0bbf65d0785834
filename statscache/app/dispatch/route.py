"""What a route is: a declaration, and one function from a call to an answer.

The dispatcher (:mod:`statscache.app.dispatch.dispatcher`) does everything else, alike for all
routes. In the order of a request:

1. It matches the address, and finds the dataset where the rule has an ``<ident>`` (404 with near
   names otherwise): with the columns that its table has now (:mod:`statscache.app.state.datasets`).
   Other parts of the rule (``<column>``) are in :attr:`Call.arguments`.
2. It parses the query by :attr:`Route.parameters`, and by the filters of the dataset where
   :attr:`Route.filterable`: unknown, doubled, overlong or ill-formed ones are a 400 that names them
   (:mod:`statscache.app.http.parameters`). ``callback`` and ``_`` belong to every route with JSON,
   ``format`` to every route with several formats, ``csv`` to every route with CSV: no declaration
   names them.
3. It negotiates the format by ``format=``, ``callback=`` and ``Accept``. Where people prefer HTML,
   and the route has a :attr:`Route.page`, that is another route which takes over from here.
4. It rounds the present down to a step (:attr:`Route.steps`; the resolution of the dataset, and a
   minute where it has none), and makes every time of the query UNIX seconds from there. What is
   left is the *canonical query*: the parameters that differ from their defaults, sorted, with
   absolute times and sorted filters. Requests with one canonical query share one answer in the
   cache and one ``ETag``. It stands until the next step if a time is relative or the route has a
   :attr:`Route.clock`, otherwise without limit.
5. It asks what the answer depends on (:attr:`Route.scope`, :attr:`Route.state`), which costs no
   statement on a plugin's table. ``If-None-Match`` is answered with 304 here (or, where the route
   takes ``wait``, delayed until there is a newer revision), and so is everything that is in
   the cache.
6. It calls :attr:`Route.answer`, once for all equal requests at the same time, in one transaction
   that only reads: rows, revisions and coverage are of one moment. The transaction begins when
   :attr:`Call.connection` or :attr:`Call.snapshot` is first used.
7. It writes the answer in the format, compresses it where the client takes gzip, and adds ``ETag``,
   ``Cache-Control``, ``Link``, ``Vary`` and the headers of CORS.

An answer function depends on its call alone: neither on the clock (there is :attr:`Call.now`) nor
on earlier calls. It refuses values that only it can check by
:func:`statscache.app.http.parameters.refuse`, and raises a
:class:`~statscache.app.http.problems.Problem` for any other error that the client can correct.
Queries that take too long become a 422 without its help.

:mod:`statscache.app.all_routes` lists all routes; the application, ``/api/batch``,
``/openapi.json`` and the reference for people are made from that list.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from sqlalchemy import Connection

from statscache import people
from statscache.app.dispatch.service import Service
from statscache.app.http.answer import Answer
from statscache.app.http.client import NO_CLIENT, Client
from statscache.app.http.formats import CSV
from statscache.app.http.parameters import PLAIN, Parameter, choice
from statscache.app.http.request import Request
from statscache.app.http.response import Response, StreamResponse
from statscache.app.state import coverage
from statscache.app.state.coverage import Coverage
from statscache.app.state.datasets import ServedDatasets
from statscache.app.state.filters import Filters
from statscache.app.state.revisions import Revision, Snapshot
from statscache.app.state.row_reader import RowQuery, RowReader
from statscache.app.state.steps import Steps, steps_of
from statscache.app.state.transaction import ReadTransaction
from statscache.config import Settings
from statscache.plugins.installed.discovery import Dataset, Installed


class Scope(enum.Enum):
    """What the answers of a route depend on, besides the query and :attr:`Route.state`."""

    IDENT = "the revision of the ident"
    ALL = "the revisions of all idents"
    NOTHING = "nothing that the hub writes: the same until the process is restarted"
    EVERYTHING = "more than can be told beforehand: never kept, no ETag"


class Subrequests(Protocol):
    """Answers other requests within a call, so that all answers are of one moment."""

    @property
    def routes(self) -> Iterable[Route]:
        """All routes, in the order in which documents list them."""

    def route_of(self, request: Request) -> Route:
        """The route that answers ``request``.

        Raises:
            Problem: a 404, none does.
        """

    def respond(
        self, request: Request, *, transaction: ReadTransaction | None = None
    ) -> Response | StreamResponse:
        """The response to ``request``, read in ``transaction``.

        Raises:
            Problem: the request cannot be answered as it is.
        """

    def validator_of(self, request: Request, snapshot: Snapshot) -> Hashable:
        """What the answer to ``request`` depends on: equal validators, equal answers.

        Raises:
            Problem: the request cannot be answered as it is.
        """


@dataclass
class Call:
    """A request that was understood.

    Attributes:
        service: settings, plugins, and what the hub has committed.
        subrequests: answers other requests within this call.
        route: that answers it.
        request: as it came.
        arguments: the parts of the address that the rule names, ``ident`` among them.
        values: of all parameters of the route, by name; times are UNIX seconds.
        given: the names of the parameters that the query has.
        filters: by column; :func:`statscache.app.state.filters.clauses` makes them SQL.
        format: ``json``, ``csv``, ``ndjson``, ...
        now: the start of the step that the present is in, UNIX seconds.
        canonical: the canonical query.
        transaction: in which everything is read, see :attr:`connection`.
        client: that asks, for routes that let it wait.
        served: the datasets as their tables are, see :attr:`installed`.
        found: the dataset of the ident; None where the rule has none.
    """

    service: Service
    subrequests: Subrequests
    route: Route
    request: Request
    arguments: Mapping[str, str]
    values: Mapping[str, Any]
    given: frozenset[str]
    filters: Filters
    format: str
    now: float
    canonical: str
    transaction: ReadTransaction
    client: Client = NO_CLIENT
    served: ServedDatasets | None = None
    found: Dataset | None = None

    @property
    def installed(self) -> Installed:
        """The plugins, with the datasets as their tables are at the moment of this call."""
        return self._served.installed

    @property
    def reader(self) -> RowReader:
        """Reads the rows of the dataset."""
        return self._served.rows[self.dataset.ident]

    @property
    def row_query(self) -> RowQuery:
        """The rows that ``start``, ``stop``, ``order``, ``select`` and the filters ask for."""
        value = self.values.get
        return RowQuery(
            start=value("start"),
            stop=value("stop"),
            filters=self.filters,
            is_descending=value("order", "desc") == "desc",
            columns=value("select"),
        )

    @property
    def _served(self) -> ServedDatasets:
        return self.served or self.service.datasets.at(self.snapshot)

    @property
    def dataset(self) -> Dataset:
        """The dataset of the ident; only for routes with one."""
        assert self.found is not None, f"{self.route.rule} has no ident"
        return self.found

    @property
    def connection(self) -> Connection:
        """The transaction of this call: begun at the first use, read-only, of one moment."""
        return self.transaction.connection

    @property
    def snapshot(self) -> Snapshot:
        """Revisions, lanes and states of the plugins, of the moment of :attr:`connection`."""
        return self.transaction.snapshot

    @property
    def revision(self) -> Revision | None:
        """Of the dataset; None where nothing was ever written."""
        return self.snapshot.revisions.get(self.dataset.ident)

    def coverage_at(self, snapshot: Snapshot) -> Coverage:
        """The coverage that an answer may tell, cut off at the last step that has ended.

        So it changes once per step, and not whenever the hub says that it listens.
        """
        return coverage.measure(snapshot, self.dataset.ident).floored(steps_of(self.dataset))


def dataset_steps(dataset: Dataset | None, _values: Mapping[str, Any]) -> Steps:
    """The steps of the buckets of the dataset."""
    return steps_of(dataset)


def all_people(dataset: Dataset, _values: Mapping[str, Any]) -> Iterable[str]:
    """The columns of people in answers that have all columns."""
    return people.columns(dataset)


def no_people(_dataset: Dataset, _values: Mapping[str, Any]) -> Iterable[str]:
    """The columns of people in answers that have no keys but those that the query names."""
    return ()


@dataclass(frozen=True)
class Route:
    """A route of the API.

    Attributes:
        rule: as Flask writes it, such as ``/api/<ident>/series``.
        name: unique; the operationId of OpenAPI.
        label: in the metrics of requests; the name if empty.
        summary: one line.
        description: the rest, for the reference; reStructuredText without roles.
        answer: from a call to its answer.
        parameters: that it takes, besides ``format``, ``csv``, ``callback`` and ``_``.
        filterable: whether it takes the filters of the dataset as well.
        lists: of which columns the answer has the values, from the dataset, and what the query and
            the address say: where people are not to be listed it is refused unless the query names
            them.
        applies: whether a dataset has an answer at all: no document leads to a route that always
            refuses.
        is_offered: whether the operator has set what it needs: no document leads there otherwise.
        formats: names of :data:`statscache.app.http.formats.FORMATS`, the preferred one first.
        scope: what the answer depends on.
        state: what else it depends on, told from the call and what the framework's tables say
            (coverage, say): it is in the ETag, must be cheap, and may not read anything.
        clock: whether the answer depends on the present although no time of the query is relative
            (which bucket is still open, say).
        steps: what the present is rounded down to, from the dataset and the parsed values; the
            times among them are still :class:`~statscache.app.http.times.Time`.
        statuses: of HTTP, that an answer may have.
        schema: the JSON schema of the answer, or a function that returns that of a dataset.
        page: the route, with the format ``html``, that answers a person at the same address.
        example: the query of an address that works, such as ``?start=-7d``.
    """

    rule: str
    name: str
    summary: str
    answer: Callable[[Call], Answer]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    filterable: bool = False
    lists: Callable[[Dataset, Mapping[str, Any]], Iterable[str]] = all_people
    applies: Callable[[Dataset], bool] = lambda _dataset: True
    is_offered: Callable[[Settings], bool] = lambda _settings: True
    formats: tuple[str, ...] = ("json",)
    scope: Scope = Scope.IDENT
    state: Callable[[Call, Snapshot], Hashable] | None = None
    clock: bool = False
    steps: Callable[[Dataset | None, Mapping[str, Any]], Steps] = dataset_steps
    statuses: tuple[int, ...] = (200,)
    schema: Mapping[str, Any] | Callable[[Dataset], Mapping[str, Any]] = field(default_factory=dict)
    page: Route | None = None
    example: str = ""
    label: str = ""

    @property
    def offered(self) -> tuple[str, ...]:
        """The formats, that of the page included."""
        return (*self.formats, *self.page.formats) if self.page is not None else self.formats

    @cached_property
    def all_parameters(self) -> tuple[Parameter, ...]:
        """The parameters, those that no declaration names included."""
        parameters = (*self.parameters, *self.format_parameters)
        return (*parameters, *PLAIN) if "json" in self.formats else parameters

    @cached_property
    def format_parameters(self) -> tuple[Parameter, ...]:
        """``format``, where there is a choice, and ``csv``, where CSV is among them."""
        found = []
        if len(self.offered) > 1:
            summary = "The format, whatever the Accept header says."
            found.append(Parameter("format", choice(*self.offered), summary))
        return (*found, CSV) if "csv" in self.formats else tuple(found)
