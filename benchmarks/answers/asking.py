"""A program that answers the requests of a file with the applications of the installed checkout.

``python asking.py APPS REQUESTS ANSWERS``: APPS has, as a JSON object, configurations by name;
REQUESTS has a request a line, and ANSWERS gets a line for each: the list of what was exchanged.

It knows nothing of statscache but ``create_app``, so that any checkout can be asked.
"""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

_NEXT = re.compile(r'<http://localhost([^>]*)>; rel="?next')


def main(apps: Path, requests: Path, answers: Path) -> None:
    """Answer all of them, in their order."""
    from statscache.app import create_app

    logging.disable(logging.CRITICAL)
    made = {name: create_app(config) for name, config in json.loads(apps.read_text()).items()}
    with requests.open() as lines, answers.open("w") as written:
        for line in lines:
            request = json.loads(line)
            exchanged = list(_exchange(made[request["app"]], request))
            written.write(json.dumps(exchanged) + "\n")


def _exchange(app: Callable[..., Iterable[bytes]], request: dict[str, Any]) -> Iterator[Any]:
    """The answer, and those that follow from it.

    ``again``: the same again (from what is kept), and with its ETag. ``follow``: so many of the
    next pages.
    """
    answer = _answer(app, request)
    yield answer
    headers = dict(answer["headers"])
    if request.get("again"):
        yield _answer(app, request)
        if "ETag" in headers:
            validated = {**request.get("headers", {}), "If-None-Match": headers["ETag"]}
            yield _answer(app, request | {"headers": validated})
    for _ in range(request.get("follow", 0)):
        link = _NEXT.search(headers.get("Link", ""))
        if link is None:
            return
        answer = _answer(app, request | {"path": link[1]})
        yield answer
        headers = dict(answer["headers"])


def _answer(app: Callable[..., Iterable[bytes]], request: dict[str, Any]) -> dict[str, Any]:
    started: list[Any] = []
    chunks = app(_environ(request), lambda *start: started.append(start))
    try:
        # What has no end is read as far as the request says.
        body = b"".join(itertools.islice(chunks, request.get("chunks")))
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    status, headers = started[-1][:2]
    return {
        "asked": f"{request.get('method', 'GET')} {request['path']}",
        "status": status,
        "headers": headers,
        "body": _text(body if dict(headers).get("Content-Encoding") != "gzip" else _plain(body)),
    }


def _plain(body: bytes) -> bytes:
    # There is no body for HEAD.
    return gzip.decompress(body) if body else body


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return "base64 " + base64.b64encode(body).decode()


def _environ(request: dict[str, Any]) -> dict[str, Any]:
    """As a server makes it: the query as it stands, the path unquoted."""
    path, _, query = request["path"].partition("?")
    body = request.get("body", "").encode()
    environ = {
        "REQUEST_METHOD": request.get("method", "GET"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, text in request.get("headers", {}).items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = text
    return environ


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
