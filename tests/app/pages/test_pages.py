"""The pages for people: sound, safe, and true, looked at by a parser and by a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import flask
import pytest

from statscache.message import Message
from statscache.plugins import Aggregate, Key, Value
from tests.support import bundled
from tests.support.api_fixture import api_fixture
from tests.support.browser import PROGRAM, Browser
from tests.support.databases import migrated
from tests.support.hub import wait_until
from tests.support.messages import NOON, message
from tests.support.servers import Server

needs_a_browser = pytest.mark.skipif(
    PROGRAM is None, reason="there is no chromium: apt-get install chromium"
)

HTML = {"Accept": "text/html"}
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")

VOID = ("br", "hr", "img", "input", "link", "meta", "wbr")


@dataclass
class Element:
    """An element, and the text in it."""

    name: str
    attributes: Mapping[str, str]
    text: str = ""


@dataclass
class Example:
    """A command that a page shows, and what it shows of the answer."""

    command: str
    answer: str

    @property
    def address(self) -> str:
        found = re.fullmatch(r"curl '([^']+)'", self.command)
        assert found, self.command
        return found[1]


@dataclass
class Page(HTMLParser):
    """A page, as a parser sees it."""

    source: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []
        self.feed(self.source)
        assert not self._open, f"{self._open} are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        assert len(element.attributes) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, *names: str) -> list[Element]:
        return [element for element in self.elements if element.name in names]

    def one(self, name: str) -> Element:
        (found,) = self.all(name)
        return found

    @property
    def text(self) -> str:
        return self.one("body").text

    @property
    def links(self) -> list[str]:
        return [e.attributes["href"] for e in self.all("a", "link")]

    @property
    def ids(self) -> list[str]:
        return [e.attributes["id"] for e in self.elements if "id" in e.attributes]

    @property
    def examples(self) -> list[Example]:
        commands = [e.text for e in self.all("code") if e.text.startswith("curl ")]
        answers = [e.text for e in self.all("pre")]
        return [Example(*pair) for pair in zip(commands, answers, strict=True)]


@dataclass
class Site:
    """A server, and all its pages.

    Attributes:
        address: of its root.
        pages: by their path.
    """

    app: flask.Flask
    address: str
    pages: Mapping[str, Page]


def paths_of(app: flask.Flask) -> list[str]:
    idents = app.test_client().get("/api/").json
    return ["/", "/reference", *(f"/api/{quote(ident, safe='')}" for ident in idents)]


def pages_of(app: flask.Flask, address: str = "http://localhost") -> dict[str, Page]:
    client = app.test_client()
    found = {}
    for path in paths_of(app):
        answer = client.get(path, headers=HTML, base_url=address)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.content_type == "text/html; charset=utf-8", path
        found[path] = Page(answer.text)
    return found


@pytest.fixture(scope="module")
def messages(corpus: list[Message]) -> list[Message]:
    return bundled.recent(corpus)


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest,
    messages: list[Message],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    with migrated(request, "sqlite", tmp_path_factory.mktemp("site")) as uri:
        app = bundled.counted(uri, messages)
        with bundled.listening(app) as address:
            yield Site(app, address, pages_of(app, address))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as running:
        # As if the address had been typed.
        running.call("Network.setExtraHTTPHeaders", headers=HTML)
        yield running


# What a parser sees.


def test_there_is_a_page_for_each_dataset(site: Site) -> None:
    assert len(site.pages) > 30
    index = site.pages["/"]
    for path, page in site.pages.items():
        if path.startswith("/api/"):
            assert path in index.links
            assert page.one("h1").text == path.removeprefix("/api/")
            assert page.all("time"), f"{path} shows no rows"
            assert len(page.examples) > 4, path
    assert len(index.examples) == 6
    windows = [path for path in index.links if path.startswith("/api/volume-by-topic-")]
    assert [path.rpartition("-")[2] for path in windows] == ["15s", "1m", "15m", "1h", "1d"]


def test_pages_are_built_soundly(site: Site) -> None:
    titles = {page.one("title").text for page in site.pages.values()}
    assert len(titles) == len(site.pages)
    for path, page in site.pages.items():
        assert page.source.startswith("<!doctype html>")
        assert page.one("html").attributes["lang"] == "en"
        assert page.one("title").text.strip() == page.one("title").text != ""
        for landmark in ("header", "nav", "main", "footer"):
            page.one(landmark)
        levels = [int(e.name[1]) for e in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
        assert levels[0] == 1, path
        assert levels.count(1) == 1, path
        assert all(after <= before + 1 for before, after in pairwise(levels)), (path, levels)
        assert len(set(page.ids)) == len(page.ids), path
        assert all(heading.text.strip() for heading in page.all("h1", "h2", "h3")), path


def test_pages_can_be_read_aloud_and_used_with_a_keyboard(site: Site) -> None:
    for path, page in site.pages.items():
        for element in page.elements:
            said = element.attributes
            if element.name == "a":
                assert element.text.strip() or said.get("aria-label"), path
                # Who speaks to a browser says what is to be read.
                assert element.text.strip() in said.get("aria-label", element.text), path
            if "aria-label" in said:
                assert element.name in ("a", "nav") or said.get("role") == "region", element
            if said.get("class") == "wide" or element.name == "pre":
                assert said["tabindex"] == "0", f"{path}: it scrolls, and has no focus"
            if element.name == "th":
                assert said["scope"] in ("col", "row"), path
        assert not page.all("img", "input", "button", "select", "form", "iframe"), path
        regions = [e.attributes["aria-label"] for e in page.elements if "role" in e.attributes]
        assert len(set(regions)) == len(regions), (path, regions)
        skip = page.all("a")[0]
        assert skip.attributes["href"] == f"#{page.one('main').attributes['id']}"


def test_pages_need_no_script_and_no_other_host(site: Site) -> None:
    for path, page in site.pages.items():
        assert not page.all("script", "style", "object", "embed", "base"), path
        for element in page.elements:
            for name in element.attributes:
                assert not name.startswith("on"), path
                assert name not in ("style", "src", "srcset", "ping", "srcdoc"), path
        for link in page.links:
            parts = urlsplit(link)
            assert not parts.scheme, link
            assert not parts.netloc, link


def test_no_link_is_broken(site: Site) -> None:
    client = site.app.test_client()
    wanted: dict[str, set[str]] = {}
    for path, page in site.pages.items():
        for link in page.links:
            target, _, part = link.partition("#")
            wanted.setdefault(target or path, set()).add(part)
    assert len(wanted) > 200
    for target, parts in wanted.items():
        answer = client.get(target, headers=HTML, multithread=True)
        # Events have no end.
        text = answer.text if parts - {""} else ""
        answer.close()
        assert answer.status_code == 200, target
        for part in parts - {""}:
            assert part in Page(text).ids, f"{target}#{part}"


def test_the_answers_that_are_shown_are_those_of_the_server(site: Site) -> None:
    client = site.app.test_client()
    kinds = set()
    for path, page in site.pages.items():
        for example in page.examples:
            assert example.address.startswith(f"{site.address}/"), path
            answer = client.get(example.address.removeprefix(site.address), base_url=site.address)
            assert answer.status_code == 200, example.command
            kinds.add(answer.mimetype)
            assert re.match(beginning(example.answer), bare(answer.text), re.DOTALL), example
    assert kinds == {"application/json", "text/csv"}


def bare(text: str) -> str:
    """Without the blanks with which JSON may be laid out, and with letters as they are."""
    with_letters = json.dumps(json.loads(text), ensure_ascii=False) if text[0] in "[{" else text
    return re.sub(r"\s", "", with_letters)


def beginning(shown: str) -> str:
    """An expression for what a page shows: the dots stand for what is left out."""
    shown = re.sub("\\s+\N{HORIZONTAL ELLIPSIS}$", "", shown)
    shown = re.sub(r"\s", "", shown.replace(", ...]", "\0]").replace(" ...]", "\0]"))
    return re.escape(shown).replace(re.escape("\0"), r"[^\]]*")


def test_examples_with_many_numbers_are_cut_between_them(site: Site) -> None:
    shown = "".join(e.answer for page in site.pages.values() for e in page.examples)
    cut = re.findall(r"\[[^\[\]]*\.\.\.\]", shown)
    assert cut
    for text in cut:
        assert re.fullmatch(r"\[((\d+|null), )+\.\.\.\]", text), text


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_every_command_works_as_it_is(site: Site, tmp_path: Path) -> None:
    chosen = [site.pages[path] for path in site.pages if not re.search(r"-(15s|1m|15m)$", path)]
    commands = [example.command for page in chosen for example in page.examples]
    assert len(commands) > 50
    (tmp_path / ".curlrc").write_text(
        'silent\nfail\nshow-error\noutput=/dev/null\nwrite-out="%{http_code} %{url}\\n"\n'
    )
    done = subprocess.run(
        ["sh", "-e"],
        input="\n".join(commands),
        env={"CURL_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.count("200 ") == len(commands), done.stdout


def test_rows_can_be_turned_over_page_by_page(site: Site) -> None:
    client, ident = site.app.test_client(), "volume-by-topic-1h"
    expected = client.get(f"/api/{ident}?format=csv").text.splitlines()[1:]
    address, shown, numbers = f"/api/{ident}", 0, []
    count = -(-len(expected) // 10)
    for _ in range(3):
        answer = client.get(address, headers=HTML, base_url=site.address)
        page = Page(answer.text)
        # Of the table of rows, that comes first.
        rows = answer.text.partition("</table>")[0].count("<tr><td")
        assert rows == 10
        shown += rows
        numbers.append(re.findall(r"Page ([\d,]+) of ([\d,]+)", page.text))
        assert (answer.headers["X-Link-Number"], answer.headers["X-Link-Count"]) == (
            str(len(numbers)),
            str(count),
        )
        turns = [e.attributes for e in page.all("a") if "rel" in e.attributes]
        links = {each["rel"]: each["href"] for each in turns}
        assert ("prev" in links) is (len(numbers) > 1)
        address = links["next"].partition("#")[0]
    assert numbers == [[(str(n), f"{count:,}")] for n in (1, 2, 3)]
    whole = Page(client.get(f"/api/{ident}?limit=3", headers=HTML).text)
    assert not [e for e in whole.all("a") if "rel" in e.attributes]
    assert "Page 1 of 1" in whole.text


def test_the_policy_allows_nothing_but_our_own_style(site: Site) -> None:
    client = site.app.test_client()
    for path in site.pages:
        headers = client.get(path, headers=HTML).headers
        policy = {
            name: words
            for name, *words in (
                part.split() for part in headers["Content-Security-Policy"].split(";")
            )
        }
        assert policy == {
            "default-src": ["'none'"],
            "style-src": ["'self'"],
            "img-src": ["'self'"],
            "base-uri": ["'none'"],
            "form-action": ["'none'"],
            "frame-ancestors": ["'none'"],
        }
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
    for name, kind in (("css", "text/css"), ("svg", "image/svg+xml")):
        answer = client.get(f"/static/statscache.{name}")
        assert answer.mimetype == kind
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def colours(source: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The colours of each scheme."""
    light = dict(re.findall(r"--(\w+): (#\w{6});", source.partition("@media")[0]))
    yield "light", light
    dark = source.partition("(prefers-color-scheme: dark)")[2].partition("}\n}")[0]
    yield "dark", light | dict(re.findall(r"--(\w+): (#\w{6});", dark))


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_all_texts_can_be_told_from_their_grounds(site: Site) -> None:
    source = site.app.test_client().get("/static/statscache.css").text
    found = dict(colours(source))
    assert found["light"] != found["dark"]
    assert round(contrast("#000000", "#ffffff"), 2) == 21.0
    for scheme, named in found.items():
        for text in ("ink", "quiet", "accent", "good", "bad", "busy"):
            for ground in ("paper", "raised"):
                ratio = contrast(named[text], named[ground])
                assert ratio >= 4.5, f"{scheme}: {text} on {ground} is {ratio:.2f}"
    # Nothing has a colour of its own.
    assert not re.search(r"#\w{3,6}\b", re.sub(r"--\w+: #\w+;", "", source))


HOSTILE = '<script>window.ran=1</script><img src=x onerror="window.ran=1">"\'&amp;\u202eecho\u202c'


IMAGE = '<img src=x onerror="window.ran=1">\u202e'
"""An ident has no slash in it."""


class Hostile(Aggregate):
    name = f"hostile {IMAGE}"
    summary = f"summary {HOSTILE}"
    description = f"description {HOSTILE} </p></body>"
    keys = (Key("what"),)
    values = (Value("number"), Value("text", "newest", str))
    resolutions = (timedelta(hours=1),)

    def rows(self, message: Message) -> list[tuple[Any, ...]]:
        return [(message.msg["what"], 1, message.msg["text"])]


@pytest.fixture(scope="module")
def hostile(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[flask.Flask]:
    with (
        migrated(request, "sqlite", tmp_path_factory.mktemp("hostile")) as uri,
        api_fixture(uri, Hostile) as place,
    ):
        for number, what in enumerate((HOSTILE, "' onmouseover='window.ran=1", "\u202e\u2067rtl")):
            body = {"what": what, "text": f"value {HOSTILE}"}
            place.count(message(timestamp=NOON - number, msg=body))
        yield place.app


def test_whatever_others_write_is_shown_and_not_run(hostile: flask.Flask) -> None:
    pages = pages_of(hostile)
    assert len(pages) == 3
    for path, page in pages.items():
        assert not page.all("script", "img"), path
        for element in page.elements:
            assert not [name for name in element.attributes if name.startswith("on")], path
        for example in page.examples:
            # A quote would end the argument of the shell.
            assert set(example.address) <= set(
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?=&%"
            ), example.command
            address = example.address.removeprefix("http://localhost")
            assert hostile.test_client().get(address).status_code == 200
    (path,) = (path for path in pages if path.startswith("/api/"))
    for kind in ("description", "value"):
        assert f"{kind} {HOSTILE}" in pages[path].text
    assert f"Summary {HOSTILE}" in pages["/"].text
    assert f"Hostile {IMAGE}" in pages["/"].text
    assert "' onmouseover='window.ran=1" in pages[path].text


def test_whatever_a_request_says_is_shown_and_not_run(site: Site) -> None:
    client = site.app.test_client()
    for address in (
        f"/api/volume-by-category-1h?category={quote(HOSTILE)}",
        f"/api/volume-by-category-1h?category={quote(HOSTILE)}&format=html",
    ):
        answer = client.get(address, headers=HTML)
        assert answer.status_code == 200
        page = Page(answer.text)
        assert not page.all("script", "img")
        assert quote(HOSTILE, safe="") in page.text
    host = client.get("/", headers=HTML | {"Host": 'a"><script>alert(1)</script>'})
    assert not Page(host.text).all("script")


def test_a_prefix_is_in_every_link(site: Site) -> None:
    client = site.app.test_client()
    for path in ("/", "/reference", "/api/volume-by-category-1h", "/api/?format=html"):
        answer = client.get(path, headers=HTML, base_url="https://apps.example/of/stats")
        page = Page(answer.text)
        for link in page.links:
            assert link.startswith(("/of/stats/", "#")), link
        for example in page.examples:
            assert example.address.startswith("https://apps.example/of/stats/")
    assert site.pages["/"].links[0] == "/static/statscache.css"


@pytest.mark.parametrize("name", ["serve", "events"])
def test_servers_behind_a_proxy(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with (
        migrated(request, "sqlite", tmp_path) as uri,
        Server(name, tmp_path, uri, "--prefix", "stats/", config={}) as server,
    ):
        headers = HTML | {"Host": "apps.example", "X-Forwarded-Proto": "https"}
        # Whether the proxy passes the prefix on or not.
        for path in ("/stats/", "/"):
            answer = server.get(path, headers)
            assert answer.status == 200
            page = Page(answer.body.decode())
            assert page.links[0] == "/stats/static/statscache.css"
            assert page.examples[0].address.startswith("https://apps.example/stats/api/")
        assert server.get("/stats/static/statscache.css").status == 200
        entry = server.get("/stats/api/plugins/volume-1h").json
        assert entry["links"]["series"] == "/stats/api/volume-1h/series"
        assert server.get("/statscache").status == 404


def test_people_who_are_hidden_are_on_no_page(
    site: Site, messages: list[Message], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    # Accounts of services are called as these are, and stand in topics.
    services = named(" ".join(message.topic for message in messages))
    people = set().union(*(message.usernames for message in messages)) - services
    seen = sorted(people & named(*(page.text for page in site.pages.values())))
    assert len(seen) > 5
    hidden, others = seen[::2], seen[1::2]
    with migrated(request, "sqlite", tmp_path) as uri:
        config = {"statscache.people.hidden": hidden}
        pages = pages_of(bundled.counted(uri, messages, **config))
    for path, page in pages.items():
        found = named(page.text, page.source) & set(hidden)
        assert not found, f"{path} names {found}"
    assert named(*(page.text for page in pages.values())) >= set(others)


def named(*texts: str) -> set[str]:
    """All words that may be names, without regard to capitals."""
    return {word for text in texts for word in re.findall(r"\w+", unescape(text).lower())}


def test_nothing_is_installed(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    class Broken(Hostile):
        keys = (Key("limit"),)

    with migrated(request, "sqlite", tmp_path) as uri, api_fixture(uri, Broken) as place:
        assert place.installed.broken
        pages = pages_of(place.app)
        assert list(pages) == ["/", "/reference"]
        assert "Nothing is installed" in pages["/"].text
        assert "limit" in pages["/"].text.partition("broken")[2]
        for page in pages.values():
            for link in page.links:
                answer = place.client.get(link.partition("#")[0] or "/", multithread=True)
                answer.close()
                assert answer.status_code == 200, link


# What a browser sees.

MEASURE = """
(() => {
  const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parse = text => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    return parts.length < 4 ? [...parts, 1] : parts;
  };
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const grounds = new Map();
  const ground = element => {
    if (element === null) return [255, 255, 255, 1];
    if (!grounds.has(element)) {
      const own = parse(getComputedStyle(element).backgroundColor);
      grounds.set(element, own[3] === 0 ? ground(element.parentElement) : own);
    }
    return grounds.get(element);
  };
  const dim = new Set(), outside = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim()) continue;
    texts += 1;
    const style = getComputedStyle(element);
    const pair = [light(parse(style.color)), light(ground(element))].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize), bold = parseInt(style.fontWeight) >= 700;
    const least = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (!(ratio >= least)) dim.add(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
    const box = element.getBoundingClientRect();
    const scrolls = element.closest("pre, .wide, .skip");
    if (!scrolls && box.right > document.documentElement.clientWidth + 0.5)
      outside.add(`${element.tagName}.${element.className} ${element.textContent.slice(0, 40)}`);
  }
  const root = document.documentElement;
  return {
    texts, dim: [...dim], outside: [...outside], overflow: root.scrollWidth - root.clientWidth,
    ground: getComputedStyle(document.body).backgroundColor,
  };
})()
"""


@needs_a_browser
@pytest.mark.parametrize(
    # Of the five windows of a plugin, which follow each other, every fourth page is one.
    "stride",
    [4, pytest.param(1, marks=pytest.mark.long)],
)
def test_every_page_at_each_width_in_each_scheme(site: Site, browser: Browser, stride: int) -> None:
    faults = []
    grounds: dict[str, set[str]] = {scheme: set() for scheme in SCHEMES}
    wrong = ("/nothing", "/api/volume-1d?strat=-7d")
    shown = [
        path
        for number, path in enumerate(site.pages)
        if number % stride == 0 or not path.startswith("/api/")
    ]
    for path in (*shown, *wrong):
        seen = browser.open(site.address + path)
        if path in wrong:
            seen.problems = [text for text in seen.problems if "40" not in text]
        for width in WIDTHS:
            for scheme in SCHEMES:
                browser.show(width, scheme)
                found = browser.run(MEASURE)
                assert found["texts"] > (10 if path in wrong else 50), path
                grounds[scheme].add(found["ground"])
                if found["overflow"] > 0 or found["outside"] or found["dim"]:
                    faults.append((path, width, scheme, found))
        if seen.problems:
            faults.append((path, 0, "", seen.problems))
        foreign = [each for each in seen.requests if not each.startswith(f"{site.address}/")]
        assert seen.requests, path
        if foreign:
            faults.append((path, 0, "", foreign))
    assert faults == []
    assert grounds == {"light": {"rgb(255, 255, 255)"}, "dark": {"rgb(18, 23, 29)"}}


@needs_a_browser
def test_the_browser_would_have_noticed(site: Site, browser: Browser) -> None:
    seen = browser.open(f"{site.address}/reference")
    assert seen.problems == []
    browser.show(390, "light")
    browser.run(
        "document.querySelector('h1').style.width = '900px';"
        "document.querySelector('.lead').style.color = '#ccc';"
        "document.querySelector('main').insertAdjacentHTML('beforeend',"
        ' \'<p style="color:red" onclick="0"><img src="http://127.0.0.1:9/x.png">\')'
    )
    found = browser.run(MEASURE)
    assert found["overflow"] > 0
    assert [text for text in found["outside"] if text.startswith("H1")]
    assert [text for text in found["dim"] if text.startswith("P.lead")]
    # What its policy forbids is told in a moment.
    for rule in ("style-src", "img-src"):
        wait_until(lambda rule=rule: noticed(browser, rule), f"{rule} is told")


def noticed(browser: Browser, rule: str) -> bool:
    browser.run("0")
    return any("Content Security Policy" in text and rule in text for text in browser.seen.problems)


@needs_a_browser
@pytest.mark.parametrize(("path", "status"), [("/api/volume-1d?limit=1", 200), ("/nothing", 404)])
def test_scripts_of_other_origins_may_send_any_header(
    site: Site, browser: Browser, path: str, status: int
) -> None:
    other = flask.Flask("another_origin")
    other.add_url_rule("/", "page", lambda: "<!doctype html><p>A dashboard.")
    with bundled.listening(other) as address:
        browser.open(address)
        browser.run(
            f"fetch('{site.address}{path}', {{headers: {{"
            "'X-Requested-With': 'fetch', 'Cache-Control': 'no-cache', "
            "'Content-Type': 'text/plain', 'X-Anything': '1', "
            "'If-Modified-Since': 'Thu, 01 Jan 1970 00:00:00 GMT'}})"
            ".then(answer => answer.status, String).then(said => { window.said = said; }); 0"
        )
        wait_until(lambda: browser.run("window.said"), "it is answered")
    assert browser.run("window.said") == status, browser.seen.problems


@needs_a_browser
def test_pages_say_the_same_without_scripts(site: Site, browser: Browser) -> None:
    for path in ("/", "/reference", "/api/volume-by-category-1h"):
        texts = []
        for disabled in (False, True):
            browser.call("Emulation.setScriptExecutionDisabled", value=disabled)
            browser.open(site.address + path)
            texts.append(browser.run("document.body.innerText"))
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
        assert texts[0] == texts[1]
        assert site.pages[path].one("h1").text in texts[1]


@needs_a_browser
def test_whatever_others_write_is_not_run_by_a_browser(
    hostile: flask.Flask, browser: Browser
) -> None:
    with bundled.listening(hostile) as address:
        for path in paths_of(hostile):
            seen = browser.open(address + path)
            assert seen.problems == []
            assert all(each.startswith(f"{address}/") for each in seen.requests), seen.requests
            assert browser.run("window.ran === undefined && document.scripts.length === 0")
            browser.show(390, "light")
            found = browser.run(MEASURE)
            assert (found["overflow"], found["outside"]) == (0, []), path
        # A text that turns its direction does not turn that of what is beside it.
        assert browser.run(
            "[...document.querySelectorAll('a, code')]"
            ".every(one => getComputedStyle(one).unicodeBidi === 'isolate')"
        )


@needs_a_browser
def test_a_prefix_holds_in_a_browser(site: Site, browser: Browser) -> None:
    with bundled.listening(site.app, url_prefix="/stats") as address:
        for path in ("/", "/reference", "/api/volume-by-category-1h"):
            seen = browser.open(address + path)
            assert seen.problems == []
            assert f"{address}/static/statscache.css" in seen.requests
            links = browser.run("[...document.links].map(link => link.href)")
            assert all(link.startswith(f"{address}/") for link in links), links
