"""The requests: all routes, of every dataset, with all their parameters, and nonsense.

They are made from what the API says of itself: ``/openapi.json`` and ``/api/plugins``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from benchmarks.answers.messages import NOW

Request = dict[str, Any]
"""As ``asking.py`` takes it."""

CSV = {"Accept": "text/csv"}
NDJSON = {"Accept": "application/x-ndjson"}
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
GZIP = {"Accept-Encoding": "gzip"}
ACCEPTS = (CSV, NDJSON, HTML, GZIP | CSV, GZIP | HTML, {"Accept": "image/png"})
METHODS = ("HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH")
PREFLIGHT = {"Origin": "https://example.org", "Access-Control-Request-Method": "GET"}

RANGES = (
    "start=-1d",
    "start=-7d&stop=-1d",
    "start=-3M&stop=now",
    "start=now-90m",
    "start=2023-11",
    "start=2023-11-03T10:00:00Z&stop=2023-11-10T12:30:00%2B02:00",
    f"start={NOW - 86_400}&stop={int(NOW)}",
    "stop=2016",
    "start=-1d&stop=-2d",
    "start=soon",
)
RESOLUTIONS = ("15s", "15m", "1h", "6h", "1d", "week", "month", "year", "7m", "nonsense")
ZONES = ("Asia/Kolkata", "America/New_York", "Nowhere/There")
CALENDAR = (
    "tz=Europe/Berlin&start=2023-10-28&stop=2023-10-31&resolution=1h",
    "tz=Europe/Berlin&start=2023-10-28&stop=2023-11-08&resolution=1d",
    "tz=Asia/Kathmandu&start=2023-11-01&stop=2023-11-16&resolution=week",
    "tz=America/St_Johns&start=2022&resolution=month",
)
NONSENSE = ("limt=3", "limit=-1", "limit=x", "format=xml", "callback=a(b", "%ff=%00", "select=no")
ODD_ADDRESSES = (
    *("/api", "/api//", "//api/", "/nothing", "/favicon.ico", "/robots.txt", "/static/nothing"),
    *("/api/nothing", "/api/volume-1", "/api/a%2Fb", "/api/%00", "/api/%ff", "/api/VOLUME-1D"),
    *("/api/volume-1d/", "/api/volume-1d/nothing", "/api/volume-1d/values", "/api/gone-1d"),
    *("/api/volume-1d/values/category", "/api/nothing/series", "/api/plugins/nothing"),
    *("/api/plugins/", "/metrics/", "/api/volume-1d?" + "x" * 17_000, "/api/../healthz"),
    *("/static/../app", "/api/volume-1d?limit=1;limit=2", "/api/volume-1d?&&=&", "/?x=1"),
)


@dataclass(frozen=True)
class Dataset:
    """What the API says of an ident, and some values of its columns."""

    ident: str
    name: str
    keys: tuple[str, ...]
    values: tuple[str, ...]
    filters: tuple[str, ...]
    samples: Mapping[str, list[Any]]


def exploring(idents: Iterable[str]) -> list[Request]:
    """The requests whose answers :func:`dataset` takes: one for each ident."""
    return [_ask(f"/api/{ident}?rows_per_page=25") for ident in idents]


def dataset(said: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Dataset:
    """A dataset, from its object of ``/api/plugins`` and some of its rows."""
    columns = said["columns"]
    filters = tuple(column["name"] for column in columns if column["filter"])
    samples: dict[str, list[Any]] = {name: [] for name in filters}
    for row, name in itertools.product(rows, filters):
        if row[name] is not None and row[name] not in samples[name]:
            samples[name].append(row[name])
    return Dataset(
        ident=said["ident"],
        name=said["name"],
        keys=tuple(column["name"] for column in columns if column["kind"] == "key"),
        values=tuple(column["name"] for column in columns if column["kind"] == "value"),
        filters=filters,
        samples=samples,
    )


def requests(datasets: Iterable[Dataset], pages: Iterable[str]) -> list[Request]:
    """All of them; ``pages`` are further addresses, of static files for instance."""
    every = list(datasets)
    found = [*_of_all([each.ident for each in every], pages)]
    siblings: Counter[str] = Counter()
    known: set[tuple[str, str]] = set()
    for turn, each in enumerate(every):
        asked: list[Request] = []
        for path in _addresses(each):
            asked += path if isinstance(path, list) else [_ask(path)]
        # Of one ident of a statistic a half, each ident the other one; of further resolutions less;
        # and whatever no request before has a parameter of.
        number = siblings[each.name]
        siblings[each.name] += 1
        step, first = (12, number) if number else (2, turn % 2)
        for place, request in enumerate(asked):
            parameters = _parameters(request, {each.ident})
            if place % step == first or not parameters <= known:
                found.append(request)
                known |= parameters
    # What was counted meanwhile, and kept.
    found.append(_ask("/metrics"))
    private = [request | {"app": "private"} for request in found[::5]]
    return found + private + [_ask("/metrics", app="private")]


def not_asked(
    document: Mapping[str, Any], datasets: Iterable[Dataset], asked: Iterable[Request]
) -> list[str]:
    """The routes and the parameters of an OpenAPI document that are asked of no ident."""
    idents = {dataset.ident for dataset in datasets}
    have = set().union(*(_parameters(request, idents) for request in asked))
    want = set()
    for path, item in document["paths"].items():
        route = _route(path, idents)
        parameters = item["get"].get("parameters", ())
        names = (each["name"] for each in parameters if each.get("in") == "query")
        want |= {(route, ""), *((route, name) for name in names)}
    return sorted(f"{route}?{name}" for route, name in want - have)


def _parameters(request: Request, idents: Container[str]) -> set[tuple[str, str]]:
    """The route of a request with each of its parameters, and alone."""
    path, _, query = request["path"].partition("?")
    route = _route(path, idents)
    return {(route, ""), *((route, pair.partition("=")[0]) for pair in query.split("&"))}


def _route(path: str, idents: Container[str]) -> str:
    parts = path.split("/")
    named = ["<ident>" if part in idents or part == "{ident}" else part for part in parts]
    if named[-2:-1] == ["values"]:
        named[-1] = "<column>"
    return "/".join(named)


def _ask(path: str, headers: Mapping[str, str] | None = None, **more: Any) -> Request:
    return {"app": "open", "path": path, "headers": dict(headers or {})} | more


def _of_all(idents: list[str], pages: Iterable[str]) -> Iterator[Request]:
    for path in ("/metrics", "/openapi.json", "/healthz", "/readyz", "/api/", "/", "/reference"):
        yield _ask(path, again=True)
        yield from (_ask(path, headers) for headers in ACCEPTS)
        yield from (_ask(path, method=method) for method in METHODS)
        yield _ask(path, PREFLIGHT, method="OPTIONS")
        yield _ask(f"{path}?nonsense=1")
        yield _ask(f"{path}?callback=f&_=1")
    yield _ask("/metrics", {"Accept": "application/openmetrics-text"})
    for required in ("database", "hub", "database,hub", "nothing"):
        yield _ask(f"/readyz?require={required}")
    for format_ in ("json", "html", "text", "openmetrics", "csv"):
        for path in ("/api/", "/metrics", "/api/plugins"):
            yield _ask(f"{path}?format={format_}")
    yield _ask("/api/plugins", again=True)
    yield _ask("/api/plugins", HTML)
    yield _ask("/api/plugins?callback=a.b&_=5")
    for path in (*pages, *ODD_ADDRESSES):
        for headers in ({}, HTML, GZIP):
            yield _ask(path, headers, again=not headers)
    yield from _batches(idents)
    events = "/api/events?ident=volume-1h&ident=volume-1d"
    for path in (events, "/api/events", "/api/events?ident=nothing", f"{events}&rows=true"):
        yield _ask(path, chunks=1)
    yield _ask(events, {"Last-Event-ID": "nonsense"}, chunks=1)
    yield _ask("/api/events?callback=f&_=1", chunks=1)


def _batches(idents: list[str]) -> Iterator[Request]:
    def batch(*asked: str, headers: Mapping[str, str] | None = None, **more: Any) -> Request:
        query = "&".join(f"q={quote(each, safe='')}" for each in asked)
        return _ask(f"/api/batch?{query}", headers, **more)

    for first in range(0, len(idents), 7):
        some = idents[first : first + 7]
        yield batch(*(f"/api/{ident}?limit=2" for ident in some), again=True)
        yield batch(*(f"/api/{ident}/series?points=5&start=-7d" for ident in some))
        yield batch(*(f"/api/{ident}/summary" for ident in some), headers=GZIP)
    yield batch()
    yield batch(*["/api/volume-1d"] * 21)
    yield batch("/api/batch?q=/api/", "/api/volume-1d?format=csv", "/api/nothing", "nonsense", "")
    yield batch("/api/", "/api/plugins/volume-1d", "/healthz", "/readyz", "/metrics", "/api/events")
    yield _ask("/api/batch?q=/api/&callback=f&_=1")
    yield _ask("/api/batch?q=/api/&q=/api/", HTML)


def _addresses(dataset: Dataset) -> Iterator[str | list[Request]]:
    base = f"/api/{dataset.ident}"
    yield from _rows(dataset, base)
    filters = list(_filters(dataset))
    charts = ("series", "summary", "top", "badge", "messages")
    for chart in charts:
        path = f"{base}/{chart}"
        yield [
            _ask(path, again=True),
            *(_ask(path, headers) for headers in ACCEPTS[:5:2]),
            _ask(path, method="HEAD"),
        ]
        yield from (f"{path}?{each}" for each in (*RANGES[::2], *filters[::3], *NONSENSE[::2]))
        yield f"{path}?callback=f&_=1"
        yield from (f"{path}?start=-5d&tz={zone}" for zone in ZONES)
    for number, chart in enumerate(charts[:4]):
        path = f"{base}/{chart}"
        some = RESOLUTIONS if number == 0 else RESOLUTIONS[number::3]
        yield from (f"{path}?start=-5d&resolution={each}" for each in some)
        yield from (f"{path}?start=-5d&select={name}" for name in dataset.values)
        yield from (f"{path}?{each}" for each in (CALENDAR if number < 2 else CALENDAR[:1]))
    yield from _series(dataset, f"{base}/series")
    for number, chart in enumerate(charts[:4]):
        yield from _readings(dataset, f"{base}/{chart}", number)
    for compared in ("previous", "year", "nothing"):
        yield f"{base}/summary?start=-2d&compare={compared}"
        yield f"{base}/summary?start=-20h&stop=now&resolution=1h&compare={compared}"
        yield f"{base}/summary?tz=Europe/Berlin&start=2023-11-01&compare={compared}"
    for format_ in ("csv", "csv&csv=raw", "ndjson", "html"):
        yield f"{base}/summary?start=-2d&format={format_}"
        yield f"{base}/top?start=-2d&format={format_}"
    for limit in (0, 1, 1000, 1001):
        yield f"{base}/top?start=-400d&limit={limit}"
    for name in dataset.keys:
        yield f"{base}/top?by={name}&start=2012&stop=now"
        yield f"{base}/top?by={name}&start=2012&format=csv"
        yield from _values(f"{base}/values/{name}")
    yield f"{base}/values/timestamp"
    for path in (f"/api/plugins/{dataset.ident}", f"{base}/layout"):
        yield [
            _ask(path, again=True),
            *(_ask(path, headers) for headers in (HTML, GZIP)),
            _ask(f"{path}?callback=f&_=1"),
            _ask(f"{path}?nonsense"),
        ]
    yield [
        _ask(f"{base}/events", chunks=1),
        _ask(f"{base}/events?rows=true", chunks=1),
        _ask(f"{base}/events?rows=perhaps", chunks=1),
        _ask(f"{base}/events?callback=f&_=1", chunks=1),
    ]


def _rows(dataset: Dataset, base: str) -> Iterator[str | list[Request]]:
    yield [
        _ask(base, again=True),
        _ask(base, GZIP, again=True),
        *(_ask(base, headers) for headers in ACCEPTS),
        *(_ask(base, method=method) for method in METHODS),
        _ask(base, PREFLIGHT, method="OPTIONS"),
        _ask(f"{base}?rows_per_page=2", follow=4),
        _ask(f"{base}?rows_per_page=3&order=asc", follow=4),
        _ask(f"{base}?rows_per_page=40&start=-9d&limit=95", follow=4),
        _ask(f"{base}?rows_per_page=2&format=csv", follow=1),
        _ask(f"{base}?wait=0", again=True),
    ]
    yield from (f"{base}?{each}" for each in (*RANGES, *NONSENSE))
    yield from (f"{base}?order=asc&limit=7&{each}" for each in RANGES[::2])
    for each in ("csv", "csv&csv=raw", "ndjson", "html", "json", "json&callback=f.g&_=17"):
        yield f"{base}?format={each}"
        yield f"{base}?limit=3&order=asc&start=2015&format={each}"
    pages = ("page=1", "page=2", "page=2&order=asc", "page=0", "page=99", "page=1000000", "page=x")
    yield from (f"{base}?rows_per_page=5&{page}" for page in pages)
    for each in ("cursor=nonsense", "cursor=", "rows_per_page=all", "rows_per_page=0", "limit=0"):
        yield f"{base}?{each}"
    for each in ("limit=1&limit=2", "order=up", "wait=x", "wait=99", "start=", "stop=1e400"):
        yield f"{base}?{each}"
    columns = ("timestamp", *dataset.keys, *dataset.values)
    yield from (f"{base}?limit=4&select={name}" for name in columns)
    yield f"{base}?limit=4&select={','.join(reversed(columns))}&format=csv"
    for each in _filters(dataset):
        yield f"{base}?{each}"
        yield f"{base}?order=asc&limit=3&start=-9d&{each}"
        yield f"{base}?format=csv&start=-9d&{each}"


def _filters(dataset: Dataset) -> Iterator[str]:
    for name in dataset.filters:
        samples = [quote(str(value), safe="") for value in dataset.samples[name]]
        first, second = (*samples, "a", "b")[:2]
        yield f"{name}={first}"
        yield f"not_{name}={first}"
        yield f"{name}={first}&{name}={second}"
        yield f"not_{name}={second}&not_{name}={first}&{name}={second}"
        yield f"{name}=nobody%27s"
    if len(dataset.filters) > 1:
        one, other = dataset.filters[:2]
        values = [quote(str([*dataset.samples[name], 1][0]), safe="") for name in (one, other)]
        yield f"{one}={values[0]}&{other}={values[1]}"
        yield f"{one}={values[0]}&not_{other}={values[1]}"


def _series(dataset: Dataset, path: str) -> Iterator[str]:
    for fill in ("zero", "null", "previous", "nothing"):
        yield f"{path}?start=-20d&fill={fill}"
    for points in (1, 10, 100, 0):
        yield f"{path}?start=-20d&points={points}"
    yield f"{path}?start=1970&resolution=15s"
    yield f"{path}?start=2012&stop=2024&resolution=month&top=3"
    yield f"{path}?start=-2d&top=2&format=csv&csv=raw"
    yield f"{path}?start=-2d&top=2&format=ndjson"
    for name in dataset.keys:
        yield f"{path}?start=-9d&by={name}&top=2"
        yield f"{path}?start=-1d&by={name}"
        yield f"{path}?start=-9d&by={name}&top=3&resolution=1d&format=csv"
        yield f"{path}?start=-9d&by={name}&top=3&resolution=week&format=ndjson&tz=Asia/Tokyo"


def _readings(dataset: Dataset, path: str, number: int) -> Iterator[str]:
    """Counts, quantiles, the hours of a week, and comparisons of the largest keys."""
    for name in (*dataset.keys, "nothing"):
        yield f"{path}?start=-9d&count={name}"
        yield f"{path}?start=2012&stop=2024&resolution=month&count={name}&tz=Asia/Tokyo"
        yield f"{path}?start=-9d&count={name}&by={dataset.keys[0]}" if dataset.keys else path
    for quantiles in ("0.5", "0.5,0.9", "2"):
        yield f"{path}?start=-9d&quantile={quantiles}"
    yield f"{path}?start=-30d&resolution=hour-of-week&tz={ZONES[number % 3]}"
    yield f"{path}?points=5&limit=3&compare=previous"
    yield f"{path}?start=-9d&points=20&limit=2&compare=year&format=csv"


def _values(path: str) -> Iterator[str]:
    yield path
    for q in ("a", "A", "f", "org.", "=", "%C3%A4", "%25", "_", "\\", "1", "nobody"):
        yield f"{path}?q={quote(q, safe='%')}"
    yield from (f"{path}?{each}" for each in ("limit=1", "limit=0", "limit=1001", *NONSENSE))
    yield from (f"{path}?format={each}" for each in ("csv", "ndjson", "csv&csv=raw", "html"))
    yield f"{path}?callback=f&_=1"
